"""Ten-second soundscapes of the demo's sounds with known onsets and offsets, synthesised on the machine."""

from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from jsonargparse.typing import PositiveInt

from ssl_audio.audio.reading import Findings
from ssl_audio.audio.resampling import resample
from ssl_audio.data.clip import Clip, Event
from ssl_audio.data.corpora.corpus import Corpus, Recording
from ssl_audio.data.demo.sounds import SOUNDS, sound
from ssl_audio.data.demo.spectrum import SAMPLE_RATE, noise, slope
from ssl_audio.errors import AudioError
from ssl_audio.randomness import generator

_SECONDS = 10.0
_COUNTS = {"strong": 60, "weak": 60, "unlabelled": 120, "valid": 40, "test": 60}
_CLASSES = ("alarm", "bell", "bird", "clicks", "siren")
"""Sounds that begin and end; the others of the demo are its backgrounds."""
_BACKGROUNDS = tuple(name for name in SOUNDS if name not in _CLASSES)
_ROUGH, _QUIET = 0.004, -26.0


class _Placed(NamedTuple):
    name: str
    start: int
    samples: Float[np.ndarray, " sample"]


class Soundscapes(Corpus):
    """Mixtures of the demo's sounds over a background, with labels of the kind `event`.

    One to four events of five classes lie 6 to 20 dB over the background; no two of a class overlap. Each clip is a
    pure function of the seed and of its key, and no two clips share a sound.

    Args:
        kind: `strong`: training, validation and test clips with onsets and offsets; `weak`: training clips of which
            only the labels are known; `unlabelled`: training clips without labels.
        scale: Times as many clips.
        seed: Another seed gives others.
    """

    licence: ClassVar[str] = "CC0-1.0 (synthesised on this machine)"

    def __init__(
        self, kind: Literal["strong", "weak", "unlabelled"] = "strong", *, scale: PositiveInt = 1, seed: int = 0
    ) -> None:
        self.kind = kind
        self.scale = int(scale)
        self.seed = seed

    def recordings(self) -> list[Recording]:
        parts = ("strong", "valid", "test") if self.kind == "strong" else (self.kind,)
        found = []
        for part in parts:
            for number in range(_COUNTS[part] * self.scale):
                key = f"{part}-{number:04d}"
                events = self._events(key)
                names = sorted({event.label for event in events})
                found.append(
                    Recording(
                        clip=Clip(
                            key=key,
                            sample_rate=SAMPLE_RATE,
                            labels={} if part == "unlabelled" else {"event": names},
                            events=events if part in ("strong", "valid", "test") else [],
                            split=part if part in ("valid", "test") else "train",
                            source=f"soundscapes/{part}",
                        )
                    )
                )
        return found

    def waveform(
        self, recording: Recording, findings: Findings | None = None, *, sample_rate: int = SAMPLE_RATE
    ) -> Float[np.ndarray, " sample"]:
        """Synthesise one soundscape.

        Raises:
            AudioError: if the key is none of this corpus.
        """
        key = recording.clip.key
        if key.split("-")[0] not in _COUNTS:
            raise AudioError(f"there is no soundscape {key!r}; expected one that the corpus lists")
        rng = generator(self.seed, key, "background")
        count = round(_SECONDS * SAMPLE_RATE)
        mixed = _background(rng, count)
        level = float(np.sqrt(np.mean(mixed**2)))
        for placed, gain in zip(self._placed(key), self._gains(key), strict=True):
            piece = placed.samples
            loudness = float(np.sqrt(np.mean(piece**2)))
            mixed[placed.start : placed.start + len(piece)] += piece * (level / loudness) * 10.0 ** (gain / 20.0)
        mixed = mixed * (10.0 ** (rng.uniform(-12.0, -1.0) / 20.0) / np.abs(mixed).max())
        stored = (np.round(mixed * 32767.0) / 32768.0).astype(np.float32)
        return resample(torch.from_numpy(stored), have=SAMPLE_RATE, want=sample_rate).numpy()

    def _gains(self, key: str) -> list[float]:
        """Decibels of each event over the background."""
        return generator(self.seed, key, "gains").uniform(6.0, 20.0, 8).tolist()[: len(self._placed(key))]

    def _placed(self, key: str) -> list[_Placed]:
        """The sounds of a clip, without the silence at their ends, and where they begin."""
        rng = generator(self.seed, key, "events")
        count, found = round(_SECONDS * SAMPLE_RATE), list[_Placed]()
        for number in range(int(rng.integers(1, 5))):
            name = _CLASSES[int(rng.integers(len(_CLASSES)))]
            piece = _audible(sound(name, rng=generator(self.seed, key, number, name)))
            start = int(rng.integers(0, count - len(piece)))
            taken = [(one.start, one.start + len(one.samples)) for one in found if one.name == name]
            if all(
                start + len(piece) + SAMPLE_RATE // 4 < begin or end + SAMPLE_RATE // 4 < start for begin, end in taken
            ):
                found.append(_Placed(name, start, piece))
        return found

    def _events(self, key: str) -> list[Event]:
        return [
            Event(
                label=one.name,
                onset=round(one.start / SAMPLE_RATE, 3),
                offset=round((one.start + len(one.samples)) / SAMPLE_RATE, 3),
            )
            for one in self._placed(key)
        ]


def _audible(waveform: Float[np.ndarray, " sample"]) -> Float[np.ndarray, " heard"]:
    """From where a sound is first heard to where it is last."""
    step = round(_ROUGH * SAMPLE_RATE)
    frames = waveform[: len(waveform) // step * step].reshape(-1, step)
    levels = 10.0 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    loud = np.flatnonzero(levels > levels.max() + _QUIET)
    return waveform[loud[0] * step : (loud[-1] + 1) * step]


def _background(rng: np.random.Generator, count: int) -> Float[np.ndarray, " sample"]:
    """Coloured noise with one of the demo's lasting sounds in it."""
    floor = noise(rng, count=count, gain=slope(float(rng.choice([0.0, -3.0, -6.0]))))
    floor /= np.sqrt(np.mean(floor**2))
    name = _BACKGROUNDS[int(rng.integers(len(_BACKGROUNDS)))]
    pieces = [sound(name, rng=rng) for _ in range(8)]
    lasting = np.resize(np.concatenate(pieces), count)
    lasting = lasting / np.sqrt(np.mean(lasting**2))
    return floor + rng.uniform(0.2, 1.0) * lasting
