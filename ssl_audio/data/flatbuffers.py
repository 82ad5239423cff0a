"""Reading the tables of a FlatBuffer from outside: every access stays within its bytes.

Source: https://flatbuffers.dev/internals: a table begins with the distance back to its list of fields, which gives
for each field its offset from the start of the table; 0 means that it is absent.
"""

import struct
from typing import Any


class FlatTable:
    """A table of a FlatBuffer: fields by number, each read within its bytes."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at
        self.fields = at - self._unpack("<i", at)
        self.size = self._unpack("<H", self.fields)

    @classmethod
    def root(cls, data: bytes) -> "FlatTable":
        """The outermost table."""
        return cls(data, struct.unpack_from("<I", data)[0])

    def has(self, field: int) -> bool:
        """Whether a field is there."""
        return self._place(field) is not None

    def number(self, field: int, form: str) -> Any:
        """A number; 0 where the field is not there."""
        place = self._place(field)
        return struct.unpack(form, bytes(8)[: struct.calcsize(form)])[0] if place is None else self._unpack(form, place)

    def table(self, field: int) -> "FlatTable":
        """A table."""
        return FlatTable(self.data, self._follow(field))

    def tables(self, field: int, most: int = 100) -> list["FlatTable"]:
        """A list of tables; none where the field is not there."""
        places = self.vector(field, 4, most)
        return [FlatTable(self.data, place + self._unpack("<I", place)) for place in places]

    def text(self, field: int) -> bytes:
        """A string."""
        places = self.vector(field, 1, len(self.data))
        return self.data[places.start : places.stop]

    def vector(self, field: int, size: int, most: int) -> range:
        """Where the entries of a list stand, each of `size` bytes."""
        if not self.has(field):
            return range(0)
        start = self._follow(field)
        count = self._unpack("<I", start)
        if count > most or start + 4 + count * size > len(self.data):
            raise ValueError(f"a list of {count} entries")
        return range(start + 4, start + 4 + count * size, size)

    def pairs(self, field: int, most: int = 100) -> list[tuple[int, int]]:
        """A list of pairs of 64-bit numbers."""
        return [struct.unpack_from("<qq", self.data, place) for place in self.vector(field, 16, most)]

    def _place(self, field: int) -> int | None:
        entry = 4 + 2 * field
        offset = self._unpack("<H", self.fields + entry) if entry + 2 <= self.size else 0
        return self.at + offset if offset else None

    def _follow(self, field: int) -> int:
        place = self._place(field)
        if place is None:
            raise ValueError("a field is missing")
        return place + int(self._unpack("<I", place))

    def _unpack(self, form: str, at: int) -> Any:
        if at < 0:
            raise ValueError("a place before the start")
        return struct.unpack_from(form, self.data, at)[0]
