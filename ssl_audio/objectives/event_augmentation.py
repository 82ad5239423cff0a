"""How spectrograms of clips with labelled frames are varied, with their labels."""

import dataclasses

import torch
from jaxtyping import Float, Int
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat
from torch import Tensor

from ssl_audio.audio import event_augment
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.batch import Batch

# Of a spectrogram whose clips are stretched to [-1, 1]: their range is taken for 100 dB.
_DECIBEL = 2.0 / 100.0


@dataclasses.dataclass(frozen=True)
class EventAugmentation:
    """Probabilities and sizes; nothing by default.

    Args:
        filters: Probability of a random filter of up to 6 dB in 3 to 6 bands. Published: 0.8.
        warp: Probability that the bins are stretched or pressed together. Published, in stage 2: 0.5.
        style: Probability that mean and deviation of the bins are mixed with those of another clip. Published: 0.5.
        masks: Probability that a stretch of a strongly labelled clip is taken out, with its labels. Published: 0.5.
        mask_shares: Shortest and longest stretch, as shares of the clip.
        shift_seconds: Standard deviation of a turn of the clip in time, with its labels. Published: about 1.44.

    Source: CPJKU/cpjku_dcase24@9b5cb78.
    Differs: what is taken out is taken out of the scores of other models, too.
    """

    filters: ClosedUnitInterval = 0.0
    warp: ClosedUnitInterval = 0.0
    style: ClosedUnitInterval = 0.0
    masks: ClosedUnitInterval = 0.0
    mask_shares: tuple[ClosedUnitInterval, ClosedUnitInterval] = (0.05, 0.3)
    shift_seconds: NonNegativeFloat = 0.0

    def disturb(self, spectrogram: Spectrogram, seeds: Int[Tensor, " clip"], *, decibel: float) -> Spectrogram:
        """Filtered, warped and restyled spectrograms.

        Args:
            spectrogram: Of the student.
            seeds: One a clip.
            decibel: What a decibel is in the units of the values.
        """
        values = spectrogram.values
        if self.style:
            values = event_augment.mix_style(values, seeds, rate=self.style)
        if self.filters:
            values = event_augment.filter_augment(values, seeds, rate=self.filters, decibel=decibel)
        if self.warp:
            values = event_augment.frequency_warp(values, seeds, rate=self.warp)
        beside = spectrogram.beside
        beside = None if beside is None else self.disturb(beside, seeds, decibel=_DECIBEL)
        return dataclasses.replace(spectrogram, values=values, beside=beside)

    def shifts(self, seeds: Int[Tensor, " clip"], *, hop_seconds: float, most: int) -> Int[Tensor, " clip"]:
        """By how many frames of the labels each clip is turned."""
        return event_augment.shifts(seeds, deviation=self.shift_seconds / hop_seconds, most=most)

    def turn(
        self, spectrogram: Spectrogram, frames: Int[Tensor, " clip"], each: float, beside: float | None
    ) -> Spectrogram:
        """Spectrograms turned by frames of the labels.

        Args:
            spectrogram: What is turned.
            frames: How far, of the labels.
            each: Its own frames in one of the labels.
            beside: The same of what is beside it.
        """
        own = (frames.double() * each).round().long()
        other = spectrogram.beside
        if other is not None and beside is not None:
            other = self.turn(other, frames, beside, None)
        return dataclasses.replace(spectrogram, values=event_augment.turned(spectrogram.values, own), beside=other)

    def turned_labels(self, batch: Batch, frames: Int[Tensor, " clip"]) -> Batch:
        """Labels and scores of others turned with them."""
        wanted = None if batch.frames is None else event_augment.turned(batch.frames, frames)
        pseudo = None if batch.pseudo is None else event_augment.turned(batch.pseudo, frames)
        return dataclasses.replace(batch, frames=wanted, pseudo=pseudo)

    def stretches(self, seeds: Int[Tensor, " clip"]) -> Float[Tensor, "clip 2"]:
        """What is taken out of each clip, as shares of its length."""
        shortest, longest = self.mask_shares
        return event_augment.stretches(seeds, rate=self.masks, shortest=shortest, longest=longest)

    def cut_out(
        self, values: Float[Tensor, "clip frame channel"], bounds: Float[Tensor, "clip 2"], fill: float
    ) -> Float[Tensor, "clip frame channel"]:
        """Frames whose middle lies within the stretches hold `fill`."""
        return values.masked_fill(event_augment.within(bounds, values.shape[1])[:, :, None], fill)

    def without(self, spectrogram: Spectrogram, bounds: Float[Tensor, "clip 2"]) -> Spectrogram:
        """Spectrograms without the stretches."""
        beside = None if spectrogram.beside is None else self.without(spectrogram.beside, bounds)
        values = self.cut_out(spectrogram.values, bounds, spectrogram.fill)
        return dataclasses.replace(spectrogram, values=values, beside=beside)

    def masked_labels(self, batch: Batch, bounds: Float[Tensor, "clip 2"]) -> Batch:
        """No label is active within the stretches, and others have no scores there."""
        frames = None if batch.frames is None else self.cut_out(batch.frames, bounds, 0.0)
        pseudo = None if batch.pseudo is None else self.cut_out(batch.pseudo, bounds, torch.nan)
        return dataclasses.replace(batch, frames=frames, pseudo=pseudo)
