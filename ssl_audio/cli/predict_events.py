"""`ssl-audio predict --events`: sound events of recordings, with onset, offset and confidence."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from ssl_audio.cli.rows import kept_rows, prediction_job
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.ensemble import Ensemble
from ssl_audio.evaluation.event_files import ENDINGS, write_events
from ssl_audio.evaluation.event_finder import EventFinder
from ssl_audio.evaluation.parts import WHOLE, Job, Share
from ssl_audio.evaluation.recordings import Recordings
from ssl_audio.evaluation.tables import Tables
from ssl_audio.evaluation.windows import Sound
from ssl_audio.experiments.output_files import write_bytes
from ssl_audio.names import printable

_SHOWN = 5
_SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "onset": pa.list_(pa.float64()),
        "offset": pa.list_(pa.float64()),
        "label": pa.list_(pa.string()),
        "confidence": pa.list_(pa.float32()),
    }
)


def predict_events(
    model: Ensemble,
    recordings: Recordings,
    *,
    out: Path,
    picture: Path | None = None,
    share: Share = WHOLE,
    workers: int | None = 0,
) -> None:
    """Write the sound events of recordings; a stopped call is resumed.

    Args:
        model: What detects them.
        recordings: All of them.
        out: The file to write.
        picture: Also draw their timelines into this PNG file.
        share: Which of the recordings are read here.
        workers: Processes that decode; None chooses.
    """
    check_events_name(out)
    check_picture(picture, events=True, share=share)
    finder = EventFinder(model)

    def rows(numbers: list[int], sounds: list[Sound]) -> Iterator[dict[str, Any]]:
        for sound, found in zip(sounds, finder.events(sounds), strict=True):
            labels = [printable(model.labels[label]) for label in found.label.tolist()]
            times = {"onset": found.onset.tolist(), "offset": found.offset.tolist()}
            yield {"path": sound.name, **times, "label": labels, "confidence": found.confidence.tolist()}

    job = prediction_job(model, recordings, events=finder.decision.plain())
    with kept_rows(
        model, recordings, rows, out=out, job=job, schema=_SCHEMA, share=share, workers=workers, title="detecting"
    ) as tables:
        if tables is not None:
            finish_events(job, out, tables)
            if picture is not None:
                _draw(picture, tables)


def check_events_name(out: Path) -> None:
    """Whether events can be written under a name.

    Raises:
        RecipeError: if it ends in nothing known.
    """
    if out.suffix not in ENDINGS:
        raise RecipeError(f"--out {out}: expected a name that ends in {', '.join(ENDINGS)} (--events)")


def check_picture(picture: Path | None, *, events: bool, share: Share) -> None:
    """Whether a picture can be drawn.

    Raises:
        RecipeError: if it is no PNG file, or not all events are found here.
    """
    if picture is None:
        return
    if not events:
        raise RecipeError("--picture: shows the times of sound events; expected --events with it")
    if picture.suffix != ".png":
        raise RecipeError(f"--picture {picture}: expected a name that ends in .png")
    if share.parts > 1:
        raise RecipeError("--picture: shows all recordings, and --part reads some; expected one of them")


def _draw(picture: Path, tables: Tables) -> None:
    """Draw the timelines from the rows of recordings."""
    from ssl_audio.evaluation.event_pictures import recordings_picture  # matplotlib takes half a second

    drawing, drawn = recordings_picture(row for table in tables() for row in table.to_pylist())
    write_bytes(picture, drawing)
    recordings = sum(len(table) for table in tables())
    print(f"{picture}: timelines of " + ("all" if drawn == recordings else f"the first {drawn} of {recordings}"))


def finish_events(job: Job, out: Path, tables: Tables) -> None:
    """Write the events from their rows, and print the first."""
    check_events_name(out)
    written = write_events(out, tables)
    recordings = events = 0
    for table in tables():
        for row in table.to_pylist():
            each = zip(row["onset"], row["offset"], row["label"], row["confidence"], strict=True)
            for onset, offset, label, confidence in each:
                if events < _SHOWN:
                    print(f"{row['path']}: {onset:.2f} to {offset:.2f} s {label} ({confidence:.2f})")
                events += 1
            recordings += 1
    print(f"{written}: {events} events in {recordings} recordings")
