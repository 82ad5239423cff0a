"""How clips are varied in training: mixed on the waveform, masked and shaken on the spectrogram."""

import dataclasses

import torch
from jaxtyping import Int
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt
from torch import Tensor

from ssl_audio.audio.augment import mixing_weights, mixup, noise, roll, spec_augment
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.batch import Batch


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

    def mix(self, batch: Batch) -> Batch:
        """Each clip mixed with the next one of its batch, and its targets with those; unlabelled clips stay apart."""
        if not self.mixup or len(batch) < 2:
            return batch
        weights = mixing_weights(batch.seeds, rate=self.mixup)
        if batch.known is not None:
            # A mixture is labelled only if both of its clips are.
            weights = torch.where(batch.known & batch.known.roll(1, dims=0), weights, torch.ones_like(weights))
        samples = batch.samples
        mixed = mixup(
            batch.waveforms,
            partners=batch.waveforms.roll(1, dims=0),
            weights=weights,
            samples=samples,
            partner_samples=None if samples is None else samples.roll(1, dims=0),
        )
        targets = batch.targets
        if targets is not None:
            share = weights[:, None]
            targets = share * targets + (1.0 - share) * targets.roll(1, dims=0)
        frames = batch.frames
        if frames is not None:
            share = weights[:, None, None]
            frames = share * frames + (1.0 - share) * frames.roll(1, dims=0)
        return dataclasses.replace(batch, waveforms=mixed, targets=targets, frames=frames)

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
