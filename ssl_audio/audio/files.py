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

from ssl_audio.audio.ogg import renumber
from ssl_audio.audio.pcm import read_pcm
from ssl_audio.audio.resampling import RATES, ratio_of
from ssl_audio.errors import AudioError

Source = Path | bytes | io.RawIOBase | io.BufferedIOBase

# More frames than these a byte of the format cannot hold, digital silence included (FLAC packs 65,535 equal
# samples in about 10 bytes, Vorbis and Opus thousands in 2); formats not named here are PCM or close to it.
_MOST_FRAMES_PER_BYTE = {"FLAC": 8192, "OGG": 8192, "CAF": 1024, "MP3": 64}
_FRAMES_PER_BYTE_OTHERWISE = 8
_FORMATS = {"WAV", "WAVEX", "RF64", "W64", "NIST", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3"}
_BLOCK_VALUES = 1 << 20
_MP3_LEAD = 10 * 1152

# Writers that cannot seek back, such as ffmpeg into a pipe, leave this in place of a length.
_UNKNOWN_LENGTH = 0xFFFFFFFF

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a file's header says, as far as the file can hold it.

    Args:
        frames: Samples per channel.
        sample_rate: Samples per second.
        channels: Number of channels.
        format: libsndfile's name, such as "WAV", "FLAC", "OGG" or "MP3".
    """

    frames: int
    sample_rate: int
    channels: int
    format: str

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.frames / self.sample_rate


def probe(source: Source, *, name: str | None = None) -> AudioInfo:
    """What the header says; nothing is decoded.

    Raises:
        AudioError: if it is no audio file, is empty, or claims more than it can hold.
    """
    return _with_file(source, name, lambda file, size: _info(file, size))


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

    Returns:
        float32, usually in [-1, 1]; the mean over the channels. The beginning of `out`, where that is given.

    Raises:
        AudioError: if it is no audio file, is damaged, holds NaN or infinity, or has nothing in that part.
    """
    first = round(start * sample_rate)
    count = None if seconds is None else round(seconds * sample_rate)
    if out is not None:
        count = len(out) if count is None else min(count, len(out))

    if not isinstance(source, Path) and count != 0:
        size, fetch = _reader(source)
        plain = read_pcm(fetch, size, sample_rate=sample_rate, first=first, count=count, out=out)
        if plain is not None:
            return plain

    def read(file: soundfile.SoundFile, size: int) -> Float[np.ndarray, " sample"]:
        info = _info(file, size)
        if first < 0 or (count is not None and count < 1):
            raise AudioError(f"cannot cut {seconds} s from {start} s on: neither may be below 0, nor empty")
        if start >= info.seconds:
            raise AudioError(f"holds {info.seconds:g} s, so nothing starts at {start:g} s")
        part = _read_resampled(file, info, sample_rate, first, count, out)
        if not len(part):
            raise AudioError(f"holds {info.seconds:g} s, so there is nothing at {start:g} s")
        return part

    return _with_file(source, name, read)


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


class _SoundFile(soundfile.SoundFile):
    """A file that is just read on.

    soundfile seeks to where it is after every block; an MP3 decoder falls silent for a while each time, and a
    FLAC of unknown length fails at its end.
    """

    def seekable(self) -> bool:
        """No, so that only we seek."""
        return False


def _reader(source: bytes | io.RawIOBase | io.BufferedIOBase) -> tuple[int, Callable[[int, int], bytes | memoryview]]:
    """Size of a source that is no path, and a way to any of its bytes."""
    if isinstance(source, bytes):
        view = memoryview(source)
        return len(view), lambda offset, size: view[offset : offset + size]

    def fetch(offset: int, size: int) -> bytes:
        source.seek(offset)
        return source.read(size) or b""

    return source.seek(0, io.SEEK_END), fetch


def _with_file(source: Source, name: str | None, use: Callable[[_SoundFile, int], T]) -> T:
    """Open, use and close, with every failure told in one line that names the source."""
    called = name or (str(source) if isinstance(source, Path) else "audio")
    try:
        if isinstance(source, Path):
            size = source.stat().st_size
        else:
            size, fetch = _reader(source)
            called = name or f"audio of {size} bytes"
            # A file was left at its end, and the decoder begins where it stands.
            fetch(0, 0)
        if isinstance(source, Path) and not source.is_file():
            raise AudioError("is no file; expected audio")
        if not size:
            raise AudioError("is empty; expected audio")
        with _SoundFile(_opened(source)) as file:
            return use(file, size)
    except AudioError as error:
        raise AudioError(f"{called}: {error}") from None
    except OSError as error:
        raise AudioError(f"{called}: cannot be read ({error.strerror or error})") from None
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(getattr(error, "error_string", error)).split()).rstrip(".")
        raise AudioError(
            f"{called}: cannot be decoded ({reason}; it starts with {_head(source)!r}); "
            "expected wav, flac, ogg, opus or mp3"
        ) from None


