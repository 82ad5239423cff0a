"""What a frontend is: waveform to spectrogram, lengths carried along."""

import dataclasses
from abc import ABC, abstractmethod
from typing import TypeVar

from jaxtyping import Float, Int
from torch import Tensor, nn

Count = TypeVar("Count", int, Tensor)
"""A number, or a tensor with one number a clip."""


@dataclasses.dataclass(frozen=True, slots=True)
class Spectrogram:
    """A batch of spectrograms.

    Args:
        values: Normalised, ready for a model; frames beyond a clip's end hold `fill`.
        frames: Valid frames of each clip.
        whole: Every clip fills all frames, so nothing need be masked.
        fill: What padding holds, in the units of `values`.
    """

    values: Float[Tensor, "clip frame bin"]
    frames: Int[Tensor, " clip"]
    whole: bool
    fill: float = 0.0

    def with_values(self, values: Float[Tensor, "clip frame bin"]) -> "Spectrogram":
        """The same clips with other values."""
        return dataclasses.replace(self, values=values)

    def repeat(self, times: int) -> "Spectrogram":
        """Each clip `times` times in a row."""
        if times == 1:
            return self
        return dataclasses.replace(
            self,
            values=self.values.repeat_interleave(times, dim=0),
            frames=self.frames.repeat_interleave(times, dim=0),
        )


class Frontend(nn.Module, ABC):
    """Waveform to spectrogram, on the device of the waveform.

    Attributes:
        bins: Values a frame.
        sample_rate: Samples per second it expects.
        hop_seconds: Time from one frame to the next.
        deviation: Standard deviation of the corpus; values are in units of twice this.
    """

    bins: int
    sample_rate: int
    hop_seconds: float
    deviation: float

    @abstractmethod
    def forward(
        self, waveforms: Float[Tensor, "clip sample"], samples: Int[Tensor, " clip"] | None = None
    ) -> Spectrogram:
        """Spectrograms of a batch.

        Args:
            waveforms: Mono, in [-1, 1]; what lies beyond a clip's end never influences its frames.
            samples: Valid samples of each clip; None means that every clip fills its row.

        Raises:
            AudioError: if the batch is too short for a single frame.
        """

    @abstractmethod
    def frames_of(self, samples: Count) -> Count:
        """How many frames so many samples give; of a tensor, elementwise."""
