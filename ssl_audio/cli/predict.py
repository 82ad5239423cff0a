"""`ssl-audio predict`: the most probable labels of recordings or of their windows, or their sound events."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt

from ssl_audio.cli.inputs import names_in
from ssl_audio.cli.predict_events import check_events_name, check_picture, finish_events, predict_events
from ssl_audio.cli.predict_windows import check_windows_name, finish_windows, predict_windows
from ssl_audio.cli.rows import (
    add_common,
    checkpoints_in,
    kept_rows,
    merge,
    models_in,
    prediction_job,
    recordings_in,
    share_of,
)
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.ensemble import Ensemble
from ssl_audio.evaluation.parts import WHOLE, Job, Share
from ssl_audio.evaluation.recordings import Recordings
from ssl_audio.evaluation.tables import Tables, write_labels
from ssl_audio.evaluation.windows import Sound
from ssl_audio.experiments.parsing import VerbParser
from ssl_audio.names import printable

_SHOWN = 5
_SCHEMA = pa.schema({"path": pa.string(), "labels": pa.list_(pa.string()), "probabilities": pa.list_(pa.float32())})


def run(words: list[str]) -> None:
    """Parse and label."""
    if words[:1] == ["merge"]:
        merge(words[1:], _finish, verb="predict")
        return
    parser = VerbParser(
        prog="ssl-audio predict",
        description="Label recordings with fine-tuned checkpoints; `ssl-audio predict merge OUT` merges parts "
        "(--part).",
    )
    add_common(
        parser,
        out="A .csv or .json file; of events a .tsv, a .json, or a .txt of labels for Audacity (of several recordings "
        "a folder of them, named without .txt); of windows a .csv, .parquet, .tsv, .json or .txt.",
        several=True,
    )
    parser.add_argument(
        "--events", type=bool, default=False, help="Write sound events with onset, offset and confidence instead."
    )
    parser.add_argument(
        "--picture",
        type=Path | None,
        default=None,
        help="With --events: also draw timelines of the recordings into this PNG file.",
    )
    parser.add_argument("--windows", type=bool, default=False, help="Write the labels of each window instead.")
    parser.add_argument(
        "--overlap_seconds",
        type=NonNegativeFloat,
        default=0.0,
        help="How much of a window the next one has too.",
    )
    parser.add_argument(
        "--least", type=ClosedUnitInterval, default=0.0, help="Leave out labels less probable than this (--windows)."
    )
    parser.add_argument("--top", type=PositiveInt, default=3, help="So many labels a recording.")
    parser.add_argument(
        "--label_names",
        type=Path | None,
        default=None,
        help="Names of the labels, one a line, for a published checkpoint, which has numbers.",
    )
    chosen = parser.parse_args(checkpoints_in(words))
    share = share_of(chosen.part)
    if chosen.events and chosen.windows:
        raise RecipeError("predict: --events and --windows exclude one another; expected one of them")
    check = check_events_name if chosen.events else check_windows_name if chosen.windows else _check_name
    check(chosen.out)
    check_picture(chosen.picture, events=chosen.events, share=share)
    model = Ensemble(models_in(chosen))
    if chosen.label_names is not None:
        model.name_labels(names_in(chosen.label_names))
    given = {"out": chosen.out, "share": share, "workers": chosen.workers}
    if chosen.events:
        predict_events(model, recordings_in(chosen), picture=chosen.picture, **given)
    elif chosen.windows:
        options = {"top": chosen.top, "overlap_seconds": chosen.overlap_seconds, "least": chosen.least}
        predict_windows(model, recordings_in(chosen), **options, **given)
    else:
        predict(model, recordings_in(chosen), top=chosen.top, **given)


def predict(
    model: Ensemble,
    recordings: Recordings,
    *,
    out: Path,
    top: int,
    share: Share = WHOLE,
    workers: int | None = 0,
) -> None:
    """Write the most probable labels of recordings; a stopped call is resumed.

    Args:
        model: What labels them.
        recordings: All of them.
        out: The file to write.
        top: So many labels a recording.
        share: Which of the recordings are labelled here.
        workers: Processes that decode; None chooses.
    """
    _check_name(out)
    count = min(top, len(model.labels))

    def rows(numbers: list[int], sounds: list[Sound]) -> Iterator[dict[str, Any]]:
        for sound, shares in zip(sounds, model.probabilities(sounds), strict=True):
            best = shares.topk(count)
            names = [printable(model.labels[place]) for place in best.indices.tolist()]
            yield {"path": sound.name, "labels": names, "probabilities": best.values.tolist()}

    job = prediction_job(model, recordings, top=count)
    with kept_rows(
        model, recordings, rows, out=out, job=job, schema=_SCHEMA, share=share, workers=workers, title="labelling"
    ) as tables:
        if tables is not None:
            _finish(job, out, tables)


def _check_name(out: Path) -> None:
    if out.suffix not in (".csv", ".json"):
        raise RecipeError(f"--out {out}: expected a name that ends in .csv or .json")


def _finish(job: Job, out: Path, tables: Tables) -> None:
    """Write the labels from their rows, and print the first."""
    if job.options.get("events"):
        finish_events(job, out, tables)
        return
    if "overlap_seconds" in job.options:
        finish_windows(job, out, tables)
        return
    _check_name(out)
    write_labels(out, tables, count=int(job.options["top"]))
    rows = 0
    for table in tables():
        for row in table.slice(0, max(0, _SHOWN - rows)).to_pylist():
            shown = ", ".join(f"{n} {p:.2f}" for n, p in zip(row["labels"], row["probabilities"], strict=True))
            print(f"{row['path']}: {shown}")
        rows += len(table)
    print(f"{out}: {rows} recordings")
