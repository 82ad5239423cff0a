"""`ssl-audio embed`: recordings to vectors, one a recording or one a patch column."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from ssl_audio.cli.results import add_result
from ssl_audio.cli.rows import add_common, checkpoints_in, grids, kept_rows, merge, models_in, recordings_in, share_of
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.parts import WHOLE, Job, Share
from ssl_audio.evaluation.pretrained import Pretrained
from ssl_audio.evaluation.recordings import Recordings
from ssl_audio.evaluation.tables import Tables, write_vectors
from ssl_audio.evaluation.windows import Sound
from ssl_audio.experiments.parsing import VerbParser


def run(words: list[str]) -> None:
    """Parse and embed."""
    if words[:1] == ["merge"]:
        merge(words[1:], _finish, verb="embed")
        return
    parser = VerbParser(
        prog="ssl-audio embed",
        description="Embed recordings of any length; `ssl-audio embed merge OUT` merges parts (--part).",
    )
    add_common(parser, out="A .parquet or .npz file.")
    parser.add_argument("--frames", type=bool, default=False, help="A vector for every patch column too, and its time.")
    parser.add_argument(
        "--bands",
        type=Literal["mean", "apart"],
        default="mean",
        help="Mean over the bands of a patch column, or their states side by side: longer, and better to classify by.",
    )
    if checkpoints_in(words) is not words:
        raise RecipeError("embed takes one --checkpoint; `predict` and `evaluate` average the scores of several")
    chosen = parser.parse_args(words)
    share = share_of(chosen.part)
    _check_name(chosen.out)
    (model,) = models_in(chosen, bands=chosen.bands)
    embed(model, recordings_in(chosen), out=chosen.out, frames=chosen.frames, share=share, workers=chosen.workers)


def embed(
    model: Pretrained,
    recordings: Recordings,
    *,
    out: Path,
    frames: bool,
    share: Share = WHOLE,
    workers: int | None = 0,
) -> None:
    """Write the embeddings of recordings; a stopped call is resumed.

    Args:
        model: What embeds them.
        recordings: All of them.
        out: The file to write.
        frames: The vectors of the patch columns too.
        share: Which of the recordings are embedded here.
        workers: Processes that decode; None chooses.
    """
    _check_name(out)

    def rows(numbers: list[int], sounds: list[Sound]) -> Iterator[dict[str, Any]]:
        names = (sound.name for sound in sounds)
        if not frames:
            for name, vector in zip(names, model.vectors(sounds), strict=True):
                yield {"path": name, "embedding": vector.numpy()}
            return
        for name, (states, seconds) in zip(names, model.frames(sounds), strict=True):
            yield {
                "path": name,
                "embedding": states.mean(dim=0).numpy(),
                "frames": list(states.numpy()),
                "seconds": seconds.numpy(),
            }

    options = {
        "frames": frames,
        "bands": model.bands,
        "windows": grids([model]),
        "batch_windows": model.batch_windows,
        "reading": str(recordings.reading),
    }
    job = Job(
        verb="embed",
        checkpoints=[model.digest],
        options=options,
        inputs=recordings.digest(),
        recordings=len(recordings),
        facts={"width": model.width},
    )
    with kept_rows(
        model,
        recordings,
        rows,
        out=out,
        job=job,
        schema=_schema(frames),
        share=share,
        workers=workers,
        title="embedding",
    ) as tables:
        if tables is not None:
            _finish(job, out, tables)


def _check_name(out: Path) -> None:
    if out.suffix not in (".parquet", ".npz"):
        raise RecipeError(f"--out {out}: expected a name that ends in .parquet or .npz")


def _schema(frames: bool) -> pa.Schema:
    vector = pa.list_(pa.float32())
    columns = {"path": pa.string(), "embedding": vector}
    return pa.schema(columns | ({"frames": pa.list_(vector), "seconds": vector} if frames else {}))


def _finish(job: Job, out: Path, tables: Tables) -> None:
    """Write the embeddings from their rows."""
    frames = bool(job.options["frames"])
    _check_name(out)
    write_vectors(out, tables, _schema(frames))
    rows = sum(len(table) for table in tables())
    add_result({"out": out, "recordings": rows, "channels": job.facts["width"], "frames": frames})
    print(f"{out}: {rows} recordings, {job.facts['width']} channels" + (", with frames" if frames else ""))
