"""Rows to a file of the kind that the user named, a few of them in memory at a time."""

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssl_audio.errors import SslAudioError
from ssl_audio.names import cell
from ssl_audio.storing import writing

Tables = Callable[[], Iterator[pa.Table]]
"""All rows in their order; may be called several times."""

_GROUP_BYTES = 1 << 25


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SslAudioError(
            f"cannot write {path} ({error.strerror or error}); choose another place, or make room, and give the same "
            "command again"
        ) from error


def write_vectors(path: Path, tables: Tables, schema: pa.Schema) -> None:
    """Write embeddings as Parquet or as arrays of numpy.

    Args:
        path: Ends in .parquet or .npz.
        tables: The rows: `path`, `embedding`, and perhaps `frames` and `seconds`.
        schema: Of the rows.

    Raises:
        SslAudioError: if it cannot be written.
    """
    with _told(path), writing(path) as file:
        if path.suffix == ".parquet":
            with pq.ParquetWriter(file, schema) as writer:
                for group in _grouped(tables()):
                    writer.write_table(group, row_group_size=len(group))
        else:
            with zipfile.ZipFile(file, "w") as archive:
                _write_arrays(archive, tables, schema)


def write_labels(path: Path, tables: Tables, *, count: int) -> None:
    """Write the most probable labels as CSV or JSON.

    Args:
        path: Ends in .csv or .json.
        tables: The rows: `path`, `labels` and `probabilities`.
        count: Labels of a recording.

    Raises:
        SslAudioError: if it cannot be written.
    """
    rows = (row for table in tables() for row in table.to_pylist())
    write_lines(path, _csv_lines(rows, count) if path.suffix == ".csv" else _json_lines(rows))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a file of text.

    Raises:
        SslAudioError: if it cannot be written.
    """
    with _told(path), writing(path) as file:
        for line in lines:
            file.write(line.encode())


def write_table(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write tables as one Parquet file.

    Raises:
        SslAudioError: if it cannot be written.
    """
    with _told(path), writing(path) as file, pq.ParquetWriter(file, schema) as writer:
        for group in _grouped(tables):
            writer.write_table(group)


def _grouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Tables together, until they have 32 MB."""
    held: list[pa.Table] = []
    size = 0
    for table in tables:
        held.append(table)
        size += table.nbytes
        if size >= _GROUP_BYTES:
            yield pa.concat_tables(held)
            held, size = [], 0
    if held:
        yield pa.concat_tables(held)


def _write_arrays(archive: zipfile.ZipFile, tables: Tables, schema: pa.Schema) -> None:
    """As `numpy.savez` does, an array after the other, without holding any."""
    rows = longest = frames = width = 0
    framed = "frames" in schema.names
    for table in tables():
        rows += len(table)
        longest = max(longest, *map(len, table["path"].to_pylist()))
        width = len(table["embedding"][0])
        frames += sum(table["seconds"].combine_chunks().value_lengths().to_pylist()) if framed else 0
    text = f"<U{longest}"

    def numbers(name: str, depth: int = 1) -> Iterator[np.ndarray]:
        for table in tables():
            found = table[name].combine_chunks()
            for _ in range(depth):
                found = found.flatten()
            yield found.to_numpy(zero_copy_only=False)

    paths = (np.array(table["path"].to_pylist(), dtype=text) for table in tables())
    _write_array(archive, "path", text, (rows,), paths)
    _write_array(archive, "embedding", "<f4", (rows, width), numbers("embedding"))
    if framed:
        lengths = (table["seconds"].combine_chunks().value_lengths().to_pylist() for table in tables())
        ends = np.cumsum([0, *(length for some in lengths for length in some)], dtype=np.int64)
        _write_array(archive, "offsets", "<i8", (rows + 1,), [ends])
        _write_array(archive, "frames", "<f4", (frames, width), numbers("frames", 2))
        _write_array(archive, "seconds", "<f4", (frames,), numbers("seconds"))


def _write_array(
    archive: zipfile.ZipFile, name: str, kind: str, shape: tuple[int, ...], parts: Iterable[np.ndarray]
) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
        for part in parts:
            file.write(np.ascontiguousarray(part).tobytes())


def _csv_lines(rows: Iterable[dict[str, Any]], count: int) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", *(f"{name}{place}" for place in range(1, count + 1) for name in ("label", "probability"))])
    for row in rows:
        cells = zip(row["labels"], row["probabilities"], strict=True)
        writer.writerow([cell(row["path"]), *(word for name, p in cells for word in (cell(name), f"{p:.6f}"))])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _json_lines(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A list of objects, as `json.dumps` with an indent writes it."""
    before = "[\n"
    for row in rows:
        yield before + "\n".join(" " + line for line in json.dumps(row, indent=1, ensure_ascii=False).split("\n"))
        before = ",\n"
    yield "\n]\n"
