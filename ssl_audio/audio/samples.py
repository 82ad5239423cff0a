"""From an open recording to mono samples at the rate that is asked for."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
import torch
from jaxtyping import Float

from ssl_audio.audio.file_parts import fetch_of
from ssl_audio.audio.info import AudioInfo, tolerance_of
from ssl_audio.audio.opening import Opened, SoundFile, Source, blocks_of, open_sound
from ssl_audio.audio.reading import (
    Finding,
    Findings,
    Reading,
    cancelled,
    check_no_spike,
    check_peak,
    peak_of,
    scale_of,
)
from ssl_audio.audio.resampling import ratio_of
from ssl_audio.errors import AudioError

_MP3_LEAD = 10 * 1152
_UNSAID_FRAMES = 1152

# Of these encodings no sample is beyond full scale, nor NaN.
_BOUNDED = frozenset(["PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "ULAW", "ALAW"])

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class OpenRecording:
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


def scale_for(source: Source, opened: Opened, reading: Reading) -> float:
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


def read_resampled(
    sound: OpenRecording, sample_rate: int, first: int, count: int | None, out: Float[np.ndarray, " _"] | None
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
    sound: OpenRecording, first: int, count: int | None, out: Float[np.ndarray, " _"] | None = None
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
    if found < wanted * (1 - tolerance_of(info.format, sound.reading)):
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


def _check_level(sound: OpenRecording, waveform: Float[np.ndarray, " _"]) -> None:
    """Refuse samples that no recording has; scale down, if asked, what is far beyond full scale."""
    peak = peak_of(waveform)
    if sound.scale > 1.0:
        check_no_spike(waveform, peak)
        waveform /= np.float32(sound.scale)
        sound.say(Finding("rescaled", f"peaks at {peak:g} and was divided by {sound.scale:g}"))
        peak /= sound.scale
    check_peak(peak)


def _check_channel(sound: OpenRecording) -> None:
    number, channels = sound.reading.number, sound.info.channels
    if number is not None and number >= channels:
        raise AudioError(f"has {channels} channel{'s' * (channels > 1)}; there is no --channel {sound.reading.channel}")


def _mono(sound: OpenRecording, wanted: int) -> Iterator[Float[np.ndarray, " _"]]:
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
