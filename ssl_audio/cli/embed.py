"""`ssl-audio embed`: recordings to vectors, one a recording or one a patch column."""

import contextlib
import dataclasses
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jsonargparse import Namespace
from jsonargparse.typing import PositiveFloat

from ssl_audio.audio.reading import Reading
from ssl_audio.checkpoints.sizes import NO_HINTS, Hints
from ssl_audio.cli.inputs import Input, Openings, inputs_of
from ssl_audio.cli.parser import VerbParser, claimed, write_bytes
from ssl_audio.cli.progress import bar
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.journal import Journal
from ssl_audio.evaluation.pretrained import Pretrained, pretrained
from ssl_audio.evaluation.windows import Sound, fitting


def add_common(parser: Any, *, out: str) -> None:
    """The options of every verb that reads recordings with a checkpoint."""
    parser.add_argument("--checkpoint", type=Path, required=True, help="Ours, or a published one.")
    parser.add_argument(
        "--base",
        type=Path | None,
        default=None,
        help="What an adapter checkpoint was trained on; by default looked for below runs/ and beside the file.",
    )
    parser.add_argument("--out", type=Path, required=True, help=out)
    parser.add_argument("--hints", type=Hints, default=NO_HINTS, help="What a published checkpoint does not say.")
    parser.add_argument("--device", type=str, default="cpu", help="Where to compute: cpu, cuda.")
    parser.add_argument("--window_seconds", type=PositiveFloat | None, default=None, help="Length of a window.")
    parser.add_class_arguments(Reading, None, as_positional=False)
    parser.add_argument("paths", type=Path, nargs="+", help="Audio files, folders of them, or shards.")


def reading_of(chosen: Namespace) -> Reading:
    """How these options want recordings to be read."""
    return Reading(**{field.name: chosen[field.name] for field in dataclasses.fields(Reading)})


def face_of(chosen: Namespace, **options: Any) -> Pretrained:
    """The checkpoint that these options name."""
    return pretrained(
        chosen.checkpoint,
        hints=Hints(**vars(chosen.hints)),
        base=chosen.base,
        device=chosen.device,
        window_seconds=chosen.window_seconds,
        **options,
    )


def run(words: list[str]) -> None:
    """Parse and embed."""
    parser = VerbParser(prog="ssl-audio embed", description="Embed recordings of any length.")
    add_common(parser, out="A .parquet or .npz file.")
    parser.add_argument("--frames", type=bool, default=False, help="A vector for every patch column too, and its time.")
    parser.add_argument(
        "--bands",
        type=Literal["mean", "apart"],
        default="mean",
        help="Mean over the bands of a patch column, or their states side by side: longer, and better to classify by.",
    )
    chosen = parser.parse_args(words)
    embed(
        face_of(chosen, bands=chosen.bands),
        inputs_of(chosen.paths, reading_of(chosen)),
        out=chosen.out,
        frames=chosen.frames,
        identity=[str(reading_of(chosen))],
    )


def embed(face: Pretrained, inputs: Sequence[Input], *, out: Path, frames: bool, identity: Sequence[str] = ()) -> None:
    """Write the embeddings of recordings; a call that was stopped goes on where it was.

    Args:
        face: What embeds them.
        inputs: The recordings.
        out: The file to write.
        frames: The vectors of the patch columns too.
        identity: What else the result depends on.
    """
    if out.suffix not in (".parquet", ".npz"):
        raise RecipeError(f"--out {out}: expected a name that ends in .parquet or .npz")

    def rows(sounds: list[Sound]) -> Iterator[dict[str, Any]]:
        if not frames:
            yield from ({"embedding": vector.numpy()} for vector in face.vectors(sounds))
            return
        for states, seconds in face.frames(sounds):
            yield {
                "embedding": states.mean(dim=0).numpy(),
                "frames": list(states.numpy()),
                "seconds": seconds.numpy(),
            }

    job = ["embed", *face.identity, str(frames), face.bands, str(face.grid), *identity]
    with kept_table(face, inputs, rows, out=out, job=job, title="embedding") as table:
        write_bytes(out, _encoded(table, out))
    print(f"{out}: {len(table)} recordings, {face.width} channels" + (", with frames" if frames else ""))


@contextlib.contextmanager
def kept_table(
    face: Pretrained,
    inputs: Sequence[Input],
    rows: Callable[[list[Sound]], Iterable[dict[str, Any]]],
    *,
    out: Path,
    job: Sequence[str],
    title: str,
) -> Iterator[pa.Table]:
    """A row for each recording that can be read, for a `with` statement that writes the result.

    A call that was stopped goes on with the recordings that were not done. Nobody else writes the result meanwhile.

    Args:
        face: What reads the recordings.
        inputs: The recordings.
        rows: Recordings to a row each.
        out: Where the result will be.
        job: What the rows depend on besides the recordings.
        title: What the progress bar says.

    Raises:
        BusyError: if another process writes the result.
        AudioError: if no recording can be read.
    """
    openings, total = Openings(face), len(inputs)
    named = [*job, str(face.batch_windows), *(one.name for one in inputs)]
    with claimed(out), Journal(out, job=named) as journal:
        with bar(title) as progress:
            for group in fitting(openings.sounds(inputs, start=journal.done), face.grid, face.batch_windows):
                numbers, sounds = [number for number, _ in group], [sound for _, sound in group]
                found = zip(numbers, rows(sounds), strict=True)
                journal.add((number, {"path": inputs[number].name, **row}) for number, row in found)
                progress(journal.done, total)
            if journal.done < total:  # the last cannot be read
                progress(total, total)
        openings.refused = total - len(journal)
        openings.check(total)
        yield journal.table()


def _encoded(table: pa.Table, out: Path) -> bytes:
    buffer = io.BytesIO()
    if out.suffix == ".parquet":
        pq.write_table(table, buffer)
        return buffer.getvalue()
    vectors = table["embedding"].combine_chunks()
    width = len(vectors[0])
    arrays: dict[str, Any] = {
        "path": np.array(table["path"].to_pylist()),
        "embedding": vectors.flatten().to_numpy().reshape(-1, width),
    }
    if "frames" in table.column_names:
        seconds = table["seconds"].combine_chunks()
        arrays["offsets"] = np.cumsum([0, *seconds.value_lengths().to_pylist()])
        arrays["frames"] = table["frames"].combine_chunks().flatten().flatten().to_numpy().reshape(-1, width)
        arrays["seconds"] = seconds.flatten().to_numpy()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
