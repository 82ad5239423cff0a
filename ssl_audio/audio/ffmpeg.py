"""Formats that libsndfile does not read, such as m4a, by FFmpeg if PyAV is there (`pip install 'ssl_audio[ffmpeg]'`).

PyAV's wheels hold FFmpeg, and no version of torch is tied to it; torchcodec wants both from outside.
"""

import importlib.util
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ssl_audio.audio.file_parts import FileParts
from ssl_audio.errors import AudioError

# What a file begins with (after so many bytes), and what it is called.
_MARKS = (
    (4, b"ftyp", "mp4 or m4a"),
    (0, b"\x1a\x45\xdf\xa3", "webm or mkv"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "wma"),
    (0, b"\xff\xf1", "aac"),
    (0, b"\xff\xf9", "aac"),
    (0, b"#!AMR", "amr"),
    (0, b"\x0b\x77", "ac3"),
    (0, b"\x7f\xfe\x80\x01", "dts"),
    (0, b"MAC ", "ape"),
    (0, b"wvpk", "wv"),
    (0, b"TTA1", "tta"),
    (0, b"tBaK", "tak"),
    (0, b"MPCK", "mpc"),
    (0, b"MP+", "mpc"),
    (0, b".RMF", "ra"),
    (0, b"DSD ", "dsf"),
    (8, b"AVI ", "avi"),
    (28, b"Speex", "spx"),
    (0, b"caff", "caf with a codec of its own"),
    (0, b"RIFF", "wav with a codec of its own"),
    (0, b"FORM", "aiff with a codec of its own"),
    (0, b"OggS", "ogg with a codec of its own"),
)

# Codes of formats in a WAV: integers, floats, and one that stands further behind.
_PLAIN, _EXTENSIBLE = (b"\1\0", b"\3\0", b""), b"\xfe\xff"

# Neither playlists nor anything else that names other files or hosts.
_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,asf,aac,amr,amrnb,amrwb,ac3,eac3,dts,ape,wv,tta,tak,mpc,mpc8,rm,dsf,avi,"
    "ogg,caf,wav,aiff"
)
_STATES_LENGTH = ("mov", "asf", "matroska", "ape", "wv", "tta", "caf", "wav", "aiff")


class Decoded(NamedTuple):
    """Sound in blocks.

    Args:
        format: What it is called.
        sample_rate: Samples per second.
        channels: Number of channels.
        blocks: The samples.
        promised: How many frames there ought to be; 0 if nobody knows.
    """

    format: str
    sample_rate: int
    channels: int
    blocks: Iterator[Float[np.ndarray, "frame channel"]]
    promised: int


def reads(head: bytes) -> bool:
    """Whether a file that begins so is for FFmpeg, and it is there.

    Raises:
        AudioError: if it is for FFmpeg, which is not there.
    """
    name = next((name for at, mark, name in _MARKS if head[at : at + len(mark)] == mark), None)
    if name is None or _is_plain_wav(head):
        return False
    if importlib.util.find_spec("av") is None:
        raise AudioError(
            f"is {name}, which needs FFmpeg: install it with `pip install 'ssl_audio[ffmpeg]'`, or write the recording "
            "again as flac"
        )
    return True


def _is_plain_wav(head: bytes) -> bool:
    """Whether it is a WAV of numbers, or ends before it says of what: one that libsndfile refuses is damaged."""
    code = head[44:46] if head[20:22] == _EXTENSIBLE else head[20:22]
    return head[:4] == b"RIFF" and code in _PLAIN


def decoded(file: FileParts) -> Decoded:
    """The first stream of sound in a file.

    Raises:
        AudioError: if there is none, or it cannot be decoded.
    """
    import av  # optional, and takes a tenth of a second

    try:
        container = av.open(file, options={"format_whitelist": _DEMUXERS}, metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise AudioError(f"cannot be decoded by FFmpeg ({error.strerror})") from None
    if not container.streams.audio:
        raise AudioError("has no sound, only other streams")
    stream = container.streams.audio[0]
    rate, channels = stream.rate, stream.channels
    if not rate or not channels:
        raise AudioError("does not say its sample rate or channels")

    def blocks() -> Iterator[Float[np.ndarray, "frame channel"]]:
        resampler = av.AudioResampler(format="flt", rate=rate, layout=stream.layout)
        try:
            with container:
                for frame in container.decode(stream):
                    for part in resampler.resample(frame):
                        yield part.to_ndarray().reshape(-1, channels)
                for part in resampler.resample(None):
                    yield part.to_ndarray().reshape(-1, channels)
        except av.error.FFmpegError as error:
            raise AudioError(f"is damaged: FFmpeg cannot decode all of it ({error.strerror})") from None

    return Decoded(container.format.name, rate, channels, blocks(), int(_seconds(container, stream) * rate))


def _seconds(container: Any, stream: Any) -> float:
    """How long the file says that it is; 0 where it does not say so, or the length is an estimate."""
    if not container.format.name.startswith(_STATES_LENGTH):
        return 0.0
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    # Of a film it may be the pictures that last so long.
    return container.duration / 1e6 if container.duration and len(container.streams) == 1 else 0.0
