"""How clips are varied in training: mixed on the waveform, masked and shaken on the spectrogram."""

import dataclasses

import torch
from jaxtyping import Int
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor

from ssl_audio.audio.augment import mixing_weights, mixup, noise, roll, spec_augment
from ssl_audio.audio.elastic import draw_ratios, elastic_spectrogram
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.batch import Batch
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.randomness import uniform

_FEWEST_SAMPLES = 1024


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to training clips; nothing by default.

    Args:
        mixup: Probability that a clip is mixed with another one of its batch.
        band_width: Bins of a masked stripe lie below this; 0 masks none.
        time_width: Frames of a masked stripe lie below this; 0 masks none.
        noise: Largest amplitude of uniform noise on the normalised spectrogram; published: 0.1.
        roll: Frames by which a clip is turned round at most; published: 10.
        shortest: A random stretch of each clip is kept, of a length drawn between this share of it and all of it.
        largest_shift: The time from one frame to the next is drawn for each clip: the frontend's times one of 1, 1.2,
            1.4, ... up to this; published: 4.

    Source: YuanGongND/ssast@a1a3eec, dataloader.py; arXiv 2407.08691 section 3 (frame shifts).
    Differs: the partner in `mixup` comes from the batch rather than from all clips.
    """

    mixup: ClosedUnitInterval = 0.0
    band_width: NonNegativeInt = 0
    time_width: NonNegativeInt = 0
    noise: NonNegativeFloat = 0.0
    roll: NonNegativeInt = 0
    shortest: ClosedUnitInterval = 1.0
    largest_shift: PositiveFloat = 1.0

    def shorten(self, batch: Batch) -> Batch:
        """A random stretch of each clip.

        Raises:
            RecipeError: if frames have targets, which would lie elsewhere.
        """
        if self.shortest >= 1:
            return batch
        self._refuse_frames(batch, "shortest")
        width = batch.waveforms.shape[1]
        samples = torch.full_like(batch.seeds, width) if batch.samples is None else batch.samples
        draws = uniform(batch.seeds, 2, "stretch")
        kept = (samples * (self.shortest + (1 - self.shortest) * draws[:, 0])).long().clamp_min(_FEWEST_SAMPLES)
        kept = torch.minimum(kept, samples)
        start = ((samples - kept + 1) * draws[:, 1]).long()
        place = torch.arange(int(kept.max()), device=kept.device)
        inside = place < kept[:, None]
        waveforms = batch.waveforms.gather(1, torch.where(inside, start[:, None] + place, 0)) * inside
        return dataclasses.replace(batch, waveforms=waveforms, samples=kept)

    def spectrogram(self, backbone: Backbone, batch: Batch) -> Spectrogram:
        """Of a training batch, with a frame shift drawn for each clip if they are to differ.

        Raises:
            RecipeError: if frames have targets, or the backbone fills every clip up to a fixed length.
        """
        if self.largest_shift <= 1:
            return backbone.spectrogram(batch.waveforms, batch.samples)
        self._refuse_frames(batch, "largest_shift")
        if backbone.fixed_frames is not None:
            raise RecipeError(
                "model.augmentation.largest_shift varies the number of frames, and fixed_frames of the backbone fixes "
                "it; expected one of them"
            )
        ratios = draw_ratios(batch.seeds, self.largest_shift)
        return elastic_spectrogram(backbone.frontend, batch.waveforms, batch.samples, ratios)

    @staticmethod
    def _refuse_frames(batch: Batch, option: str) -> None:
        if batch.frames is not None:
            raise RecipeError(
                f"model.augmentation.{option} moves events within their clips, whose frames have targets "
                "(data.frame_seconds); expected 1"
            )

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
