"""`ssl-audio predict --windows`: labels of the windows of long recordings, one row a window and label."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from ssl_audio.cli.rows import kept_rows, prediction_job
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.ensemble import Ensemble
from ssl_audio.evaluation.event_files import ENDINGS, write_events
from ssl_audio.evaluation.parts import WHOLE, Job, Share
from ssl_audio.evaluation.recordings import Recordings
from ssl_audio.evaluation.tables import Tables, write_lines, write_table
from ssl_audio.evaluation.windows import Sound
from ssl_audio.names import cell, printable

_SHOWN = 5
_COLUMNS = {"onset": pa.float64(), "offset": pa.float64(), "label": pa.string(), "confidence": pa.float32()}
_SCHEMA = pa.schema({"path": pa.string()} | {name: pa.list_(kind) for name, kind in _COLUMNS.items()})
_FLAT = pa.schema(
    {"path": pa.string(), "start": pa.float64(), "end": pa.float64(), "label": pa.string(), "probability": pa.float32()}
)
_ENDINGS = (".csv", ".parquet", *ENDINGS)


def predict_windows(
    model: Ensemble,
    recordings: Recordings,
    *,
    out: Path,
    top: int,
    overlap_seconds: float = 0.0,
    least: float = 0.0,
    share: Share = WHOLE,
    workers: int | None = 0,
) -> None:
    """Write the most probable labels of every window of recordings; a stopped call is resumed.

    Args:
        model: What labels them.
        recordings: All of them.
        out: The file to write.
        top: So many labels a window.
        overlap_seconds: How much of a window lies in the next.
        least: Leave out labels less probable than this.
        share: Which of the recordings are read here.
        workers: Processes that decode; None chooses.
    """
    check_windows_name(out)
    count = min(top, len(model.labels))

    def rows(numbers: list[int], sounds: list[Sound]) -> Iterator[dict[str, Any]]:
        for sound, windows in zip(sounds, model.windows(sounds, overlap_seconds=overlap_seconds), strict=True):
            row: dict[str, Any] = {"path": sound.name} | {name: [] for name in _COLUMNS}
            for start, end, scores in windows:
                best = scores.topk(count)
                for place, score in zip(best.indices.tolist(), best.values.tolist(), strict=True):
                    if score >= least:
                        found = (start, end, printable(model.labels[place]), score)
                        for name, value in zip(_COLUMNS, found, strict=True):
                            row[name].append(value)
            yield row

    own = {"overlap_seconds": float(overlap_seconds), "least": float(least), "top": count}
    job = prediction_job(model, recordings, **own)
    with kept_rows(
        model, recordings, rows, out=out, job=job, schema=_SCHEMA, share=share, workers=workers, title="labelling"
    ) as tables:
        if tables is not None:
            finish_windows(job, out, tables)


def check_windows_name(out: Path) -> None:
    """Whether labels of windows can be written under a name.

    Raises:
        RecipeError: if it ends in nothing known.
    """
    if out.suffix not in _ENDINGS:
        raise RecipeError(f"--out {out}: expected a name that ends in {', '.join(_ENDINGS)} (--windows)")


def finish_windows(job: Job, out: Path, tables: Tables) -> None:
    """Write the labels of windows from their rows, and print the first."""
    check_windows_name(out)
    written = out
    if out.suffix == ".csv":
        write_lines(out, _csv_lines(tables))
    elif out.suffix == ".parquet":
        write_table(out, (_flat(table) for table in tables()), _FLAT)
    else:
        written = write_events(out, tables)
    recordings = rows = 0
    for table in tables():
        for row in _rows(table):
            if rows < _SHOWN:
                print(f"{row[0]}: {row[1]:.2f} to {row[2]:.2f} s {row[3]} ({row[4]:.2f})")
            rows += 1
        recordings += len(table)
    print(f"{written}: {rows} rows of {recordings} recordings")


def _rows(table: pa.Table) -> Iterator[tuple[str, float, float, str, float]]:
    for row in table.to_pylist():
        for values in zip(*(row[name] for name in _COLUMNS), strict=True):
            yield (row["path"], *values)


def _flat(table: pa.Table) -> pa.Table:
    rows = list(_rows(table))
    columns = zip(*rows, strict=True) if rows else [[] for _ in _FLAT]
    return pa.table([pa.array(list(c), kind) for c, kind in zip(columns, _FLAT.types, strict=True)], schema=_FLAT)


def _csv_lines(tables: Tables) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_FLAT.names)
    for table in tables():
        for path, start, end, label, probability in _rows(table):
            writer.writerow([cell(path), f"{start:.3f}", f"{end:.3f}", cell(label), f"{probability:.6f}"])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()