def _opened(source: Source) -> str | io.RawIOBase | io.BufferedIOBase:
    if isinstance(source, Path):
        return str(source)
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _head(source: Source) -> bytes:
    if isinstance(source, Path):
        with source.open("rb") as file:
            return file.read(12)
    return bytes(_reader(source)[1](0, 12))


def _info(file: _SoundFile, size: int) -> AudioInfo:
    """The header, if a file of `size` bytes can be what it says."""
    if file.format not in _FORMATS:
        raise AudioError(f"is {file.format}; expected wav, flac, ogg, opus or mp3")
    if not RATES[0] <= file.samplerate <= RATES[1]:
        raise AudioError(f"claims {file.samplerate} samples per second; expected {RATES[0]} to {RATES[1]}")
    if file.frames < 1:
        raise AudioError("has a header but no sound")
    most = size * _MOST_FRAMES_PER_BYTE.get(file.format, _FRAMES_PER_BYTE_OTHERWISE)
    if file.frames > most:
        raise AudioError(f"claims {file.frames} frames, but its {size} bytes cannot hold more than {most}")
    # libsndfile goes on with what is there when the data chunk of a WAV ends early, and only logs it.
    shorter = re.search(r"^data : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    if shorter and int(shorter[1]) > int(shorter[2]) and int(shorter[1]) != _UNKNOWN_LENGTH:
        raise AudioError(f"is truncated: the header claims {shorter[1]} bytes of sound, it has {shorter[2]}")
    return AudioInfo(file.frames, file.samplerate, file.channels, file.format)


def _read_resampled(
    file: _SoundFile,
    info: AudioInfo,
    sample_rate: int,
    first: int,
    count: int | None,
    out: Float[np.ndarray, " _"] | None,
) -> Float[np.ndarray, " sample"]:
    """`count` samples from `first` on, both at `sample_rate`."""
    if info.sample_rate == sample_rate:
        return _read(file, info, first, count, out)
    ratio = ratio_of(have=info.sample_rate, want=sample_rate)
    if ratio == 1:
        return _read(file, info, first, count, out)
    resample, reach = _resampler(ratio.numerator, ratio.denominator)
    # The kernel repeats every `numerator` frames: who starts on such a frame gets the samples of the whole.
    periods = max(first // ratio.denominator - -(-reach // ratio.numerator), 0)
    begin = periods * ratio.numerator
    skip = first - periods * ratio.denominator
    frames = None if count is None else -(-(skip + count) * ratio.numerator // ratio.denominator) + reach
    source = _read(file, info, begin, frames)
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
    file: _SoundFile, info: AudioInfo, first: int, count: int | None, out: Float[np.ndarray, " _"] | None = None
) -> Float[np.ndarray, " sample"]:
    """Mono frames at the file's own rate, block by block, so that only what is there is ever held."""
    promised = info.frames - first if count is None else min(count, info.frames - first)
    if promised < 1:
        raise AudioError(f"holds {info.frames} frames, so there is none from {first} on")
    # The frames of an MP3 borrow bits from those before; a decoder set down among them is silent for some.
    lead = min(first, _MP3_LEAD) if info.format == "MP3" else 0
    if first:
        file.seek(first - lead)
        file.read(lead)
    if out is not None and info.channels == 1:
        waveform = file.read(promised, dtype="float32", out=out[:promised])
        found = len(waveform)
    else:
        blocks = list(_blocks(file, info.channels, promised))
        found = sum(map(len, blocks))
        waveform = np.concatenate(blocks) if len(blocks) != 1 else np.ascontiguousarray(blocks[0])
        if out is not None:
            out[:found] = waveform
            waveform = out[:found]
    # An MP3 header counts roughly; all others keep their word.
    if found < promised * (0.95 if info.format == "MP3" else 1.0):
        raise AudioError(f"is truncated: the header claims {info.frames} frames, data end at {first + found}")
    if not np.isfinite(waveform.sum()):
        raise AudioError("holds samples that are NaN or infinite; expected finite numbers")
    return waveform


def _blocks(file: _SoundFile, channels: int, promised: int) -> Iterator[Float[np.ndarray, " _"]]:
    """The mean over the channels of at most so many frames, until the file ends."""
    most = max(1, _BLOCK_VALUES // channels)
    found = 0
    while found < promised:
        block = file.read(min(most, promised - found), dtype="float32", always_2d=True)
        if not len(block):
            break
        yield block[:, 0] if channels == 1 else block.mean(axis=1, dtype=np.float32)
        found += len(block)
    if not found:
        yield np.empty(0, dtype=np.float32)
