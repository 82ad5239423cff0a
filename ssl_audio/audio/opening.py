"""Opening a recording so that all of it is read, whatever its header claims.

libsndfile reads the first of several files that were joined end to end, and of an MPEG stream what a header claims or
what it estimates. Here all of it is found first; what cannot be read in one piece is decoded into a temporary file.
"""

import functools
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from jaxtyping import Float

from ssl_audio.audio import ffmpeg
from ssl_audio.audio.claims import promised_frames
from ssl_audio.audio.file_parts import Disk, Fetch, FileParts, fetch_of
from ssl_audio.audio.joined import MARKS, Piece, Source, pieces_of
from ssl_audio.audio.wav import unclaimed
from ssl_audio.errors import AudioError

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
        return data.find(MARKS[data[:4]], max(tail, 4)) > 0


class _Spool(NamedTuple):
    """Samples that were decoded into a file of floats."""

    data: Disk
    format: str
    promised: int

    def opened(self) -> Opened:
        view = FileParts(self.data, [(0, self.data.size)])
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
        # Opened again for each part that is read; what is known about it is kept.
        stated = os.fsencode(source), size, source.stat().st_mtime_ns
        fetch: Fetch = Disk.of(source)
        find_pieces: Callable[[], list[Piece]] = functools.partial(_pieces_of_path, *stated)
        spool_of: Callable[[], _Spool] = functools.partial(_spool_of_path, *stated)
    else:
        fetch = fetch_of(source)[1]
        later = not joined and isinstance(source, bytes) and source[:4] in MARKS
        find_pieces = list if later else functools.partial(pieces_of, source)
        spool_of = functools.partial(_spool, source, size)
    if raw := unclaimed(fetch, size):
        view = FileParts(fetch, [(raw.first, raw.end)])
        options = {"samplerate": raw.sample_rate, "channels": raw.channels, "subtype": raw.subtype}
        return Opened(SoundFile(view, format="RAW", endian="LITTLE", **options), size, "WAV")
    pieces = find_pieces()
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
def _pieces_of_path(path: bytes, size: int, changed: int) -> list[Piece]:
    return pieces_of(Path(os.fsdecode(path)))


@functools.lru_cache(maxsize=1)
def _spool_of_path(path: bytes, size: int, changed: int) -> _Spool:
    return _spool(Path(os.fsdecode(path)), size)


def _open_piece(fetch: Fetch, piece: Piece, size: int) -> Opened:
    view = FileParts(fetch, piece.ranges, front=piece.front)
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
    pieces = pieces_of(source)
    sound = _decoded(fetch, pieces, size) if pieces else ffmpeg.decoded(FileParts(fetch, [(0, size)]))
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


def _decoded(fetch: Fetch, pieces: list[Piece], size: int) -> ffmpeg.Decoded:
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
