"""Rows of a long job that stay when it is stopped: a file that grows with every batch and is never held in memory."""

import hashlib
import io
import json
import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa

from ssl_audio.errors import SslAudioError

_MAGIC = b"ssl_audio rows 1\n"
_HEAD = struct.Struct("<QI")  # bytes of a block, and their CRC-32
_SYNC_SECONDS = 1.0
_ITEM = b"item"
_MOST_JOB_BYTES = 1 << 26


class Journal:
    """Rows by the number of the item that they are of, for a `with` statement.

    They lie in a hidden file beside the result, which is removed if the statement ends without an error. Whatever was
    added before a kill is there when the same job is done again; before a power cut, all but the last second.

    Args:
        out: Where the result will be.
        job: What the rows depend on besides the code, as plain values; another job starts from the beginning.
        schema: Of the rows.

    Attributes:
        done: So many items are done: the next is this one.
        rows: How many rows there are.

    Raises:
        SslAudioError: if it cannot be written.
    """

    def __init__(self, out: Path, *, job: Mapping[str, Any], schema: pa.Schema) -> None:
        self.out = out
        self.path = out.with_name(f".{out.name}.rows")
        self.schema = schema
        self.done = 0
        self.rows = 0
        self._job = json.dumps(job, sort_keys=True).encode()
        self._synced = time.monotonic()

    def __enter__(self) -> "Journal":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
            if _job_in(self._file) == self._job:
                whole = self._file.tell()
                for table, item in _tables(self._file):
                    self.done, self.rows, whole = item + 1, self.rows + len(table), self._file.tell()
            else:
                self._file.seek(0)
                self._file.write(_MAGIC + _block(self._job))
                whole = self._file.tell()
            # What a kill cut short.
            self._file.truncate(whole)
            self._file.seek(whole)
        except OSError as error:
            raise self._failure(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None:
            self.path.unlink(missing_ok=True)

    def add(self, rows: Iterable[tuple[int, dict[str, Any]]]) -> None:
        """Add rows that were computed together, each with the number of its item.

        Raises:
            SslAudioError: if they cannot be written.
        """
        numbers, found = zip(*rows, strict=True)
        table = pa.Table.from_pylist(list(found), schema=self.schema)
        content = io.BytesIO()
        with pa.ipc.new_stream(content, table.schema.with_metadata({_ITEM: str(numbers[-1])})) as stream:
            stream.write_table(table)
        try:
            self._file.write(_block(content.getvalue()))
            self._file.flush()
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise self._failure(error) from error
        self.done = numbers[-1] + 1
        self.rows += len(found)

    def tables(self) -> Iterator[pa.Table]:
        """All rows in their order, those that were added together at a time."""
        return (table for _, table in tables_in(self.path))

    def keep(self) -> None:
        """The rows are the result: give them its name.

        Raises:
            SslAudioError: if that cannot be.
        """
        try:
            os.fsync(self._file.fileno())
            self.path.replace(self.out)
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> SslAudioError:
        return SslAudioError(
            f"cannot write beside {self.out} ({error.strerror}); choose another place with --out, or make room and "
            "give the same command again to resume"
        )


def job_in(path: Path) -> dict[str, Any]:
    """The job that the rows of a file are of.

    Raises:
        SslAudioError: if it holds no rows.
    """
    try:
        with path.open("rb") as file:
            found = json.loads(_job_in(file) or b"null")
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise SslAudioError(f"{path}: cannot be read as rows of a part; remove it and compute that part again")
    return found


def tables_in(path: Path) -> Iterator[tuple[int, pa.Table]]:
    """The number of the last item and the rows of each time that rows were added to a file.

    Raises:
        SslAudioError: if it is damaged.
    """
    with path.open("rb") as file:
        _job_in(file)
        for table, item in _tables(file):
            yield item, table
        if file.tell() != os.fstat(file.fileno()).st_size:
            raise SslAudioError(f"{path}: damaged after byte {file.tell()}; remove it and compute it again")


def hashed(values: Iterable[str]) -> str:
    """sha256 of texts in their order."""
    found = hashlib.sha256()
    for value in values:
        found.update(value.encode() + b"\n")
    return found.hexdigest()


def _block(content: bytes) -> bytes:
    return _HEAD.pack(len(content), zlib.crc32(content)) + content


def _job_in(file: BinaryIO) -> bytes | None:
    """The job at the beginning of a file; None if it is another kind of file, or cut off there."""
    if file.read(len(_MAGIC)) != _MAGIC:
        return None
    return _content(file, most=_MOST_JOB_BYTES)


def _tables(file: BinaryIO) -> Iterator[tuple[pa.Table, int]]:
    """The rows of each whole block and its last item; then the file position is after the last whole block."""
    while (content := _content(file)) is not None:
        with pa.ipc.open_stream(content) as stream:
            table = stream.read_all()
        yield table.replace_schema_metadata(None), int(table.schema.metadata[_ITEM])


def _content(file: BinaryIO, *, most: int | None = None) -> bytes | None:
    """The next block; None if it is not whole, with the file position unchanged."""
    begin = file.tell()
    left = os.fstat(file.fileno()).st_size - begin - _HEAD.size
    if left >= 0:
        size, check = _HEAD.unpack(file.read(_HEAD.size))
        if size <= left and (most is None or size <= most):
            content = file.read(size)
            if zlib.crc32(content) == check:
                return content
    file.seek(begin)
    return None
