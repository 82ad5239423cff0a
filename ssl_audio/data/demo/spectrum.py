"""Shaping sounds in the frequency domain, with NumPy alone: filters, noises, a room and another sample rate.

Everything is deterministic and has no state, which recursive filters and streaming resamplers would have.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

SAMPLE_RATE = 16_000

# Linear gain at each frequency (in hertz) of a spectrum.
Gain = Callable[[np.ndarray], np.ndarray]


def _fast_length(count: int) -> int:
    """The next power of two: transforms of other lengths can be ten times slower."""
    return 1 << max(count - 1, 1).bit_length()


def shape(waveform: Float[np.ndarray, " sample"], *, gain: Gain) -> Float[np.ndarray, " sample"]:
    """Filter with zero phase: each frequency is multiplied with `gain` of it."""
    length = _fast_length(len(waveform))
    frequencies = np.fft.rfftfreq(length, 1.0 / SAMPLE_RATE)
    return np.fft.irfft(np.fft.rfft(waveform, length) * gain(frequencies), length)[: len(waveform)]


def noise(rng: np.random.Generator, *, count: int, gain: Gain) -> Float[np.ndarray, " sample"]:
    """Gaussian noise of unit root mean square whose amplitude spectrum follows `gain`."""
    length = _fast_length(count)
    frequencies = np.fft.rfftfreq(length, 1.0 / SAMPLE_RATE)
    spectrum = rng.standard_normal(len(frequencies)) + 1j * rng.standard_normal(len(frequencies))
    waveform = np.fft.irfft(spectrum * gain(frequencies), length)[:count]
    return waveform / np.sqrt(np.mean(waveform**2))


def convolve(
    waveform: Float[np.ndarray, " sample"], *, response: Float[np.ndarray, " tap"]
) -> Float[np.ndarray, " longer"]:
    """Linear convolution; as long as both together, less one sample."""
    count = len(waveform) + len(response) - 1
    length = _fast_length(count)
    return np.fft.irfft(np.fft.rfft(waveform, length) * np.fft.rfft(response, length), length)[:count]


def resample_in_frequency(
    waveform: Float[np.ndarray, " sample"], *, source_rate: int
) -> Float[np.ndarray, " resampled"]:
    """Bring a waveform to 16 kHz by cutting (or zero-filling) its spectrum.

    Silence is appended so that old and new length are whole numbers of samples, and so that the end does
    not wrap around into the start.
    """
    divisor = int(np.gcd(source_rate, SAMPLE_RATE))
    old_step, new_step = source_rate // divisor, SAMPLE_RATE // divisor
    steps = _fast_length(-(-len(waveform) // old_step) + 1)
    spectrum = np.fft.rfft(waveform, steps * old_step)
    resampled = np.fft.irfft(spectrum, steps * new_step) * (new_step / old_step)
    return resampled[: -(-len(waveform) * new_step // old_step)]


def band(low: float, high: float) -> Gain:
    """Passes `low` to `high` hertz; the gain falls by 12 dB an octave outside."""

    def gain(frequencies: np.ndarray) -> np.ndarray:
        above = 1.0 / (1.0 + (low / np.maximum(frequencies, 1.0)) ** 4)
        below = 1.0 / (1.0 + (frequencies / high) ** 4)
        return np.sqrt(above * below)

    return gain


def slope(decibels_per_octave: float, *, pivot: float = 1000.0) -> Gain:
    """A straight line over octaves through 0 dB at `pivot` hertz, flat below 50 Hz."""

    def gain(frequencies: np.ndarray) -> np.ndarray:
        octaves = np.log2(np.maximum(frequencies, 50.0) / pivot)
        return 10.0 ** (decibels_per_octave * octaves / 20.0)

    return gain
