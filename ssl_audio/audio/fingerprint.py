"""Fingerprints of recordings: the same sound again at another level, from another moment on, or through a codec."""

import dataclasses

import numpy as np
from jaxtyping import Complex64, Float, UInt32

_BANDS = 33
_LOW_HZ, _HIGH_HZ = 150.0, 3700.0
_FRAME_SECONDS, HOP_SECONDS = 0.064, 0.016
_RANGE_DB = 50.0
_SIZE = (12, 12)  # of the descriptor: modulations of bands and of time
_TIMES = 128
_FINE = 4  # parts of a sample at which waveforms are compared


@dataclasses.dataclass(frozen=True, slots=True)
class Fingerprint:
    """What is kept of a recording.

    Args:
        shape: Decibels of bands, without the mean of each frame (its level) and of each band (the channel); scaled so
            that the sum of squares is 1. All 0 for silence.
        words: One bit for each of 32 bands of a frame: whether the step to the next band grew since the frame before.
        sounding: Which frames have something to tell.
        descriptor: Magnitudes of slow modulations, the same from whatever moment on; length 1.
    """

    shape: Float[np.ndarray, "frame band"]
    words: UInt32[np.ndarray, " frame"]
    sounding: np.ndarray
    descriptor: Float[np.ndarray, " modulation"]

    @property
    def silent(self) -> bool:
        """Whether nothing in it could tell it from others."""
        return not self.shape.any()


