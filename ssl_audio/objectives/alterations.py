"""How spectrograms are altered for a model to undo: in time, in some channels, by noise."""

import dataclasses
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt
from torch import Tensor

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.randomness import normal, uniform

_SILENCED, _REPLACED = 0.8, 0.9


@dataclasses.dataclass(frozen=True)
class Alterations:
    """Which alterations and how much; a clip's draws depend on its seed alone.

    In time, stretches of frames with different starts, which may overlap, are set to 0 (the mean, of a normalised
    spectrogram) in 80 of 100 clips, replaced by other stretches of the clip in 10, and only asked for in 10. In
    channels, one band of a random width is set to 0 throughout. Noise is normal and lies on everything.

    Args:
        time_share: Share of the frames that stretches fill as long as none overlap; 0 alters none.
        time_frames: Frames of a stretch.
        band_share: Share of the values of a frame that the widest band has; 0 alters none.
        noise_rate: Probability of noise.
        noise_deviation: Its standard deviation, in the units of the spectrogram.
        noise_for: Whether each `clip` draws its noise by itself, or the whole `batch` has it or not, as published.

    Source: marcelomatheusgauy/Audio_mfcc_gram_transformers@9fffb55 `mask_audio_data`, after arXiv 1910.12638 and
        2007.06028 (Mockingjay, TERA: 0.15, 7 frames, 0.2 in TERA).
    Differs: stretches lie within the clip, not in its padding.
    """

    time_share: ClosedUnitInterval = 0.15
    time_frames: PositiveInt = 7
    band_share: ClosedUnitInterval = 0.2
    noise_rate: ClosedUnitInterval = 0.1
    noise_deviation: NonNegativeFloat = 0.2
    noise_for: Literal["clip", "batch"] = "clip"

    def apply(
        self, spectrogram: Spectrogram, seeds: Int[Tensor, " clip"]
    ) -> tuple[Spectrogram, Bool[Tensor, "clip frame bin"]]:
        """Altered spectrograms, and which of their values are to be told: where stretches and bands are, whatever was
        done there, and all values of a clip with noise.
        """
        values, seeds = spectrogram.values, seeds.to(spectrogram.values.device)
        asked = torch.zeros_like(values, dtype=torch.bool)
        if self.time_share:
            values, chosen = self._in_time(values, spectrogram.frames, seeds)
            asked |= chosen[:, :, None]
        if self.band_share:
            band = self._band(values.shape[2], seeds)
            values = values.masked_fill(band[:, None, :], 0.0)
            asked |= band[:, None, :]
        if self.noise_rate:
            noisy = self._noisy(seeds)
            draws = normal(seeds, values[0].numel(), "alteration/noise").view(values.shape)
            values = torch.where(noisy[:, None, None], values + self.noise_deviation * draws, values)
            asked |= noisy[:, None, None]
        return spectrogram.with_values(values), asked

    def _in_time(
        self, values: Float[Tensor, "clip frame bin"], frames: Int[Tensor, " clip"], seeds: Int[Tensor, " clip"]
    ) -> tuple[Float[Tensor, "clip frame bin"], Bool[Tensor, "clip frame"]]:
        count, size = values.shape[1], self.time_frames
        most = round(count * self.time_share / size)
        starts = (frames - size - 1).clamp_min(0) + 1
        wanted = torch.round(frames * self.time_share / size).long()
        first, other = (
            _different(seeds, starts, most, total=count, purpose=f"alteration/{purpose}")
            for purpose in ("time", "from")
        )
        place = torch.arange(count, device=values.device)
        chosen = torch.zeros_like(values[:, :, 0], dtype=torch.bool)
        source = place.expand_as(chosen)
        for number in range(most):
            # Where stretches overlap the last one counts.
            start = first[:, number : number + 1]
            covered = (place >= start) & (place < start + size) & (number < torch.minimum(wanted, starts))[:, None]
            covered &= place < frames[:, None]
            source = torch.where(covered, place - start + other[:, number : number + 1], source)
            chosen = chosen | covered
        source = source.clamp(max=count - 1)
        dice = uniform(seeds, 1, "alteration/dice")
        moved = values.gather(1, source[:, :, None].expand_as(values))
        replaced = chosen & (dice >= _SILENCED) & (dice < _REPLACED)
        altered = torch.where(replaced[:, :, None], moved, values)
        return altered.masked_fill((chosen & (dice < _SILENCED))[:, :, None], 0.0), chosen

    def _band(self, bins: int, seeds: Int[Tensor, " clip"]) -> Bool[Tensor, "clip {bins}"]:
        draws = uniform(seeds, 2, "alteration/band")
        width = (draws[:, :1] * (round(bins * self.band_share) + 1)).long()
        start = (draws[:, 1:] * (bins - width).clamp_min(1)).long()
        place = torch.arange(bins, device=seeds.device)
        return (place >= start) & (place < start + width)

    def _noisy(self, seeds: Int[Tensor, " clip"]) -> Bool[Tensor, " clip"]:
        dice = uniform(seeds, 1, "alteration/noisy")[:, 0]
        return (dice[:1].expand_as(dice) if self.noise_for == "batch" else dice) < self.noise_rate


def _different(
    seeds: Int[Tensor, " clip"], limit: Int[Tensor, " clip"], most: int, *, total: int, purpose: str
) -> Int[Tensor, "clip {most}"]:
    """So many different numbers below each limit, in random order; what stands beyond the limit's number is any."""
    draws = uniform(seeds, total, purpose)
    beyond = torch.arange(total, device=seeds.device) >= limit[:, None]
    return draws.masked_fill(beyond, 2.0).argsort(dim=1)[:, :most]
