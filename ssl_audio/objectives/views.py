"""How the views of a clip are made to differ, so that matching them asks for more than level and colour."""

import dataclasses

from jaxtyping import Int
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat
from torch import Tensor

from ssl_audio.audio.augment import band_shift, gain, overlay, tilt, zoom
from ssl_audio.audio.frontend import Spectrogram


@dataclasses.dataclass(frozen=True, slots=True)
class Views:
    """Random changes of recording and voice, drawn again for every view.

    Args:
        gain_db: Largest change of level, either way.
        tilt_db: Largest gain of the highest bin and loss of the lowest, or the reverse.
        shift_bins: Largest shift along the mel axis, either way: a cheap change of vocal tract or pitch.
        shortest: Share of the clip that the shortest stretch keeps, which is then slowed down to full length; 1 keeps
            it all.
        background: Largest share of another clip's power laid under a view.
    """

    gain_db: NonNegativeFloat = 0.0
    tilt_db: NonNegativeFloat = 0.0
    shift_bins: NonNegativeFloat = 0.0
    shortest: ClosedUnitInterval = 1.0
    background: ClosedUnitInterval = 0.0

    def apply(self, spectrogram: Spectrogram, seeds: Int[Tensor, " clip"], *, std: float) -> Spectrogram:
        """Changed spectrograms.

        Args:
            spectrogram: Normalised by ``2 * std``.
            seeds: One a view.
            std: Standard deviation that the frontend normalised with, in natural-log units.
        """
        values = spectrogram.values
        if self.shortest < 1.0:
            values = zoom(values, seeds, smallest=self.shortest, frames=spectrogram.frames)
        if self.background:
            # The views of a clip lie next to each other: half a batch away is another clip.
            partners = values.roll(len(values) // 2, dims=0)
            values = overlay(values, seeds, partners=partners, largest=self.background, std=std)
        if self.gain_db:
            values = gain(values, seeds, max_db=self.gain_db, std=std)
        if self.tilt_db:
            values = tilt(values, seeds, max_db=self.tilt_db, std=std)
        if self.shift_bins:
            values = band_shift(values, seeds, max_bins=self.shift_bins)
        return spectrogram.with_values(values)
