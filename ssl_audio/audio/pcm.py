"""The short way to the samples of a plain 16-bit WAV: no decoder, and only the bytes that are wanted."""

import struct
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

HEADER_BYTES = 44
_PLAIN = struct.Struct("<4sI4s4sIHHIIHH4sI")


def read_pcm(
    read: Callable[[int, int], bytes | memoryview],
    size: int,
    *,
    sample_rate: int,
    first: int,
    count: int | None,
    out: Float[np.ndarray, " _"] | None = None,
) -> Float[np.ndarray, " sample"] | None:
    """Samples of a mono 16-bit WAV with the usual 44 bytes of header; None when it is anything else.

    Args:
        read: Gives so many bytes from an offset of the file on.
        size: Of the file, in bytes.
        sample_rate: Samples per second it must have.
        first: Samples to leave out in front.
        count: At most so many samples; None reads to the end.
        out: Where they are to be put; there must be room for `count`.
    """
    if size <= HEADER_BYTES:
        return None
    riff, _, wave, fmt, fmt_bytes, kind, channels, rate, _, _, bits, data, data_bytes = _PLAIN.unpack(
        read(0, HEADER_BYTES)
    )
    if (riff, wave, fmt, data, fmt_bytes) != (b"RIFF", b"WAVE", b"fmt ", b"data", 16):
        return None
    if (kind, channels, rate, bits) != (1, 1, sample_rate, 16) or data_bytes != size - HEADER_BYTES:
        return None
    samples = data_bytes // 2
    wanted = samples - first if count is None else min(count, samples - first)
    if first < 0 or wanted < 1:
        return None
    steps = np.frombuffer(read(HEADER_BYTES + 2 * first, 2 * wanted), dtype="<i2")
    waveform = np.empty(wanted, dtype=np.float32) if out is None else out[:wanted]
    waveform[:] = steps
    return np.multiply(waveform, np.float32(1 / 32768), out=waveform)
