"""WAV files whose header says another length than the file has.

Recorders that crashed, files beyond 4 GB and programs that write into a pipe leave a length that is no length: sox and
ffmpeg write 0xffffffff, 0x7ffff000 or one of these less the header, others 0.
"""

import dataclasses
import struct

from ssl_audio.audio.file_parts import Fetch
from ssl_audio.errors import AudioError

_CHUNK = struct.Struct("<4sI")
_FORMAT = struct.Struct("<HHIIHH")
_EXTENSIBLE = 0xFFFE
_MOST_CHUNKS = 1000
_WRAP = 1 << 32
_BLOCK_BYTES = 1 << 20

# So many bytes below one of the round numbers a length is one that nobody knew: a header comes off it.
_HEADER_ROOM = 4096
_UNKNOWN = (0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFFF, 0xFFFFF000)

_DESCRIBING = (b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML", b"cue ", b"smpl", b"inst", b"fact", b"PEAK", b"_PMX")

_SUBTYPES = {
    (1, 8): "PCM_U8",
    (1, 16): "PCM_16",
    (1, 24): "PCM_24",
    (1, 32): "PCM_32",
    (3, 32): "FLOAT",
    (3, 64): "DOUBLE",
    (6, 8): "ALAW",
    (7, 8): "ULAW",
}


@dataclasses.dataclass(frozen=True, slots=True)
class RawSound:
    """Samples whose description was in a header.

    Args:
        subtype: libsndfile's name of their encoding.
        channels: How many there are.
        sample_rate: Samples per second.
        first: Where they begin in the file.
        end: Where they end.
    """

    subtype: str
    channels: int
    sample_rate: int
    first: int
    end: int


def unclaimed(fetch: Fetch, size: int) -> RawSound | None:
    """The sound of a WAV whose header does not say how much there is; None where it says so, and for any other file.

    Raises:
        AudioError: if the file holds more sound than the header claims.
    """
    head = bytes(fetch(0, 12))
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    place, form = 12, b""
    for _ in range(_MOST_CHUNKS):
        header = bytes(fetch(place, _CHUNK.size))
        if len(header) < _CHUNK.size:
            return None
        name, claimed = _CHUNK.unpack(header)
        place += _CHUNK.size
        if name == b"data":
            return _sound(fetch, size, form, place, claimed)
        if name == b"fmt ":
            form = bytes(fetch(place, min(claimed, 40)))
        place += claimed + claimed % 2
    return None


def _sound(fetch: Fetch, size: int, form: bytes, first: int, claimed: int) -> RawSound | None:
    there = size - first
    if claimed == there or len(form) < _FORMAT.size or there < 1:
        return None
    kind, channels, rate, _, block, bits = _FORMAT.unpack_from(form)
    if kind == _EXTENSIBLE and len(form) >= 26:
        kind = struct.unpack_from("<H", form, 24)[0]
    subtype = _SUBTYPES.get((kind, bits))
    wrapped = there >= _WRAP and there - claimed in range(_WRAP, there + 1, _WRAP)
    unknown = claimed == 0 or any(0 <= most - claimed < _HEADER_ROOM for most in _UNKNOWN)
    if claimed > there and not unknown:
        return None
    if claimed < there and not wrapped and _only_chunks(fetch, size, first + claimed + claimed % 2):
        return None
    if not (wrapped or unknown):
        raise AudioError(
            f"holds more than its header claims: {there} bytes of sound instead of {claimed} (a recording that was not "
            "closed, or several files joined?); write it again with a right header, such as with ffmpeg -i"
        )
    if subtype is None or not block or block != channels * bits // 8 or not rate:
        raise AudioError(
            f"does not say how long it is, and its encoding ({kind}, {bits} bits) cannot be read without; write it "
            "again with a right header, such as with ffmpeg -i"
        )
    return RawSound(subtype, channels, rate, first, first + there - there % block)


def _only_chunks(fetch: Fetch, size: int, place: int) -> bool:
    """Whether what follows the sound are chunks to the end of the file, or less than one."""
    for _ in range(_MOST_CHUNKS):
        header = bytes(fetch(place, _CHUNK.size))
        if len(header) < _CHUNK.size:
            return True
        name, claimed = _CHUNK.unpack(header)
        if name in _DESCRIBING:
            return True
        if name == b"RIFF" or not (name.isascii() and name.decode().isprintable()):
            return bytes(fetch(place, 3)) in (b"ID3", b"TAG") or _only_zeros(fetch, place)
        place += _CHUNK.size + claimed + claimed % 2
        if place > size + 1:
            return False
    return False


def _only_zeros(fetch: Fetch, place: int) -> bool:
    while block := bytes(fetch(place, _BLOCK_BYTES)):
        if block.strip(b"\0"):
            return False
        place += len(block)
    return True
