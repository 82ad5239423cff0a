"""Rows of a long job that stay when it is stopped: a file that grows with every recording."""

import hashlib
import io
import json
import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from ssl_audio.errors import SslAudioError

_HEAD = struct.Struct("<QI")  # bytes of a block, and their CRC-32
_SYNC_SECONDS = 1.0
_ITEM = "item"


class Journal:
    """Rows by the number of the item that they are of, for a `with` statement.

    They lie in a hidden file beside the result, which is removed if the statement ends without an error. Whatever was
    added before a kill is there when the same job is done again; before a power cut, all but the last second.

    Args:
        out: Where the result will be.
        job: What the rows depend on besides the code; another job starts from the beginning.

    Attributes:
        done: So many items are done: the next is this one.
        tables: Rows of those, without the number.

    Raises:
        SslAudioError: if it cannot be written.
    """

    def __init__(self, out: Path, *, job: Sequence[str]) -> None:
        self.out = out
        self.path = out.with_name(f".{out.name}.rows")
        self.done = 0
        self.tables: list[pa.Table] = []
        self._job = hashlib.sha256(json.dumps(list(job)).encode()).digest()
        self._synced = time.monotonic()

    def __enter__(self) -> "Journal":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
            if self._file.read(len(self._job)) == self._job:
                whole = self._read()
            else:
                self._file.seek(0)
                self._file.write(self._job)
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

    def __len__(self) -> int:
        return sum(len(table) for table in self.tables)

    def add(self, rows: Iterable[tuple[int, dict[str, Any]]]) -> None:
        """Add rows that were computed together, each with the number of its item.

        Raises:
            SslAudioError: if they cannot be written.
        """
        numbers, found = zip(*rows, strict=True)
        table = pa.Table.from_pylist(list(found))
        block = io.BytesIO()
        with pa.ipc.new_stream(block, table.schema.with_metadata({_ITEM: str(numbers[-1])})) as stream:
            stream.write_table(table)
        content = block.getvalue()
        try:
            self._file.write(_HEAD.pack(len(content), zlib.crc32(content)) + content)
            self._file.flush()
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise self._failure(error) from error
        self.tables.append(table)
        self.done = numbers[-1] + 1

    def table(self) -> pa.Table:
        """All rows."""
        return pa.concat_tables(self.tables)

    def _read(self) -> int:
        """Take what is there; returns where the last whole block ends."""
        whole = len(self._job)
        for block, end in self._blocks():
            with pa.ipc.open_stream(block) as stream:
                table = stream.read_all()
            self.done = int(table.schema.metadata[_ITEM.encode()]) + 1
            self.tables.append(table.replace_schema_metadata(None))
            whole = end
        return whole

    def _blocks(self) -> Iterator[tuple[bytes, int]]:
        left = os.fstat(self._file.fileno()).st_size - self._file.tell()
        while left >= _HEAD.size:
            size, check = _HEAD.unpack(self._file.read(_HEAD.size))
            left -= _HEAD.size + size
            content = self._file.read(size) if left >= 0 else b""
            if left < 0 or zlib.crc32(content) != check:
                return
            yield content, self._file.tell()

    def _failure(self, error: OSError) -> SslAudioError:
        return SslAudioError(
            f"cannot write beside {self.out} ({error.strerror}); choose another place with --out, or make room and "
            "give the same command again to go on"
        )
