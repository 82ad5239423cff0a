"""Many strings as two arrays, so that they can lie in a file that is mapped: millions of `str` would be gigabytes."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Int, UInt8


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Strings:
    """Strings that are decoded as they are asked for.

    Args:
        letters: All of them one after another, in UTF-8.
        ends: Where each ends in `letters`.
    """

    letters: UInt8[np.ndarray, " byte"]
    ends: Int[np.ndarray, " string"]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: int | np.integer) -> str:
        if not 0 <= number < len(self.ends):
            raise IndexError(f"string {number} of {len(self.ends)}")
        start = int(self.ends[number - 1]) if number else 0
        # Only a file that was tampered with ends a string within a letter.
        return self.letters[start : int(self.ends[number])].tobytes().decode(errors="backslashreplace")

    def __iter__(self) -> Iterator[str]:
        return (self[number] for number in range(len(self)))

    @classmethod
    def of(cls, strings: Iterable[str]) -> "Strings":
        """These strings."""
        encoded = [string.encode() for string in strings]
        return cls(
            letters=np.frombuffer(b"".join(encoded), dtype=np.uint8),
            ends=np.cumsum([len(string) for string in encoded], dtype=np.int64),
        )

    @classmethod
    def concatenate(cls, parts: Sequence["Strings"]) -> "Strings":
        """The strings of all, one after another."""
        starts = np.cumsum([0, *(len(part.letters) for part in parts)])
        return cls(
            letters=np.concatenate([part.letters for part in parts]),
            ends=np.concatenate([part.ends + start for part, start in zip(parts, starts, strict=False)]),
        )
