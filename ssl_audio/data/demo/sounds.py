"""Ten sound events, synthesised; each draw of a generator is another bell, another engine, another bird.

Every function takes a generator and a count of samples at 16 kHz and returns a waveform of any level.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from ssl_audio.data.demo.spectrum import SAMPLE_RATE, band, noise, shape, slope

Sound = Callable[[np.random.Generator, int], np.ndarray]


def sound(name: str, *, rng: np.random.Generator) -> Float[np.ndarray, " sample"]:
    """One of `SOUNDS`, 1.5 to 4 seconds long, with a peak of 1."""
    waveform = SOUNDS[name](rng, int(rng.uniform(1.5, 4.0) * SAMPLE_RATE))
    return waveform / np.abs(waveform).max()


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _seconds(count: int) -> np.ndarray:
    return np.arange(count) / SAMPLE_RATE


def _wander(rng: np.random.Generator, count: int, hertz: float) -> np.ndarray:
    """A curve that wanders within [0, 1], with `hertz` turns a second."""
    knots = rng.random(int(count / SAMPLE_RATE * hertz) + 3)
    return np.interp(np.linspace(0, len(knots) - 1.001, count), np.arange(len(knots)), knots)


def _tone(frequency: np.ndarray, harmonics: np.ndarray) -> np.ndarray:
    """A tone of varying frequency (hertz) with the given amplitude for each harmonic, alias-free."""
    phase = 2.0 * np.pi * np.cumsum(frequency) / SAMPLE_RATE
    highest = float(frequency.max())
    partials = [
        amplitude * np.sin(number * phase)
        for number, amplitude in enumerate(harmonics, start=1)
        if number * highest < SAMPLE_RATE / 2
    ]
    return np.sum(partials, axis=0)


def _place(track: np.ndarray, piece: np.ndarray, start: int) -> None:
    """Add a piece to a track, cut off at the track's end."""
    end = min(start + len(piece), len(track))
    if start < end:
        track[start:end] += piece[: end - start]


def _bell(rng: np.random.Generator, count: int) -> np.ndarray:
    """Inharmonic partials that die away, the higher the faster, struck once to four times."""
    base, ring = _log_uniform(rng, 250.0, 1500.0), rng.uniform(0.4, 2.0)
    ratios = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.5, 2.67, 3.0, 4.0, 5.3]) * rng.normal(1.0, 0.02, 10)
    strengths = rng.uniform(0.2, 1.0, 10) / np.sqrt(ratios)
    time = _seconds(count)
    strike = np.zeros(count)
    for ratio, strength in zip(ratios[ratios * base < 7500], strengths, strict=False):
        fading = np.exp(-3 * time * np.sqrt(ratio) / ring)
        strike += strength * np.sin(2 * np.pi * base * ratio * time) * fading
    track = np.zeros(count)
    strikes = int(rng.integers(1, 5))
    for number in range(strikes):
        _place(track, strike * rng.uniform(0.6, 1.0), int(number * count / strikes))
    return track


def _siren(rng: np.random.Generator, count: int) -> np.ndarray:
    """A tone that sweeps up and down or jumps between two pitches."""
    low, span, turns = rng.uniform(400, 800), rng.uniform(1.3, 2.4), _log_uniform(rng, 0.4, 4.0)
    swing = np.sin(2 * np.pi * (turns * _seconds(count) + rng.random()))
    if rng.random() < 0.4:
        swing = np.sign(swing)
    return _tone(low * span ** ((swing + 1) / 2), rng.uniform(0.1, 1.0, 6) / np.arange(1, 7))


def _rain(rng: np.random.Generator, count: int) -> np.ndarray:
    """A bright hiss and many small drops."""
    hiss = noise(rng, count=count, gain=band(rng.uniform(500, 2000), rng.uniform(4000, 8000)))
    drops = np.zeros(count)
    hits = rng.integers(0, count, int(rng.uniform(50, 500) * count / SAMPLE_RATE))
    np.add.at(drops, hits, rng.exponential(1.0, len(hits)))
    drops = shape(drops, gain=band(rng.uniform(800, 2000), rng.uniform(3000, 6000)))
    return hiss * (0.6 + 0.4 * _wander(rng, count, 2.0)) + drops * rng.uniform(2.0, 10.0)


def _engine(rng: np.random.Generator, count: int) -> np.ndarray:
    """Firing strokes at 25 to 90 a second that drift, with a muffled rumble between."""
    firing = _log_uniform(rng, 25.0, 90.0) * (1 + rng.uniform(0.02, 0.5) * _wander(rng, count, 1.0))
    harmonics = rng.uniform(0.2, 1.0, 40) * np.arange(1, 41) ** -rng.uniform(0.5, 1.3)
    rumble = noise(rng, count=count, gain=band(60.0, rng.uniform(300, 1500)))
    stroke = _tone(firing, harmonics)
    return stroke / np.abs(stroke).max() + rng.uniform(0.05, 0.4) * rumble