def fingerprint(waveform: Float[np.ndarray, " sample"], sample_rate: int) -> Fingerprint:
    """The fingerprint of a waveform at any rate of 8 kHz or more; lower ones have fewer bands that tell something.

    Source: Haitsma and Kalker, "A highly robust audio fingerprinting system", ISMIR 2002 (the bits).
    """
    size = max(64, 2 * round(_FRAME_SECONDS * sample_rate / 2))
    hop = max(1, round(HOP_SECONDS * sample_rate))
    wave = np.pad(waveform.astype(np.float32), (size // 2, size // 2))
    frames = np.lib.stride_tricks.sliding_window_view(wave, size)[::hop]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=1)))
    bands = power @ _filters(size, sample_rate)
    peak = float(bands.max())
    if peak <= 1e-9:
        nothing = np.zeros((len(bands), _BANDS))
        return Fingerprint(
            nothing, np.zeros(len(bands), np.uint32), np.zeros(len(bands), bool), np.zeros(_SIZE[0] * _SIZE[1])
        )
    decibels = 10 * np.log10(np.maximum(bands / peak, 10 ** (-_RANGE_DB / 10)))
    sounding = decibels.max(axis=1) > 10 - _RANGE_DB
    steps = np.diff(decibels, axis=1)
    grown = np.diff(steps, axis=0, prepend=steps[:1]) > 0
    words = (grown.astype(np.uint32) << np.arange(_BANDS - 1, dtype=np.uint32)).sum(axis=1, dtype=np.uint32)
    shape = decibels - decibels.mean(axis=1, keepdims=True)
    shape -= shape.mean(axis=0, keepdims=True)
    shape /= max(float(np.linalg.norm(shape)), 1e-12)
    times = max(_TIMES, 1 << (len(shape) - 1).bit_length())
    waves = np.abs(np.fft.rfft2(shape, s=(times, 2 * _BANDS)))
    # Modulations of one speed in hertz, however long the recording is.
    picked = (np.arange(_SIZE[0]) * times * 2 // _TIMES).clip(max=times // 2)
    found = waves[picked, 1 : _SIZE[1] + 1].ravel()
    return Fingerprint(shape, words, sounding, found / max(float(np.linalg.norm(found)), 1e-12))


def likeness(one: Fingerprint, other: Fingerprint, *, least_seconds: float = 0.2) -> tuple[float, float]:
    """How alike two recordings are where they overlap best, and by how many seconds the second starts later.

    1 is the same up to level and channel; two takes of one sentence by one speaker are about 0.5. They overlap by half
    of the shorter one at least.
    """
    first, second = one.shape, other.shape
    count = len(first) + len(second) - 1
    size = 1 << (count - 1).bit_length()
    spectra = np.fft.rfft(first, size, axis=0) * np.conj(np.fft.rfft(second, size, axis=0))
    product = np.roll(np.fft.irfft(spectra.sum(axis=1), size), len(second) - 1)[:count]
    lags = np.arange(count) - (len(second) - 1)
    power = [np.concatenate([[0.0], np.cumsum(np.square(part).sum(axis=1))]) for part in (first, second)]
    begin, end = np.maximum(lags, 0), np.minimum(len(first), len(second) + lags)
    energy = (power[0][end] - power[0][begin]) * (power[1][end - lags] - power[1][begin - lags])
    least = max(round(least_seconds / HOP_SECONDS), min(len(first), len(second)) // 2)
    alike = np.where(end - begin >= min(least, len(first), len(second)), product / np.sqrt(energy + 1e-9), -1.0)
    # A stretch that holds next to nothing of either recording tells nothing.
    alike[energy < 0.09] = -1.0
    best = int(alike.argmax())
    return float(alike[best]), float(lags[best] * HOP_SECONDS)


def _filters(size: int, sample_rate: int) -> Float[np.ndarray, "frequency band"]:
    """Equal steps on a logarithmic scale, each frequency in one band."""
    hertz = np.linspace(0, sample_rate / 2, size // 2 + 1)
    edges = np.geomspace(_LOW_HZ, _HIGH_HZ, _BANDS + 1)
    place = np.searchsorted(edges, hertz, side="right") - 1
    found = np.zeros((len(hertz), _BANDS), np.float32)
    inside = (place >= 0) & (place < _BANDS)
    found[inside, place[inside]] = 1.0
    empty = found.sum(axis=0) == 0
    nearest = np.abs(hertz[:, None] - np.sqrt(edges[1:] * edges[:-1])[None]).argmin(axis=0)
    found[nearest[empty], np.flatnonzero(empty)] = 1.0
    return found


def waveform_likeness(
    one: Float[np.ndarray, " first"],
    other: Float[np.ndarray, " second"],
    sample_rate: int,
    *,
    least_seconds: float = 0.2,
) -> float:
    """The largest correlation of two waveforms of one rate over all shifts, from 150 to 3700 Hz: what settles it.

    A copy at another level or moment has 1, one through a lossy codec mostly 0.85 and more, two takes of one word by
    one speaker mostly less than 0.7. They overlap by half of the shorter one, and where one has half of its power.
    """
    from scipy import fft  # takes a moment to import

    first, second = (np.diff(wave.astype(np.float32), prepend=np.float32(0)) for wave in (one, other))
    count = len(first) + len(second) - 1
    size = fft.next_fast_len(count, real=True)
    hertz = np.fft.rfftfreq(size, 1 / sample_rate)
    inside = ((hertz > _LOW_HZ) & (hertz < _HIGH_HZ)).astype(np.float32)
    spectra = [fft.rfft(wave, size) * inside for wave in (first, second)]
    product = np.roll(_between_samples(spectra[0] * np.conj(spectra[1]), size), len(second) - 1)[:count]
    lags = np.arange(count) - (len(second) - 1)
    waves = [fft.irfft(found, size)[: len(wave)] for found, wave in zip(spectra, (first, second), strict=True)]
    power = [np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))]) for wave in waves]
    begin, end = np.maximum(lags, 0), np.minimum(len(first), len(second) + lags)
    energies = power[0][end] - power[0][begin], power[1][end - lags] - power[1][begin - lags]
    shorter = min(len(first), len(second))
    fits = end - begin >= min(max(round(least_seconds * sample_rate), shorter // 2), shorter)
    shares = [energy / max(float(total[-1]), 1e-20) for energy, total in zip(energies, power, strict=True)]
    fits &= (np.maximum(*shares) > 0.5) & (np.minimum(*shares) > 0.01)
    alike = product / np.sqrt(energies[0] * energies[1] + 1e-20)
    return float(np.where(fits, alike, 0.0).max(initial=0.0))


def _between_samples(spectrum: Complex64[np.ndarray, " frequency"], size: int) -> Float[np.ndarray, " lag"]:
    """The largest magnitude of a correlation within half a sample of each lag, at quarters of a sample.

    A copy that was cut at a higher rate is shifted by a part of a sample, and one of half a sample costs a signal
    of 2 kHz at 8 kHz three tenths of its correlation.
    """
    from scipy import fft

    fine = fft.irfft(spectrum, _FINE * size) * _FINE
    half = _FINE // 2
    around = np.abs(np.roll(fine, half)).reshape(size, _FINE)
    return np.maximum(around.max(axis=1), np.roll(around[:, 0], -1))
