"""Opening a recording so that all of it is read, whatever its header claims.

libsndfile reads the first of several files that were joined end to end, and of an MPEG stream what a header claims or
what it estimates. Here all of it is found first; what cannot be read in one piece is decoded into a temporary file.
"""

import functools
import io
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from jaxtyping import Float

from ssl_audio.audio import ffmpeg, mpeg
from ssl_audio.audio.claims import promised_frames
from ssl_audio.audio.view import Disk, Fetch, View, fetch_of
from ssl_audio.audio.wav import unclaimed
from ssl_audio.errors import AudioError

Source = Path | bytes | io.RawIOBase | io.BufferedIOBase

BLOCK_VALUES = 1 << 20
"""Values that are decoded at a time: channels times frames."""

MOST_FRAMES_PER_BYTE = 8192
"""More frames than these a byte of no format holds, digital silence included: FLAC packs 65,535 equal samples in about
10 bytes, Vorbis and Opus thousands in 2.
"""

_DECODER_FRAMES = 2 * 1152
_MALFORMED = 3
_OF_NO_CLAIM = ("WAV", "WAVEX", "FLAC", "OGG", "MP3")
_READ_AHEAD = 1 << 14
_OGG_PAGE_BYTES = 27
_MARKS = {b"fLaC": b"fLaC", b"OggS": b"OggS\0\2"}
"""What a recording of these formats begins with, by its first four bytes."""
_HEAD_BYTES = 1 << 16


class SoundFile(soundfile.SoundFile):
    """A file that is just read on.

    soundfile seeks to where it is after every block; an MP3 decoder falls silent for a while each time, and a
    FLAC of unknown length fails at its end.
    """

    def seekable(self) -> bool:
        """No, so that only we seek."""
        return False


class Opened(NamedTuple):
    """A recording that can be read.

    Args:
        file: Its samples.
        size: Bytes that hold them.
        format: libsndfile's or FFmpeg's name of what the recording is.
        promised: Frames that ought to be there, if more than the file says.
        unsearched: The bytes of the recording, if nobody looked yet whether another is joined to it.
    """

    file: SoundFile
    size: int
    format: str
    promised: int = 0
    unsearched: io.BytesIO | None = None

    def more_behind(self, *, ended: bool) -> bool:
        """Whether another recording may be joined to this one.

        Args:
            ended: This one was read to its end, and the decoder looks only a little ahead.
        """
        if self.unsearched is None:
            return False
        data = self.unsearched.getvalue()
        tail = len(data) - _READ_AHEAD if ended and self.unsearched.tell() == len(data) else 0
        return data.find(_MARKS[data[:4]], max(tail, 4)) > 0


class _Piece(NamedTuple):
    """A part of a source that libsndfile reads by itself.

    Args:
        ranges: First and end of its stretches.
        front: Bytes that go in front of them.
        frames: How many it has, where that was counted and the file may say less.
    """

    ranges: list[tuple[int, int]]
    front: bytes = b""
    frames: int = 0


class _Spool(NamedTuple):
    """Samples that were decoded into a file of floats."""

    data: Disk
    format: str
    promised: int

    def opened(self) -> Opened:
        view = View(self.data, [(0, self.data.size)])
        return Opened(SoundFile(view), view.size, self.format, self.promised)


def open_sound(source: Source, size: int, *, joined: bool = True) -> Opened:
    """Open a recording of `size` bytes.

    Args:
        source: The recording.
        size: Its bytes.
        joined: Look for recordings that are joined to it. In bytes that takes a part of the time that decoding does, so
            it may be left for `Opened.more_behind`.

    Raises:
        AudioError, soundfile.SoundFileError, OSError: if it cannot be.
    """
    later = False
    if isinstance(source, Path):
        # Opened anew for each part that is read; what was found out about it is kept.
        stated = os.fsencode(source), size, source.stat().st_mtime_ns
        fetch: Fetch = Disk.of(source)
        pieces_of: Callable[[], list[_Piece]] = functools.partial(_pieces_of_path, *stated)
        spool_of: Callable[[], _Spool] = functools.partial(_spool_of_path, *stated)
    else:
        fetch = fetch_of(source)[1]
        later = not joined and isinstance(source, bytes) and source[:4] in _MARKS
        pieces_of = list if later else functools.partial(_pieces, source)
        spool_of = functools.partial(_spool, source, size)
    if raw := unclaimed(fetch, size):
        view = View(fetch, [(raw.first, raw.end)])
        options = {"samplerate": raw.sample_rate, "channels": raw.channels, "subtype": raw.subtype}
        return Opened(SoundFile(view, format="RAW", endian="LITTLE", **options), size, "WAV")
    pieces = pieces_of()
    if len(pieces) == 1:
        return _open_piece(fetch, pieces[0], size)
    if pieces:
        return spool_of().opened()
    stream = _plain(source)
    try:
        file = SoundFile(stream)
    except soundfile.LibsndfileError as error:
        # Not what libsndfile knows well and finds damaged.
        if error.code != _MALFORMED and ffmpeg.reads(bytes(fetch(0, 64))):
            return spool_of().opened()
        raise
    promised = 0 if later or file.format in _OF_NO_CLAIM else promised_frames(fetch, size, file.frames)
    return Opened(
        file, size, file.format, promised, unsearched=stream if later and isinstance(stream, io.BytesIO) else None
    )


def _plain(source: Source) -> bytes | io.RawIOBase | io.BufferedIOBase:
    if isinstance(source, Path):
        return os.fsencode(source)
    if isinstance(source, bytes):
        return io.BytesIO(source)
    source.seek(0)
    return source


