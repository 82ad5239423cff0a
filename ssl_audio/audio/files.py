"""Audio files to waveforms and back. What comes from outside is not trusted: headers may lie.

Memory follows the data that is really there, never a header: files are read in blocks until they end.
"""

import dataclasses
import functools
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import soundfile
import torch
from jaxtyping import Float

from ssl_audio.audio.formats import EXPECTED, FORMATS
from ssl_audio.audio.ogg import LONGEST_PAGE, is_closed, renumber
from ssl_audio.audio.opening import MOST_FRAMES_PER_BYTE, Opened, SoundFile, Source, blocks_of, open_sound
from ssl_audio.audio.pcm import read_pcm
from ssl_audio.audio.reading import (
    AS_USUAL,
    Finding,
    Findings,
    Reading,
    cancelled,
    check_no_spike,
    check_peak,
    peak_of,
    scale_of,
)
from ssl_audio.audio.resampling import RATES, ratio_of
from ssl_audio.audio.view import Disk, fetch_of
from ssl_audio.errors import AudioError
from ssl_audio.kinds import HEAD_BYTES, kind_of
from ssl_audio.names import printable

# More frames than these a byte of the format cannot hold; formats not named here are PCM or close to it.
_MOST_FRAMES_PER_BYTE = {"FLAC": MOST_FRAMES_PER_BYTE, "OGG": MOST_FRAMES_PER_BYTE, "CAF": 1024, "MP3": 64}
_FRAMES_PER_BYTE_OTHERWISE = 8
_MP3_LEAD = 10 * 1152
_LOSSY_TOLERANCE = 0.05
_UNSAID_FRAMES = 1152

