"""Ogg pages: the serial number that encoders draw at random, made the same each time.

Source: RFC 3533, section 6 (the page header and its checksum).
"""

import struct
import zlib

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_HEADER = 27
_FLAGS, _LAST_PAGE = 5, 4
LONGEST_PAGE = 27 + 255 + 255 * 255
"""Bytes of a page at most."""
_SERIAL, _CHECKSUM = 14, 22


def renumber(data: bytes, *, serial: int) -> bytes:
    """The same stream with another serial number.

    Args:
        data: One logical stream, as an encoder wrote it.
        serial: The number it is to have.
    """
    pages, start = bytearray(data), 0
    while start + _HEADER <= len(pages):
        segments = pages[start + _HEADER - 1]
        end = start + _HEADER + segments + sum(pages[start + _HEADER : start + _HEADER + segments])
        struct.pack_into("<I", pages, start + _SERIAL, serial)
        struct.pack_into("<I", pages, start + _CHECKSUM, 0)
        struct.pack_into("<I", pages, start + _CHECKSUM, _checksum(bytes(pages[start:end])))
        start = end
    return bytes(pages)


def is_closed(tail: bytes) -> bool:
    """Whether the last page says that it is the last; a recording that was cut off has no such page.

    Args:
        tail: The end of the stream, at least the `LONGEST_PAGE` last bytes.
    """
    last = tail.rfind(b"OggS")
    return last < 0 or last + _FLAGS >= len(tail) or bool(tail[last + _FLAGS] & _LAST_PAGE)


def _checksum(page: bytes) -> int:
    """Ogg's CRC-32: zlib's polynomial with the bits the other way round, from 0 and not inverted."""
    crc = ~zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) & 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)