@functools.lru_cache(maxsize=256)
def _pieces_of_path(path: bytes, size: int, changed: int) -> list[_Piece]:
    return _pieces(Path(os.fsdecode(path)))


@functools.lru_cache(maxsize=1)
def _spool_of_path(path: bytes, size: int, changed: int) -> _Spool:
    return _spool(Path(os.fsdecode(path)), size)


def _pieces(source: Source) -> list[_Piece]:
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
    if head[:4] in (*_MARKS, *_OTHERS) or not _is_mpeg(head) or mpeg.says_its_length(head, size):
        return []
    return _pieces_in(bytes(fetch(0, size)))


def _is_mpeg(data: bytes) -> bool:
    """Whether a file, or its beginning, is an MPEG stream; it may begin in the middle of a frame."""
    if mpeg.looks_like(data):
        return True
    return 2 * sum(end - first for stream in mpeg.scan(data) for first, end in stream.ranges) > len(data)


def _pieces_in(data: bytes | mmap.mmap) -> list[_Piece]:
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
        _Piece(stream.ranges)
        if stream.honest
        else _Piece(stream.sound(), mpeg.xing(stream) if stream.kind.layer == 3 else b"", stream.samples)
        for stream in streams
    ]


def _joined_flac(data: bytes | mmap.mmap) -> list[_Piece]:
    starts, at = [0], data.find(_MARKS[b"fLaC"], 4)
    while at >= 0:
        # STREAMINFO comes first; it has 34 bytes and may be the last block of metadata.
        if data[at + 4 : at + 8] in (b"\0\0\0\x22", b"\x80\0\0\x22"):
            starts.append(at)
        at = data.find(_MARKS[b"fLaC"], at + 4)
    return _between(starts, len(data))


def _joined_ogg(data: bytes | mmap.mmap) -> list[_Piece]:
    starts, at, next_page = [0], 0, 0
    while at >= 0:
        # Streams side by side all begin at the front; a beginning after other pages is another file.
        if at > next_page:
            starts.append(at)
        segments = bytes(data[at + _OGG_PAGE_BYTES - 1 : at + _OGG_PAGE_BYTES + 255])
        next_page = at + _OGG_PAGE_BYTES + (segments[0] + sum(segments[1 : 1 + segments[0]]) if segments else 0)
        at = data.find(_MARKS[b"OggS"], at + 4)
    return _between(starts, len(data))


def _between(starts: Sequence[int], size: int) -> list[_Piece]:
    """A piece from each start to the next; none if there is just one."""
    ends = [*starts[1:], size]
    return [_Piece([stretch]) for stretch in zip(starts, ends, strict=True)] if len(starts) > 1 else []


_JOINED = {b"fLaC": _joined_flac, b"OggS": _joined_ogg}
_OTHERS = (b"RIFF", b"RF64", b"riff", b"FORM", b"caff", b".snd", b"NIST")


def _open_piece(fetch: Fetch, piece: _Piece, size: int) -> Opened:
    view = View(fetch, piece.ranges, front=piece.front)
    file = SoundFile(view)
    # The decoder leaves out a delay of its own.
    promised = piece.frames if file.frames < piece.frames - _DECODER_FRAMES else 0
    return Opened(file, view.size, file.format, promised)


def _spool(source: Source, size: int) -> _Spool:
    """Decode all of a source into a file of floats that has no name.

    Raises:
        AudioError: if it is more than so many bytes can hold.
    """
    fetch: Fetch = Disk.of(source) if isinstance(source, Path) else fetch_of(source)[1]
    pieces = _pieces(source)
    sound = _decoded(fetch, pieces, size) if pieces else ffmpeg.decoded(View(fetch, [(0, size)]))
    # W64 has lengths beyond 4 GB.
    form = {"samplerate": sound.sample_rate, "channels": sound.channels, "format": "W64", "subtype": "FLOAT"}
    with tempfile.TemporaryFile() as target:
        with soundfile.SoundFile(target, "w", **form) as file:
            for block in sound.blocks:
                file.write(block)
                if file.frames > size * MOST_FRAMES_PER_BYTE:
                    raise AudioError(f"gives {file.frames} frames and more; its {size} bytes cannot hold so many")
        target.flush()
        return _Spool(Disk(os.dup(target.fileno())), sound.format, sound.promised)


def _decoded(fetch: Fetch, pieces: list[_Piece], size: int) -> ffmpeg.Decoded:
    files = [_open_piece(fetch, piece, size) for piece in pieces]
    channels, rate = max(one.file.channels for one in files), files[0].file.samplerate
    for one in files:
        if one.file.samplerate != rate or one.file.channels not in (1, channels):
            raise AudioError(
                f"joins files of {rate} Hz in {files[0].file.channels} channels and of {one.file.samplerate} Hz in "
                f"{one.file.channels}; bring them to one form first, such as with ffmpeg -i"
            )

    def blocks() -> Iterator[Float[np.ndarray, "frame channel"]]:
        for one in files:
            for block in blocks_of(one.file):
                yield np.broadcast_to(block, (len(block), channels))

    promised = sum(max(one.promised, one.file.frames) for one in files)
    return ffmpeg.Decoded(files[0].format, rate, channels, blocks(), promised)


def blocks_of(file: SoundFile, most: int | None = None) -> Iterator[Float[np.ndarray, "frame channel"]]:
    """Its frames, at most so many, until it ends."""
    step, found = max(1, BLOCK_VALUES // file.channels), 0
    while most is None or found < most:
        block = file.read(step if most is None else min(step, most - found), dtype="float32", always_2d=True)
        if not len(block):
            return
        yield block
        found += len(block)
