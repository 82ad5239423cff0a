"""How many bytes of sound the headers of uncompressed files claim; libsndfile reads what is there and says nothing."""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from ssl_audio.audio.file_parts import Fetch
from ssl_audio.errors import AudioError

_MOST_CHUNKS = 1000
_NIST_BYTES = 1024
_SPARE_BYTES = 4096
_W64_NAME = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0O\x8e\xdb\x8a"
# Sizes that a writer left who did not know better, and what comes near them by the size of a header.
_UNKNOWN = (0x7FFFFFFF, 0x7F000000, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


class Claim(NamedTuple):
    """Where the sound of a file begins, how many bytes of it the header claims, and where other chunks may follow."""

    first: int
    claimed: int
    chunks: str = ""


def promised_frames(fetch: Fetch, size: int, frames: int) -> int:
    """How many frames there ought to be in a file of which so many can be read.

    Raises:
        AudioError: if the file holds more sound than its header claims.
    """
    claim = _claim(fetch)
    if claim is None or claim.claimed <= 0 or any(0 <= most - claim.claimed < _SPARE_BYTES for most in _UNKNOWN):
        return 0
    there = size - claim.first
    if there < claim.claimed:
        return frames * claim.claimed // max(1, there)
    rest = claim.first + claim.claimed
    if size - rest > _SPARE_BYTES and not _are_chunks(fetch, size, rest, claim.chunks):
        raise AudioError(
            f"holds more than its header claims: {there} bytes of sound instead of {claim.claimed} (a recording that "
            "was not closed, or several files joined?); write it again with a right header, such as with ffmpeg -i"
        )
    return 0


def _claim(fetch: Fetch) -> Claim | None:
    head = bytes(fetch(0, 64))
    if head[:4] == b".snd" and len(head) >= 12:
        return Claim(*struct.unpack(">II", head[4:12]))
    if head[:4] == b"FORM":
        found = _named(fetch, 12, ">4sI", 2, (b"SSND", b"BODY"))
        return found and Claim(*found, ">4sI")
    if head[:4] == b"caff":
        found = _named(fetch, 8, ">4sQ", 1, (b"data",))
        return found and Claim(*found, ">4sQ")
    if head[:4] == b"RF64" and head[12:16] == b"ds64":
        found = _named(fetch, 12, "<4sI", 2, (b"data",))
        return found and Claim(found[0], int(struct.unpack("<Q", head[28:36])[0]), "<4sI")
    if head[:4] == b"riff":
        found = _named(fetch, 40, "<16sQ", 8, (_W64_NAME,))
        return found and Claim(found[0], found[1] - 24, "<16sQ")
    if head[:8] == b"NIST_1A\n":
        fields = {
            name: int(number) for name, number in re.findall(rb"(\w+) -i (\d{1,12})\b", bytes(fetch(0, _NIST_BYTES)))
        }
        frames, width = fields.get(b"sample_count", 0), fields.get(b"sample_n_bytes", 0)
        return Claim(_NIST_BYTES, frames * width * fields.get(b"channel_count", 1))
    return None


def _named(fetch: Fetch, place: int, form: str, pad: int, names: tuple[bytes, ...]) -> tuple[int, int] | None:
    """Where the first chunk of one of these names begins, and how many bytes it claims."""
    for name, first, claimed in _chunks(fetch, place, form, pad):
        if name in names:
            return first, claimed
    return None


def _chunks(fetch: Fetch, place: int, form: str, pad: int) -> Iterator[tuple[bytes, int, int]]:
    header = struct.Struct(form)
    for _ in range(_MOST_CHUNKS):
        found = bytes(fetch(place, header.size))
        if len(found) < header.size:
            return
        name, claimed = header.unpack(found)
        place += header.size
        yield name, place, claimed
        # The sizes of W64 count the chunk's own header.
        claimed -= header.size if header.size == 24 else 0
        place += max(0, claimed) + -claimed % pad


def _are_chunks(fetch: Fetch, size: int, place: int, form: str) -> bool:
    """Whether chunks follow the sound to the end of the file."""
    if not form:
        return False
    name, first, claimed = next(_chunks(fetch, place + place % 2, form, 1), (b"", 0, size))
    return first + claimed <= size + 8 and name[:4].isascii() and name[:4].decode().isprintable()