# Of these encodings no sample is beyond full scale, nor NaN.
_BOUNDED = frozenset(["PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "ULAW", "ALAW"])


T = TypeVar("T")
# Made once: an inner function's annotations are made at each call of the outer one.
_Part = Float[np.ndarray, " sample"] | None


@dataclasses.dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a file's header says, as far as the file can hold it.

    Args:
        frames: Samples per channel.
        sample_rate: Samples per second.
        channels: Number of channels.
        format: libsndfile's name, such as "WAV", "FLAC", "OGG" or "MP3".
        promised: Samples per channel that ought to be there; more than `frames` if some are missing.
    """

    frames: int
    sample_rate: int
    channels: int
    format: str
    promised: int

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.frames / self.sample_rate


def probe(source: Source, *, name: str | None = None, reading: Reading = AS_USUAL) -> AudioInfo:
    """What the header says; nothing is decoded but what has no header that could say it.

    Raises:
        AudioError: if it is no audio file, is empty, or claims more than it can hold.
    """
    return _with_file(source, name, lambda opened: _info(opened, reading))


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
        info = _info(opened, reading)
        if first < 0 or (count is not None and count < 1):
            raise AudioError(f"cannot cut {seconds} s from {start} s on: neither may be below 0, nor empty")
        if start >= info.seconds:
            if opened.more_behind(ended=False):
                return None
            raise AudioError(f"holds {info.seconds:g} s, so nothing starts at {start:g} s")
        sound = _Sound(opened.file, info, reading, _scale(source, opened, reading), findings)
        try:
            part = _read_resampled(sound, sample_rate, first, count, out)
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
    steps = np.clip(np.rint(waveform.astype(np.float64) * 32768.0), -32768, 32767).astype(np.int16)
    buffer = io.BytesIO()
    if format == "opus":
        soundfile.write(buffer, steps, sample_rate, format="OGG", subtype="OPUS")
        return renumber(buffer.getvalue(), serial=0)
    soundfile.write(buffer, steps, sample_rate, format=format.upper(), subtype="PCM_16")
    return buffer.getvalue()


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


def _info(opened: Opened, reading: Reading) -> AudioInfo:
    """The header, if a file of its size can be what it says, and enough of it is there."""
    file, size, format = opened.file, opened.size, opened.file.format
    if format not in FORMATS and opened.format not in FORMATS:
        raise AudioError(f"is {format}; {EXPECTED}")
    if not RATES[0] <= file.samplerate <= RATES[1]:
        raise AudioError(f"claims {file.samplerate} samples per second; expected {RATES[0]} to {RATES[1]}")
    if file.frames < 1:
        raise AudioError("has a header but no sound")
    most = size * _MOST_FRAMES_PER_BYTE.get(format, _FRAMES_PER_BYTE_OTHERWISE)
    if file.frames > most:
        raise AudioError(f"claims {file.frames} frames, but its {size} bytes cannot hold more than {most}")
    # libsndfile goes on with what is there when the data chunk of a WAV ends early, and only logs it.
    shorter = re.search(r"^data : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    claimed, there = (int(shorter[1]), int(shorter[2])) if shorter else (0, 0)
    if there < claimed * (1 - _tolerance(opened.format, reading)):
        raise AudioError(f"is truncated: the header claims {claimed} bytes of sound, it has {there}")
    promised = max(file.frames, opened.promised, file.frames * claimed // max(1, there) if claimed > there else 0)
    if file.frames < promised * (1 - _tolerance(opened.format, reading)):
        raise AudioError(f"is truncated: {promised} frames ought to be there, {file.frames} can be read")
    return AudioInfo(file.frames, file.samplerate, file.channels, opened.format, promised)


def _tolerance(format: str, reading: Reading) -> float:
    """Share of its sound that a recording of this format may lack."""
    if reading.tolerance is not None:
        return reading.tolerance
    # An MP3 header counts roughly, and so do those that FFmpeg reads; all others keep their word.
    return _LOSSY_TOLERANCE if format == "MP3" or format not in FORMATS else 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class _Sound:
    """An open recording and how it is read.

    Args:
        file: Its samples.
        info: Its header.
        reading: How it is read.
        scale: What its samples are divided by.
        findings: Where is said what was found, if anybody wants to know.
    """

    file: SoundFile
    info: AudioInfo
    reading: Reading
    scale: float
    findings: Findings | None

    def say(self, finding: Finding) -> None:
        """Hand on what was found."""
        if self.findings is not None:
            self.findings.add(finding)


def _scale(source: Source, opened: Opened, reading: Reading) -> float:
    """What all samples of a recording are divided by, so that its parts fit one another."""
    if reading.overs != "rescale" or opened.file.subtype in _BOUNDED:
        return 1.0
    if isinstance(source, Path):
        stated = source.stat()
        return scale_of(_peak_of_path(source, stated.st_size, stated.st_mtime_ns))
    size, fetch = fetch_of(source)
    with open_sound(bytes(fetch(0, size)), size).file as file:
        return scale_of(_peak(file))


@functools.lru_cache(maxsize=64)
def _peak_of_path(path: Path, size: int, changed: int) -> float:
    with open_sound(path, size).file as file:
        return _peak(file)


def _peak(file: SoundFile) -> float:
    return float(np.max([peak_of(block) for block in blocks_of(file)], initial=0.0))


def _read_resampled(
    sound: _Sound, sample_rate: int, first: int, count: int | None, out: Float[np.ndarray, " _"] | None
) -> Float[np.ndarray, " sample"]:
    """`count` samples from `first` on, both at `sample_rate`."""
    info = sound.info
    if info.sample_rate == sample_rate:
        return _read(sound, first, count, out)
    ratio = ratio_of(have=info.sample_rate, want=sample_rate)
    if ratio == 1:
        return _read(sound, first, count, out)
    resample, reach = _resampler(ratio.numerator, ratio.denominator)
    # The kernel repeats every `numerator` frames: who starts on such a frame gets the samples of the whole.
    periods = max(first // ratio.denominator - -(-reach // ratio.numerator), 0)
    begin = periods * ratio.numerator
    skip = first - periods * ratio.denominator
    frames = None if count is None else -(-(skip + count) * ratio.numerator // ratio.denominator) + reach
    source = _read(sound, begin, frames)
    resampled = resample(torch.from_numpy(source)).numpy()
    part = resampled[skip:] if count is None else resampled[skip : skip + count]
    if out is None:
        return part
    out[: len(part)] = part
    return out[: len(part)]


@functools.lru_cache(maxsize=16)
def _resampler(numerator: int, denominator: int) -> tuple[Callable[[torch.Tensor], torch.Tensor], int]:
    """torchaudio's windowed sinc, which keeps its kernel, and how many frames it reaches to either side."""
    from torchaudio.transforms import Resample  # takes a tenth of a second, and most corpora need none

    resample = Resample(numerator, denominator)
    return resample, resample.width + numerator


def _read(
    sound: _Sound, first: int, count: int | None, out: Float[np.ndarray, " _"] | None = None
) -> Float[np.ndarray, " sample"]:
    """Mono frames at the file's own rate, block by block, so that only what is there is ever held."""
    file, info = sound.file, sound.info
    wanted = info.frames - first if count is None else min(count, info.frames - first)
    if wanted < 1:
        raise AudioError(f"holds {info.frames} frames, so there is none from {first} on")
    # The frames of an MP3 borrow bits from those before; a decoder set down among them is silent for some.
    lead = min(first, _MP3_LEAD) if info.format == "MP3" else 0
    if first:
        file.seek(first - lead)
        file.read(lead)
    if out is not None and info.channels == 1:
        _check_channel(sound)
        waveform = file.read(wanted, dtype="float32", out=out[:wanted])
        found = len(waveform)
    else:
        blocks = list(_mono(sound, wanted)) or [np.empty(0, dtype=np.float32)]
        found = sum(map(len, blocks))
        waveform = np.concatenate(blocks) if len(blocks) != 1 else np.ascontiguousarray(blocks[0])
        if out is not None:
            out[:found] = waveform
            waveform = out[:found]
    if found < wanted * (1 - _tolerance(info.format, sound.reading)):
        raise AudioError(f"is truncated: the header claims {info.frames} frames, data end at {first + found}")
    lacks = max(wanted - found, info.promised - info.frames)
    if lacks > _UNSAID_FRAMES:
        rate = info.sample_rate
        sound.say(
            Finding("short", f"lacks {lacks / rate:.2f} of {info.promised / rate:.2f} s: it was cut off or is damaged")
        )
    if file.subtype not in _BOUNDED:
        _check_level(sound, waveform)
    return waveform


def _check_level(sound: _Sound, waveform: Float[np.ndarray, " _"]) -> None:
    """Refuse samples that no recording has; scale down, if asked, what is far beyond full scale."""
    peak = peak_of(waveform)
    if sound.scale > 1.0:
        check_no_spike(waveform, peak)
        waveform /= np.float32(sound.scale)
        sound.say(Finding("rescaled", f"peaks at {peak:g} and was divided by {sound.scale:g}"))
        peak /= sound.scale
    check_peak(peak)


def _check_channel(sound: _Sound) -> None:
    number, channels = sound.reading.number, sound.info.channels
    if number is not None and number >= channels:
        raise AudioError(f"has {channels} channel{'s' * (channels > 1)}; there is no --channel {sound.reading.channel}")


def _mono(sound: _Sound, wanted: int) -> Iterator[Float[np.ndarray, " _"]]:
    """The chosen channel, or the mean over all, of at most so many frames, until the file ends."""
    _check_channel(sound)
    number, channels = sound.reading.number, sound.info.channels
    together = apart = 0.0
    for block in _tolerant(blocks_of(sound.file, wanted), sound.reading):
        if channels == 1 or number is not None:
            yield block[:, number or 0]
            continue
        mean = block.mean(axis=1, dtype=np.float32)
        if sound.findings is not None:
            together += float(np.dot(mean, mean))
            apart += float(np.vdot(block, block)) / channels
        yield mean
    if apart and (finding := cancelled(together, apart)):
        sound.say(finding)


def _tolerant(blocks: Iterator[T], reading: Reading) -> Iterator[T]:
    """Blocks until the decoder fails, where the user said how much may be missing."""
    try:
        yield from blocks
    except soundfile.SoundFileError:
        if not reading.tolerance:
            raise
