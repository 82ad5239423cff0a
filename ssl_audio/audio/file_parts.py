"""Parts of a file that read as a file of their own."""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Fetch = Callable[[int, int], bytes | memoryview]
"""Gives so many bytes from an offset on."""


class FileParts(io.RawIOBase):
    """Bytes of one's own, then stretches of another file, read as one file.

    Args:
        fetch: The other file.
        ranges: First and end of its stretches.
        front: What comes before them.
    """

    def __init__(self, fetch: Fetch, ranges: Sequence[tuple[int, int]], *, front: bytes = b"") -> None:
        super().__init__()
        self._fetch = fetch
        self._front = front
        self._ranges = list(ranges)
        self._place = 0
        self.size = len(front) + sum(end - first for first, end in self._ranges)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.size - self._place) if size is None or size < 0 else size
        parts = [self._front[self._place : self._place + left]]
        left -= len(parts[0])
        place = self._place + len(parts[0]) - len(self._front)
        for first, end in self._ranges:
            if not left:
                break
            if place < end - first:
                part = bytes(self._fetch(first + place, min(left, end - first - place)))
                parts.append(part)
                left -= len(part)
                place += len(part)
            place -= end - first
        found = b"".join(parts)
        self._place += len(found)
        return found


def fetch_of(source: bytes | io.RawIOBase | io.BufferedIOBase) -> tuple[int, Fetch]:
    """Size of bytes or of an open file, and a way to any of its bytes."""
    if isinstance(source, bytes):
        view = memoryview(source)
        return len(view), lambda offset, size: view[offset : offset + size]

    def fetch(offset: int, size: int) -> bytes:
        source.seek(offset)
        return source.read(size) or b""

    return source.seek(0, io.SEEK_END), fetch


class Disk:
    """A way to any of the bytes of a file on disk, which is open as long as anyone has this.

    Args:
        descriptor: Of the open file; it is closed here.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def of(cls, path: Path) -> "Disk":
        """That of a path."""
        return cls(os.open(path, os.O_RDONLY))

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self._descriptor).st_size

    def __call__(self, offset: int, count: int) -> bytes:
        return os.pread(self._descriptor, count, offset)

    def __del__(self) -> None:
        os.close(self._descriptor)
