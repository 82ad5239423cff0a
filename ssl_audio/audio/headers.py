"""The length that a header states, seen without opening a decoder.

Source: RFC 9639, section 8.2 (STREAMINFO of FLAC).
"""

import struct

HEADER_BYTES = 44
_MOST_FRAMES_PER_BYTE = 8192


def stated_seconds(head: bytes, size: int) -> float | None:
    """Seconds by the header of a FLAC or of a plain WAV; None for all else, and where the file cannot hold so much.

    Args:
        head: The first `HEADER_BYTES` bytes of the file.
        size: Of the file, in bytes.
    """
    if len(head) < HEADER_BYTES:
        return None
    if head[:4] == b"fLaC" and head[4] & 0x7F == 0:
        packed = int.from_bytes(head[18:26], "big")
        rate, frames = packed >> 44, packed & ((1 << 36) - 1)
        return frames / rate if rate and 0 < frames <= size * _MOST_FRAMES_PER_BYTE else None
    if head[:4] == b"RIFF" and head[8:16] == b"WAVEfmt " and head[36:40] == b"data":
        (a_second,), (held,) = struct.unpack("<I", head[28:32]), struct.unpack("<I", head[40:44])
        return held / a_second if a_second and 0 < held == size - HEADER_BYTES else None
    return None