def _footsteps(rng: np.random.Generator, count: int) -> np.ndarray:
    """Thumps with a scuff, as regular as walking is."""
    period, scuff, thump = rng.uniform(0.3, 0.75), rng.uniform(0.1, 1.0), rng.uniform(60, 160)
    colour = band(rng.uniform(400, 1200), rng.uniform(1500, 6000))
    time = _seconds(int(0.25 * SAMPLE_RATE))
    track = np.zeros(count)
    start = rng.uniform(0, period / 2)
    while start * SAMPLE_RATE < count:
        heel = np.sin(2 * np.pi * thump * time) * np.exp(-time * rng.uniform(25, 50))
        sole = noise(rng, count=len(time), gain=colour) * np.exp(-time * rng.uniform(25, 80))
        _place(track, rng.uniform(0.7, 1.0) * (heel + scuff * sole), int(start * SAMPLE_RATE))
        start += period * rng.normal(1.0, 0.05)
    return track


def _bird(rng: np.random.Generator, count: int) -> np.ndarray:
    """Phrases of short whistles that glide, between 1.5 and 7 kHz."""
    track = np.zeros(count)
    centre, glide, length = _log_uniform(rng, 1800.0, 5500.0), rng.uniform(-0.6, 0.6), rng.uniform(0.04, 0.25)
    start = rng.uniform(0, 0.3)
    while start * SAMPLE_RATE < count:
        time = np.linspace(0, 1, int(length * rng.uniform(0.7, 1.3) * SAMPLE_RATE))
        trill = 0.05 * np.sin(2 * np.pi * rng.uniform(1, 8) * time)
        frequency = np.clip(centre * np.exp2(glide * (time - 0.5) + trill + rng.normal(0, 0.1)), 1000, 7500)
        whistle = _tone(frequency, np.array([1.0, 0.15])) * np.sin(np.pi * time) ** 2
        _place(track, whistle, int(start * SAMPLE_RATE))
        start += length * rng.uniform(1.2, 2.5) + (rng.uniform(0.2, 0.6) if rng.random() < 0.2 else 0.0)
    return track


def _alarm(rng: np.random.Generator, count: int) -> np.ndarray:
    """Hard beeps of a steady pitch, on and off, odd harmonics as of a buzzer."""
    pitch, period, duty = (
        _log_uniform(rng, 600.0, 3200.0),
        _log_uniform(rng, 0.12, 0.7),
        rng.uniform(0.35, 0.7),
    )
    phase = np.mod(_seconds(count) / period, 1.0)
    harmonics = np.array([1, 0, 1 / 3, 0, 1 / 5, 0, 1 / 7]) * rng.uniform(0.3, 1.0, 7)
    return _tone(np.full(count, pitch), harmonics) * (phase < duty)


def _wind(rng: np.random.Generator, count: int) -> np.ndarray:
    """Low noise that swells in gusts, and a whistle that rises with them."""
    gusts = _wander(rng, count, rng.uniform(0.7, 2.5))
    low = noise(rng, count=count, gain=band(40.0, rng.uniform(150, 700)))
    centre = rng.uniform(400, 1400)
    whistle = noise(rng, count=count, gain=band(centre * 0.9, centre * 1.1))
    return low * (0.3 + gusts) + rng.uniform(0.1, 0.8) * whistle * gusts**2


def _waves(rng: np.random.Generator, count: int) -> np.ndarray:
    """Broad noise that comes in, breaks brightly and runs out."""
    period, start = rng.uniform(1.2, 4.0), rng.random()
    phase = np.mod(_seconds(count) / period + start, 1.0)
    crest = rng.uniform(0.3, 0.6)
    swell = np.where(phase < crest, phase / crest, (1 - phase) / (1 - crest)) ** 1.5
    deep = noise(rng, count=count, gain=slope(-rng.uniform(3.0, 6.0)))
    surf = noise(rng, count=count, gain=band(rng.uniform(300, 900), rng.uniform(2500, 6000)))
    return deep * (0.2 + swell) * 0.7 + surf * swell**2 * rng.uniform(0.4, 1.2)


def _clicks(rng: np.random.Generator, count: int) -> np.ndarray:
    """Short dry clicks at irregular times, often in pairs, as of a keyboard."""
    rate, pitch, damping = _log_uniform(rng, 3.0, 14.0), rng.uniform(1200, 5000), rng.uniform(300, 1500)
    time = _seconds(int(0.02 * SAMPLE_RATE))
    track = np.zeros(count)
    start = rng.uniform(0, 0.2)
    while start * SAMPLE_RATE < count:
        ringing = np.sin(2 * np.pi * pitch * rng.normal(1, 0.1) * time) + 0.5 * rng.standard_normal(len(time))
        click = rng.uniform(0.4, 1.0) * ringing * np.exp(-time * damping)
        _place(track, click, int(start * SAMPLE_RATE))
        if rng.random() < 0.4:
            _place(track, 0.5 * click, int((start + rng.uniform(0.03, 0.09)) * SAMPLE_RATE))
        start += rng.exponential(1 / rate) + 0.03
    return track


SOUNDS: dict[str, Sound] = {
    "bell": _bell,
    "siren": _siren,
    "rain": _rain,
    "engine": _engine,
    "footsteps": _footsteps,
    "bird": _bird,
    "alarm": _alarm,
    "wind": _wind,
    "waves": _waves,
    "clicks": _clicks,
}
