"""Audio files to waveforms and back. What comes from outside is not trusted: headers may lie.

Memory follows the data that is really there, never a header: files are read in blocks until they end.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import soundfile
from jaxtyping import Float, Int16

from ssl_audio.audio.file_parts import Disk, fetch_of
from ssl_audio.audio.formats import EXPECTED
from ssl_audio.audio.info import AudioInfo, info_of
from ssl_audio.audio.ogg import LONGEST_PAGE, is_closed, renumber
from ssl_audio.audio.opening import Opened, Source, open_sound
from ssl_audio.audio.pcm import read_pcm
from ssl_audio.audio.reading import AS_USUAL, Finding, Findings, Reading
from ssl_audio.audio.samples import OpenRecording, read_resampled, scale_for
from ssl_audio.errors import AudioError
from ssl_audio.kinds import HEAD_BYTES, kind_of
from ssl_audio.names import printable

T = TypeVar("T")
# Made once: an inner function's annotations are made at each call of the outer one.
_Part = Float[np.ndarray, " sample"] | None


def probe(source: Source, *, name: str | None = None, reading: Reading = AS_USUAL) -> AudioInfo:
    """What the header says; nothing is decoded but what has no header that could say it.

    Raises:
        AudioError: if it is no audio file, is empty, or claims more than it can hold.
    """
    return _with_file(source, name, lambda opened: info_of(opened, reading))


def duration(source: Source, *, name: str | None = None) -> float:
    """Seconds of sound, from the header."""
    return probe(source, name=name).seconds


def decode(
    source: Source,
    *,
    sample_rate: int = 16000,
    start: float = 0.0,
    seconds: float | None = None,
    name: str | None = None,
    out: Float[np.ndarray, " _"] | None = None,
    reading: Reading = AS_USUAL,
    findings: Findings | None = None,
) -> Float[np.ndarray, " sample"]:
    """Mono waveform, or a part of it, at the rate asked for: wav, flac, ogg, opus, mp3 and more.

    A part is the same as a slice of the whole, whatever the file's rate; only it is read.

    Args:
        source: A path, the bytes of a file, or a file that can seek.
        sample_rate: Samples per second of the result.
        start: Seconds to leave out in front.
        seconds: At most so many seconds; None reads to the end.
        name: What to call it in an error; a path has one.
        out: Where to put the samples, and at most so many: fresh memory for each clip costs as much as decoding it.
        reading: Which channel, and what to do with what is too loud or cut off.
        findings: What is to be said of the recording is added to these.

    Returns:
        float32, usually in [-1, 1]; the mean over the channels. The beginning of `out`, where that is given.

    Raises:
        AudioError: if it is no audio file, is damaged, holds NaN, infinity or samples far beyond full scale, or has
            nothing in that part.
    """
    first = round(start * sample_rate)
    count = None if seconds is None else round(seconds * sample_rate)
    if out is not None:
        count = len(out) if count is None else min(count, len(out))

    if not isinstance(source, Path) and count != 0 and (reading is AS_USUAL or reading.number in (None, 0)):
        size, fetch = fetch_of(source)
        plain = read_pcm(fetch, size, sample_rate=sample_rate, first=first, count=count, out=out)
        if plain is not None:
            return plain

    def read(opened: Opened) -> _Part:
        info = info_of(opened, reading)
        if first < 0 or (count is not None and count < 1):
            raise AudioError(f"cannot cut {seconds} s from {start} s on: neither may be below 0, nor empty")
        if start >= info.seconds:
            if opened.more_behind(ended=False):
                return None
            raise AudioError(f"holds {info.seconds:g} s, so nothing starts at {start:g} s")
        sound = OpenRecording(opened.file, info, reading, scale_for(source, opened, reading), findings)
        try:
            part = read_resampled(sound, sample_rate, first, count, out)
        except soundfile.SoundFileError:
            # A decoder that looks for a place in the file gets lost in what is joined to it.
            if opened.more_behind(ended=False):
                return None
            raise
        if not len(part):
            raise AudioError(f"holds {info.seconds:g} s, so there is nothing at {start:g} s")
        if findings is not None and info.format == "OGG" and not is_closed(_tail(source)):
            sound.say(Finding("short", "has no end: it was cut off or never closed"))
        ended = count is None or first + count >= info.seconds * sample_rate
        return None if ended and opened.more_behind(ended=True) else part

    part = _with_file(source, name, read, joined=False)
    if part is None:
        part = _with_file(source, name, read)
        assert part is not None
    return part


def encode(
    waveform: Float[np.ndarray, " sample"],
    *,
    sample_rate: int,
    format: Literal["flac", "wav", "opus"] = "flac",
) -> bytes:
    """The bytes of a 16-bit mono file; the same waveform gives the same bytes.

    In FLAC and WAV a waveform that was decoded from 16 bits comes back without loss; what is beyond [-1, 1] is clipped.
    Opus (in Ogg) is lossy, and takes 8, 12, 16, 24 and 48 kHz.

    Raises:
        AudioError: if it is empty or holds NaN or infinity.
    """
    if not len(waveform) or not np.isfinite(waveform).all():
        raise AudioError(f"cannot encode {len(waveform)} samples: expected one or more, all of them finite")
    steps = steps_of(waveform)
    buffer = io.BytesIO()
    if format == "opus":
        soundfile.write(buffer, steps, sample_rate, format="OGG", subtype="OPUS")
        return renumber(buffer.getvalue(), serial=0)
    soundfile.write(buffer, steps, sample_rate, format=format.upper(), subtype="PCM_16")
    return buffer.getvalue()


def steps_of(waveform: Float[np.ndarray, " sample"]) -> Int16[np.ndarray, " sample"]:
    """What a 16-bit file holds of a waveform: steps of 1/32768, clipped to [-32768, 32767]."""
    return np.clip(np.rint(waveform.astype(np.float64) * 32768.0), -32768, 32767).astype(np.int16)


def _with_file(source: Source, name: str | None, use: Callable[[Opened], T], *, joined: bool = True) -> T:
    """Open, use and close, with every failure told in one line that names the source."""
    called = printable(name or (str(source) if isinstance(source, Path) else "audio"))
    try:
        if isinstance(source, Path):
            size = source.stat().st_size
        else:
            size, _ = fetch_of(source)
            called = printable(name or f"audio of {size} bytes")
        if isinstance(source, Path) and not source.is_file():
            raise AudioError("is no file; expected audio")
        if not size:
            raise AudioError("is empty; expected audio")
        opened = open_sound(source, size, joined=joined)
        with opened.file:
            return use(opened)
    except AudioError as error:
        raise AudioError(f"{called}: {error}") from None
    except OSError as error:
        raise AudioError(f"{called}: cannot be read ({error.strerror or error})") from None
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(getattr(error, "error_string", error)).split()).rstrip(".")
        raise AudioError(
            f"{called}: cannot be decoded ({reason}); it is {kind_of(_head(source))}; {EXPECTED}"
        ) from None


def _head(source: Source) -> bytes:
    if isinstance(source, Path):
        with source.open("rb") as file:
            return file.read(HEAD_BYTES)
    return bytes(fetch_of(source)[1](0, HEAD_BYTES))


def _tail(source: Source) -> bytes:
    size, fetch = (source.stat().st_size, Disk.of(source)) if isinstance(source, Path) else fetch_of(source)
    return bytes(fetch(max(0, size - LONGEST_PAGE), LONGEST_PAGE))
