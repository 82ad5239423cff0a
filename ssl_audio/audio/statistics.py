"""Mean and deviation of a corpus, in one pass over any number of pieces."""

import dataclasses
import math

import torch

from ssl_audio.audio.frontend import Spectrogram


@dataclasses.dataclass(slots=True)
class Moments:
    """Running mean and standard deviation over all values seen, in float64.

    Pieces may be counted apart (on several workers) and merged; the order changes only the last digits.

    Args:
        count: Values seen.
        mean: Their mean.
        squares: Sum of their squared distances from the mean.

    Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
        variances", 1979.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def update(self, spectrogram: Spectrogram) -> None:
        """Take in the valid frames of a batch; padding does not count.

        For the statistics of a corpus, give it `Frontend.unnormalised`.
        """
        values = spectrogram.values
        if not spectrogram.whole:
            place = torch.arange(values.shape[1], device=values.device)
            values = values[place < spectrogram.frames.to(values.device)[:, None]]
        if not values.numel():
            return
        wide = values.double()
        mean = wide.mean()
        self.merge(Moments(wide.numel(), float(mean), float((wide - mean).square_().sum())))

    def merge(self, other: "Moments") -> None:
        """Take in what another has counted."""
        total = self.count + other.count
        if not total:
            return
        distance = other.mean - self.mean
        self.squares += other.squares + distance * distance * self.count * other.count / total
        self.mean += distance * other.count / total
        self.count = total

    @property
    def std(self) -> float:
        """Standard deviation (of the population); NaN before the first value."""
        return math.sqrt(self.squares / self.count) if self.count else math.nan
