"""Noise put under clips from a folder of noise, at levels that are drawn: alike for all labels, or not, on purpose."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from jsonargparse.typing import NonNegativeInt, PositiveFloat

from ssl_audio import randomness
from ssl_audio.audio.files import decode
from ssl_audio.audio.formats import AUDIO_ENDINGS, ending_of
from ssl_audio.data.batch import Batch
from ssl_audio.data.labels import Use
from ssl_audio.errors import RecipeError

_SHARES: dict[Use, float] = {"valid": 0.2, "test": 0.2}
_MOST_SECONDS = 600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseInsertion:
    """Which noise, how much of it, and how loud.

    Of the files of the folder, in the order of their names, the last fifth is for tests and the fifth before it for
    validation, one at least of each; the others are for training. Which file, which stretch of it and how loud it is
    are drawn for each clip by its seed alone.

    Args:
        folder: Recordings of noise, three at least.
        counts: How many noises a clip gets: one number for all labels, or one for each, where others get none.
        peaks: Smallest and largest peak of a noise, of full scale.
        snr_db: In place of that the smallest and largest distance of the clip's level above that of a noise.

    Raises:
        RecipeError: if the numbers are no ranges.

    Source: marcelomatheusgauy/Audio_mfcc_gram_transformers@9fffb55 `process_batches` (one noise for each label, peaks
        from 0.0335 to 0.1923).
    Differs: noise has the level that is drawn (there it is computed and not used); training, validation and test have
        files of their own; validation and test have the same noise each time.
    """

    folder: Path
    counts: NonNegativeInt | dict[str, NonNegativeInt] = 1
    peaks: tuple[PositiveFloat, PositiveFloat] = (0.033474047, 0.19233719)
    snr_db: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name, bounds in (("peaks", self.peaks), ("snr_db", self.snr_db)):
            if bounds is not None and not bounds[0] <= bounds[1]:
                raise RecipeError(f"data.noise.{name} is {list(bounds)}; expected the smallest first")

    def count_of(self, labels: Sequence[str]) -> list[int]:
        """How many noises a clip of each label gets.

        Raises:
            RecipeError: if a label is named that is none.
        """
        if not isinstance(self.counts, dict):
            return [int(self.counts)] * len(labels)
        unknown = sorted(self.counts.keys() - set(labels))
        if unknown:
            raise RecipeError(f"data.noise.counts names {unknown[0]!r}; expected labels: {', '.join(labels[:8])}")
        return [int(self.counts.get(label, 0)) for label in labels]

    def files(self, use: Use) -> list[Path]:
        """The files of a part.

        Raises:
            RecipeError: if there are fewer than three.
        """
        every = sorted(path for path in Path(self.folder).rglob("*") if ending_of(path.name) in AUDIO_ENDINGS)
        if len(every) < 3:
            raise RecipeError(
                f"data.noise.folder: {self.folder} holds {len(every)} recordings; expected three or more, so that "
                "training, validation and test have noise of their own"
            )
        test, valid = (max(1, round(_SHARES[part] * len(every))) for part in ("test", "valid"))
        bounds: dict[Use, slice] = {
            "train": slice(0, len(every) - test - valid),
            "valid": slice(len(every) - test - valid, len(every) - test),
            "test": slice(len(every) - test, None),
        }
        return every[bounds[use]]

    def insert(
        self, batch: Batch, targets: Bool[np.ndarray, "row label"], *, use: Use, counts: Sequence[int], sample_rate: int
    ) -> Batch:
        """The batch with noise under each clip; a clip of several labels gets what the one with the most gets."""
        files = self.files(use)
        waveforms = batch.waveforms.clone()
        width = waveforms.shape[1]
        lengths = [width] * len(batch) if batch.samples is None else batch.samples.tolist()
        for row, (seed, length) in enumerate(zip(batch.seeds.tolist(), lengths, strict=True)):
            clip = waveforms[row, :length]
            level = float(clip.square().mean().sqrt())
            wanted = [int(count) for count, has in zip(counts, targets[row].tolist(), strict=True) if has]
            for number in range(max(wanted, default=0)):
                rng = randomness.generator(seed, "noise", use, number)
                noise = _noise(files[int(rng.integers(len(files)))], sample_rate)
                start = int(rng.integers(max(1, len(noise) - length + 1)))
                stretch = noise[(start + np.arange(length)) % len(noise)]
                waveforms[row, :length] += torch.from_numpy(stretch * self._gain(stretch, level, rng))
        return dataclasses.replace(batch, waveforms=waveforms)

    def _gain(self, stretch: Float[np.ndarray, " sample"], level: float, rng: np.random.Generator) -> np.float32:
        if self.snr_db is not None:
            wanted = level * 10 ** (-rng.uniform(*self.snr_db) / 20)
            return np.float32(wanted / max(float(np.sqrt(np.square(stretch).mean())), 1e-9))
        return np.float32(rng.uniform(*self.peaks) / max(float(np.abs(stretch).max()), 1e-9))


@functools.lru_cache(maxsize=64)
def _noise(path: Path, sample_rate: int) -> Float[np.ndarray, " sample"]:
    return decode(path, sample_rate=sample_rate, seconds=_MOST_SECONDS)
