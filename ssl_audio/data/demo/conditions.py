"""Recording conditions: what lies between a sound and its clip.

Synthetic sounds are clean and alike; a linear classifier would know them all. Each clip therefore gets a
room, a microphone, silence around it, background noise and a level of its own.
"""

import numpy as np
from jaxtyping import Float

from ssl_audio.data.demo.spectrum import SAMPLE_RATE, convolve, noise, shape, slope

# Decibels per octave of the background: white, pink, brown.
_NOISE_SLOPES = (0.0, -3.0, -6.0)


def record(dry: Float[np.ndarray, " sample"], *, rng: np.random.Generator) -> Float[np.ndarray, " longer"]:
    """The clip that a random microphone in a random room makes of a sound.

    Returns:
        At least a second; float32 in [-1, 1] on the grid of 16-bit samples, so that storing loses nothing.
    """
    wet = _microphone(_room(dry, rng), rng)
    padded = _pad(wet, rng)
    noisy = padded + _background(rng, count=len(padded), signal_rms=float(np.sqrt(np.mean(wet**2))))
    level = 10.0 ** (rng.uniform(-12.0, 0.0) / 20.0)
    levelled = noisy * (level / np.abs(noisy).max())
    return (np.round(levelled * 32767.0) / 32768.0).astype(np.float32)


def _room(dry: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half of the clips have an echo: the direct sound, then noise that falls by 60 dB in 0.1 to 0.5 s."""
    reverberant = rng.random() < 0.5
    decay_seconds = rng.uniform(0.1, 0.5)
    wet_gain = 10.0 ** (rng.uniform(-12.0, 0.0) / 20.0)
    if not reverberant:
        return dry
    seconds = np.arange(int(decay_seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(seconds)) * np.exp(-6.9 * seconds / decay_seconds)
    response = wet_gain * tail / np.sqrt(np.sum(tail**2))
    response[0] += 1.0
    return convolve(dry, response=response)


def _microphone(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A spectral tilt of up to 4 dB an octave either way and three broad resonances of up to 8 dB."""
    tilt = slope(rng.uniform(-4.0, 4.0))
    centres = np.exp2(rng.uniform(np.log2(150.0), np.log2(7000.0), size=3))
    peaks = rng.uniform(-8.0, 8.0, size=3)

    def gain(frequencies: np.ndarray) -> np.ndarray:
        octaves = np.log2(np.maximum(frequencies, 20.0)[:, None] / centres)
        return tilt(frequencies) * 10.0 ** (np.sum(peaks * np.exp(-2.0 * octaves**2), axis=1) / 20.0)

    return shape(waveform, gain=gain)


def _pad(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Up to 0.4 s of silence before and after, and what is missing to a second at random on either side."""
    before, after = rng.integers(0, int(0.4 * SAMPLE_RATE), size=2)
    missing = max(0, SAMPLE_RATE - len(waveform) - before - after)
    early = int(rng.random() * missing)
    return np.pad(waveform, (before + early, after + missing - early))


def _background(rng: np.random.Generator, *, count: int, signal_rms: float) -> np.ndarray:
    """White, pink or brown noise, 5 to 30 dB below the sound."""
    colour = _NOISE_SLOPES[int(rng.integers(len(_NOISE_SLOPES)))]
    snr_db = rng.uniform(5.0, 30.0)
    return noise(rng, count=count, gain=slope(colour)) * signal_rms * 10.0 ** (-snr_db / 20.0)
