"""Recordings that are several files joined end to end, and MPEG streams that do not say how long they are."""

import io
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ssl_audio.audio import mpeg
from ssl_audio.audio.file_parts import fetch_of
from ssl_audio.errors import AudioError

Source = Path | bytes | io.RawIOBase | io.BufferedIOBase

MARKS = {b"fLaC": b"fLaC", b"OggS": b"OggS\0\2"}
"""What a recording of these formats begins with, by its first four bytes."""

_OGG_PAGE_BYTES = 27
_HEAD_BYTES = 1 << 16


class Piece(NamedTuple):
    """A part of a source that libsndfile reads by itself.

    Args:
        ranges: First and end of its stretches.
        front: Bytes that go in front of them.
        frames: How many it has, where that was counted and the file may say less.
    """

    ranges: list[tuple[int, int]]
    front: bytes = b""
    frames: int = 0


def pieces_of(source: Source) -> list[Piece]:
    """What a source is to be read as: one piece, several that were joined, or none if it is read as it is."""
    if isinstance(source, Path):
        with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _pieces_in(data)
    if isinstance(source, bytes):
        # Decoded once each, in training: what the header says of its length is checked before all frames are counted.
        return [] if mpeg.looks_like(source[:4]) and mpeg.says_its_length(source) else _pieces_in(source)
    # A large member of a tar, of which little is wanted: only a stream that does not say its length is read whole.
    size, fetch = fetch_of(source)
    head = bytes(fetch(0, _HEAD_BYTES))
    if head[:4] in (*MARKS, *_OTHERS) or not _is_mpeg(head) or mpeg.says_its_length(head, size):
        return []
    return _pieces_in(bytes(fetch(0, size)))


def _is_mpeg(data: bytes) -> bool:
    """Whether a file, or its beginning, is an MPEG stream; it may begin in the middle of a frame."""
    if mpeg.looks_like(data):
        return True
    return 2 * sum(end - first for stream in mpeg.scan(data) for first, end in stream.ranges) > len(data)


def _pieces_in(data: bytes | mmap.mmap) -> list[Piece]:
    head = bytes(data[:4])
    if head in _JOINED:
        return _JOINED[head](data)
    if head in _OTHERS:
        return []
    looks = mpeg.looks_like(head)
    streams = mpeg.scan(data) if looks or _is_mpeg(data[:_HEAD_BYTES]) else []
    if not streams:
        return []
    if looks and len(streams) == 1 and streams[0].honest and len(streams[0].ranges) == 1:
        return []
    rates = {stream.kind.sample_rate for stream in streams}
    if len(rates) > 1:
        raise AudioError(
            f"joins MPEG streams of {' and '.join(map(str, sorted(rates)))} Hz; bring it to one rate first, such as "
            "with ffmpeg -i"
        )
    return [
        Piece(stream.ranges)
        if stream.honest
        else Piece(stream.sound(), mpeg.xing(stream) if stream.kind.layer == 3 else b"", stream.samples)
        for stream in streams
    ]


def _joined_flac(data: bytes | mmap.mmap) -> list[Piece]:
    starts, at = [0], data.find(MARKS[b"fLaC"], 4)
    while at >= 0:
        # STREAMINFO comes first; it has 34 bytes and may be the last block of metadata.
        if data[at + 4 : at + 8] in (b"\0\0\0\x22", b"\x80\0\0\x22"):
            starts.append(at)
        at = data.find(MARKS[b"fLaC"], at + 4)
    return _between(starts, len(data))


def _joined_ogg(data: bytes | mmap.mmap) -> list[Piece]:
    starts, at, next_page = [0], 0, 0
    while at >= 0:
        # Streams side by side all begin at the front; a beginning after other pages is another file.
        if at > next_page:
            starts.append(at)
        segments = bytes(data[at + _OGG_PAGE_BYTES - 1 : at + _OGG_PAGE_BYTES + 255])
        next_page = at + _OGG_PAGE_BYTES + (segments[0] + sum(segments[1 : 1 + segments[0]]) if segments else 0)
        at = data.find(MARKS[b"OggS"], at + 4)
    return _between(starts, len(data))


def _between(starts: Sequence[int], size: int) -> list[Piece]:
    """A piece from each start to the next; none if there is just one."""
    ends = [*starts[1:], size]
    return [Piece([stretch]) for stretch in zip(starts, ends, strict=True)] if len(starts) > 1 else []


_JOINED = {b"fLaC": _joined_flac, b"OggS": _joined_ogg}
_OTHERS = (b"RIFF", b"RF64", b"riff", b"FORM", b"caff", b".snd", b"NIST")
