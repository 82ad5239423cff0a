"""What the header of a recording says, held against what the file can be."""

import dataclasses
import re

from ssl_audio.audio.formats import EXPECTED, FORMATS
from ssl_audio.audio.opening import MOST_FRAMES_PER_BYTE, Opened
from ssl_audio.audio.reading import Reading
from ssl_audio.audio.resampling import RATES
from ssl_audio.errors import AudioError

# More frames than these a byte of the format cannot hold; formats not named here are PCM or close to it.
_MOST_FRAMES_PER_BYTE = {"FLAC": MOST_FRAMES_PER_BYTE, "OGG": MOST_FRAMES_PER_BYTE, "CAF": 1024, "MP3": 64}
_FRAMES_PER_BYTE_OTHERWISE = 8
_LOSSY_TOLERANCE = 0.05
_UNKNOWN_FRAMES = 2**63 - 1


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


def info_of(opened: Opened, reading: Reading) -> AudioInfo:
    """The header, if a file of its size can be what it says, and enough of it is there.

    Raises:
        AudioError: if it cannot, or too much is missing.
    """
    file, size, format = opened.file, opened.size, opened.file.format
    if format not in FORMATS and opened.format not in FORMATS:
        raise AudioError(f"is {format}; {EXPECTED}")
    if not RATES[0] <= file.samplerate <= RATES[1]:
        raise AudioError(f"claims {file.samplerate} samples per second; expected {RATES[0]} to {RATES[1]}")
    if file.frames < 1:
        raise AudioError("has a header but no sound")
    if file.frames == _UNKNOWN_FRAMES:
        raise AudioError(
            "does not say how long it is, as a program that writes into a pipe leaves it; write it again, such as with "
            "ffmpeg -i"
        )
    most = size * _MOST_FRAMES_PER_BYTE.get(format, _FRAMES_PER_BYTE_OTHERWISE)
    if file.frames > most:
        raise AudioError(f"claims {file.frames} frames, but its {size} bytes cannot hold more than {most}")
    # libsndfile goes on with what is there when the data chunk of a WAV ends early, and only logs it.
    shorter = re.search(r"^data : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    claimed, there = (int(shorter[1]), int(shorter[2])) if shorter else (0, 0)
    if there < claimed * (1 - tolerance_of(opened.format, reading)):
        raise AudioError(f"is truncated: the header claims {claimed} bytes of sound, it has {there}")
    promised = max(file.frames, opened.promised, file.frames * claimed // max(1, there) if claimed > there else 0)
    if file.frames < promised * (1 - tolerance_of(opened.format, reading)):
        raise AudioError(f"is truncated: {promised} frames ought to be there, {file.frames} can be read")
    return AudioInfo(file.frames, file.samplerate, file.channels, opened.format, promised)


def tolerance_of(format: str, reading: Reading) -> float:
    """Share of its sound that a recording of this format may lack."""
    if reading.tolerance is not None:
        return reading.tolerance
    # An MP3 header counts roughly, and so do those that FFmpeg reads; all others keep their word.
    return _LOSSY_TOLERANCE if format == "MP3" or format not in FORMATS else 0.0
