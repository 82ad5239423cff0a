"""How labelled clips are varied in fine-tuning: mixed on the waveform, masked and shaken on the spectrogram."""

import dataclasses

from jaxtyping import Float, Int
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt
from torch import Tensor

from ssl_audio.audio.augment import mixing_weights, mixup, noise, roll, spec_augment
from ssl_audio.audio.frontend import Spectrogram


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to training clips; nothing by default.

    Args:
        mixup: Probability that a clip is mixed with another one of its batch.
        band_width: Bins of a masked stripe lie below this; 0 masks none.
        time_width: Frames of a masked stripe lie below this; 0 masks none.
        noise: Largest amplitude of uniform noise on the normalised spectrogram; published: 0.1.
        roll: Frames by which a clip is turned round at most; published: 10.

    Source: YuanGongND/ssast@a1a3eec, dataloader.py.
    Differs: the partner in `mixup` comes from the batch rather than from all clips.
    """

    mixup: ClosedUnitInterval = 0.0
    band_width: NonNegativeInt = 0
    time_width: NonNegativeInt = 0
    noise: NonNegativeFloat = 0.0
    roll: NonNegativeInt = 0

    def mix(
        self,
        waveforms: Float[Tensor, "clip sample"],
        samples: Int[Tensor, " clip"] | None,
        targets: Float[Tensor, "clip label"],
        seeds: Int[Tensor, " clip"],
    ) -> tuple[Float[Tensor, "clip sample"], Float[Tensor, "clip label"]]:
        """Waveforms and targets, each mixed with those of the next clip."""
        if not self.mixup or len(waveforms) < 2:
            return waveforms, targets
        weights = mixing_weights(seeds, rate=self.mixup)
        mixed = mixup(
            waveforms,
            partners=waveforms.roll(1, dims=0),
            weights=weights,
            samples=samples,
            partner_samples=None if samples is None else samples.roll(1, dims=0),
        )
        share = weights[:, None]
        return mixed, share * targets + (1.0 - share) * targets.roll(1, dims=0)

    def disturb(self, spectrogram: Spectrogram, seeds: Int[Tensor, " clip"]) -> Spectrogram:
        """Masked, noisy and turned spectrograms."""
        values, frames = spectrogram.values, None if spectrogram.whole else spectrogram.frames
        if self.band_width or self.time_width:
            values = spec_augment(
                values,
                seeds,
                max_band_width=max(1, self.band_width),
                max_time_width=max(1, self.time_width),
                fill=spectrogram.fill,
                frames=frames,
            )
        if self.noise:
            values = noise(values, seeds, largest=self.noise)
        if self.roll:
            values = roll(values, seeds, max_frames=self.roll, frames=frames)
        return spectrogram.with_values(values)
