"""What a recording tells of how it was made rather than of what is heard: level, bandwidth, noise, silence, ends."""

import itertools
import math

import numpy as np
from jaxtyping import Float

TRAITS: dict[str, tuple[str, ...]] = {
    "level": ("level (dB)", "peak (dB)", "loud part (dB)", "full scale (share)"),
    "offset": ("mean (share of the level)", "mean (1/1000)"),
    "bandwidth": (
        "99 % of power below (Hz)",
        "99.9 % of power below (Hz)",
        "1 % of power below (Hz)",
        "top fifth of the band (dB)",
        "below 80 Hz (dB)",
        "highest frequency within 70 dB (Hz)",
    ),
    "noise floor": (
        *("noise floor (dB)", "noise below the loud part (dB)", "flatness of the noise (dB)"),
        *(f"noise, band {number} of 6 (dB)" for number in range(1, 7)),
    ),
    "silence": (
        "silence in front (s)",
        "silence behind (s)",
        "silence (share)",
        "digital silence (share)",
        "longest digital silence (s)",
    ),
    "duration": ("duration (s)",),
    "first 100 ms": (
        *("begins below the loud part by (dB)", "digital silence at the beginning (share)"),
        *(f"beginning, band {number} of 6 (dB)" for number in range(1, 7)),
    ),
    "last 100 ms": (
        *("ends below the loud part by (dB)", "digital silence at the end (share)"),
        *(f"end, band {number} of 6 (dB)" for number in range(1, 7)),
    ),
}
"""Names of the numbers of each group, with their units; the first is the one to show."""

_FRAME_SECONDS = 0.032
_END_SECONDS = 0.1
_QUIET_SHARE = 0.1
_LOUD_PERCENTILE = 95
_SILENCE_DB = 40.0
_REACH_DB = 70.0
_LEAST = 1e-16  # -160 dB
_BANDS = 6


def traits_of(
    waveform: Float[np.ndarray, " sample"], sample_rate: int, *, seconds: float | None = None
) -> dict[str, Float[np.ndarray, " _"]]:
    """The numbers of each group of `TRAITS`, all of them finite.

    Args:
        waveform: The whole clip, or what there is of it.
        sample_rate: Samples per second.
        seconds: How long the clip is, if it is longer than what is given.
    """
    wave = waveform.astype(np.float64)
    spectra = _spectra(wave, sample_rate)
    frames = _decibels(spectra.sum(axis=1))
    loud = float(np.percentile(frames, _LOUD_PERCENTILE))
    quiet = spectra[frames <= np.percentile(frames, 100 * _QUIET_SHARE)].mean(axis=0)
    power = float(np.square(wave).mean())
    level, mean = math.sqrt(max(power, _LEAST)), float(wave.mean())
    peak = float(np.abs(wave).max())
    end = max(1, round(_END_SECONDS * sample_rate))
    floor = float(_decibels(quiet.sum()))
    return {
        "level": np.array([_decibels(power), _decibels(peak**2), loud, np.mean(np.abs(wave) >= 0.999)]),
        "offset": np.array([mean / level, 1000 * mean]),
        "bandwidth": _bandwidth(spectra.mean(axis=0), sample_rate),
        "noise floor": np.array([floor, loud - floor, _flatness(quiet), *_shape(quiet)]),
        "silence": _silence(wave, frames, loud, sample_rate),
        "duration": np.array([len(wave) / sample_rate if seconds is None else seconds]),
        "first 100 ms": _end(wave[:end], loud, sample_rate),
        "last 100 ms": _end(wave[-end:], loud, sample_rate),
    }


def _spectra(wave: Float[np.ndarray, " sample"], sample_rate: int) -> Float[np.ndarray, "frame frequency"]:
    """Power of each frequency of each frame; the sum of a frame is its mean square."""
    size = 2 * max(8, round(_FRAME_SECONDS * sample_rate / 2))
    if len(wave) < size:
        wave = np.pad(wave, (0, size - len(wave)))
    window = np.hanning(size)
    frames = np.lib.stride_tricks.sliding_window_view(wave, size)[:: size // 2]
    power = np.square(np.abs(np.fft.rfft(frames * window, axis=1)))
    power[:, 1:-1] *= 2
    return power / (size * np.square(window).sum())


def _bandwidth(power: Float[np.ndarray, " frequency"], sample_rate: int) -> Float[np.ndarray, " trait"]:
    hertz = np.linspace(0, sample_rate / 2, len(power))
    share = np.cumsum(power[1:]) / max(float(power[1:].sum()), _LEAST)
    below = [float(hertz[1 + min(int(np.searchsorted(share, part)), len(share) - 1)]) for part in (0.99, 0.999, 0.01)]
    total = max(float(power.sum()), _LEAST)
    top = _decibels(power[hertz >= 0.4 * sample_rate].sum() / total)
    low = _decibels(power[(hertz > 0) & (hertz < 80)].sum() / total)
    smooth = np.convolve(power, np.full(5, 0.2), mode="same")
    within = np.flatnonzero(_decibels(smooth) > _decibels(smooth.max()) - _REACH_DB)
    return np.array([*below, top, low, float(hertz[within[-1]])])


def _shape(power: Float[np.ndarray, " frequency"]) -> list[float]:
    """Decibels of six equal stretches of the mel scale, less their mean."""
    edges = np.expm1(np.linspace(0, np.log1p(len(power) / 16), _BANDS + 1)) * 16
    edges = np.maximum.accumulate(np.maximum(edges.round().astype(int), np.arange(_BANDS + 1)))
    parts = _decibels(np.array([power[low : max(high, low + 1)].mean() for low, high in itertools.pairwise(edges)]))
    return list(parts - parts.mean())


def _flatness(power: Float[np.ndarray, " frequency"]) -> float:
    kept = np.maximum(power[1:], _LEAST**1.5)
    return float(10 * np.log10(kept).mean() - 10 * np.log10(kept.mean()))


def _silence(
    wave: Float[np.ndarray, " sample"], frames: Float[np.ndarray, " frame"], loud: float, sample_rate: int
) -> Float[np.ndarray, " trait"]:
    sounding = np.flatnonzero(frames > loud - _SILENCE_DB)
    hop = _FRAME_SECONDS / 2
    front, behind = sounding[0] * hop, (len(frames) - 1 - sounding[-1]) * hop
    zero = np.concatenate([[False], wave == 0, [False]])
    bounds = np.flatnonzero(zero[1:] != zero[:-1])
    longest = int((bounds[1::2] - bounds[::2]).max(initial=0))
    share = 1 - len(sounding) / len(frames)
    return np.array([front, behind, share, float(zero.sum() / len(wave)), longest / sample_rate])


def _end(part: Float[np.ndarray, " sample"], loud: float, sample_rate: int) -> Float[np.ndarray, " trait"]:
    mean = _spectra(part, sample_rate).mean(axis=0)
    return np.array([loud - float(_decibels(np.square(part).mean())), float((part == 0).mean()), *_shape(mean)])


def _decibels(power: np.ndarray | float) -> np.ndarray:
    return np.asarray(10 * np.log10(np.maximum(power, _LEAST)))
