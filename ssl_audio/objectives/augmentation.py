"""How clips are varied in training: mixed on the waveform, masked and shaken on the spectrogram."""

import dataclasses
import functools
from pathlib import Path

import torch
from jaxtyping import Float, Int
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor

from ssl_audio.audio.augment import mixing_weights, mixup, noise, roll, spec_augment
from ssl_audio.audio.elastic import draw_ratios, elastic_spectrogram
from ssl_audio.audio.files import decode
from ssl_audio.audio.formats import AUDIO_ENDINGS, ending_of
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.batch import Batch
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.objectives.event_mixing import Mixture, mixed_labels
from ssl_audio.randomness import uniform

_FEWEST_SAMPLES = 1024
_RESPONSE_SECONDS = 1.0


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

        responses: Folder of impulse responses of recording devices, of which one is put on a clip.
        device_rate: Probability of that. Published for sound events: 0.5.

    Source: YuanGongND/ssast@a1a3eec, dataloader.py; CPJKU/cpjku_dcase24@9b5cb78 (devices); arXiv 2407.08691 section 3
        (frame shifts).
    Differs: the partner in `mixup` comes from the batch rather than from all clips.
    """

    mixup: ClosedUnitInterval = 0.0
    band_width: NonNegativeInt = 0
    time_width: NonNegativeInt = 0
    noise: NonNegativeFloat = 0.0
    roll: NonNegativeInt = 0
    shortest: ClosedUnitInterval = 1.0
    largest_shift: PositiveFloat = 1.0
    responses: Path | None = None
    device_rate: ClosedUnitInterval = 0.5

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

    def mix(self, batch: Batch, *, sample_rate: int = 16000) -> Batch:
        """Each clip through a recording device, then mixed with the next one of its batch, and its labels with those.

        Clips whose labels are of another kind (strong, weak, none) stay apart.

        Args:
            batch: Clips.
            sample_rate: Of their waveforms.

        Raises:
            RecipeError: if there is no recording in `responses`.
        """
        if self.responses is not None:
            batch = dataclasses.replace(batch, waveforms=self._recorded(batch, sample_rate))
        if not self.mixup or len(batch) < 2:
            return batch
        weights = mixing_weights(batch.seeds, rate=self.mixup)
        for known in (batch.known, batch.strong):
            if known is not None:
                weights = torch.where(known == known.roll(1, dims=0), weights, torch.ones_like(weights))
        if batch.known is not None:
            weights = torch.where(batch.known, weights, torch.ones_like(weights))
        samples = batch.samples
        mixed = mixup(
            batch.waveforms,
            partners=batch.waveforms.roll(1, dims=0),
            weights=weights,
            samples=samples,
            partner_samples=None if samples is None else samples.roll(1, dims=0),
        )
        partner = torch.arange(len(batch), device=weights.device).roll(1)
        return mixed_labels(dataclasses.replace(batch, waveforms=mixed), Mixture(partner, weights))

    def _recorded(self, batch: Batch, sample_rate: int) -> Float[Tensor, "clip sample"]:
        """Half of the waveforms as one of the devices would record them, at their level."""
        assert self.responses is not None
        found = impulse_responses(self.responses, sample_rate)
        draws = uniform(batch.seeds, 2, "device")
        responses = torch.stack([found[int(share * len(found))] for share in draws[:, 0].tolist()])
        waves = batch.waveforms
        size = 1 << (waves.shape[1] + responses.shape[1] - 1).bit_length()
        spectrum = torch.fft.rfft(waves, size) * torch.fft.rfft(responses.to(waves), size)
        recorded = torch.fft.irfft(spectrum, size)[:, : waves.shape[1]]
        level = waves.square().mean(dim=1, keepdim=True) / recorded.square().mean(dim=1, keepdim=True).clamp_min(1e-12)
        return torch.where(draws[:, 1:] < self.device_rate, recorded * level.sqrt(), waves)

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


@functools.lru_cache(maxsize=4)
def impulse_responses(folder: Path, sample_rate: int) -> tuple[Float[Tensor, " sample"], ...]:
    """The recordings of a folder, one length, each with an energy of 1.

    Raises:
        RecipeError: if there is none.
        AudioError: if one cannot be decoded.
    """
    paths = sorted(path for path in folder.rglob("*") if ending_of(path.name) in AUDIO_ENDINGS)
    if not paths:
        raise RecipeError(f"model.augmentation.responses: {folder} holds no recording; expected impulse responses")
    found = [torch.from_numpy(decode(path, sample_rate=sample_rate, seconds=_RESPONSE_SECONDS)) for path in paths]
    longest = max(map(len, found))
    padded = [torch.nn.functional.pad(one, (0, longest - len(one))) for one in found]
    return tuple(one / one.square().sum().sqrt().clamp_min(1e-9) for one in padded)
