"""What a frontend is: waveform to spectrogram, lengths carried along."""

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ssl_audio.errors import AudioError, RecipeError

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
        hops: Seconds from one frame of each clip to the next, where clips differ; None where all have the frontend's.
        waveforms: What it was made of, for parts with a frontend of their own; None where that is not known.
        samples: Valid samples of each waveform; None means that all are full.
        beside: The same clips through another frontend, where a part that needs it has computed it.
    """

    values: Float[Tensor, "clip frame bin"]
    frames: Int[Tensor, " clip"]
    whole: bool
    fill: float = 0.0
    hops: Float[Tensor, " clip"] | None = None
    waveforms: Float[Tensor, "clip sample"] | None = None
    samples: Int[Tensor, " clip"] | None = None
    beside: "Spectrogram | None" = None

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
            hops=None if self.hops is None else self.hops.repeat_interleave(times, dim=0),
            waveforms=None if self.waveforms is None else self.waveforms.repeat_interleave(times, dim=0),
            samples=None if self.samples is None else self.samples.repeat_interleave(times, dim=0),
            beside=None if self.beside is None else self.beside.repeat(times),
        )


class FrameStream(ABC):
    """Frames of one endless sound, the same in whatever blocks it comes."""

    @abstractmethod
    def feed(self, waveform: Float[Tensor, " sample"]) -> Float[Tensor, "frame bin"]:
        """The frames that the next samples complete, normalised as `Frontend.forward` gives them; often none."""


class Frontend(nn.Module, ABC):
    """Waveform to spectrogram, on the device of the waveform, normalised with the statistics of a corpus.

    Attributes:
        bins: Values a frame.
        sample_rate: Samples per second it expects.
        hop_seconds: Time from one frame to the next.
        deviation: Values are natural-log power in units of twice this.
        statistics: Mean and standard deviation to normalise with, in the units of `unnormalised`; the buffers `mean`
            and `std` hold them too.
    """

    bins: int
    sample_rate: int
    hop_seconds: float
    deviation: float
    statistics: tuple[float, float]
    mean: Tensor
    std: Tensor

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

    @abstractmethod
    def unnormalised(
        self, waveforms: Float[Tensor, "clip sample"], samples: Int[Tensor, " clip"] | None = None
    ) -> Spectrogram:
        """The same before normalisation: what the statistics of a corpus are taken of; see `forward`."""

    def spectrum(self, spectrogram: Spectrogram) -> Spectrogram:
        """The normalised logarithmic spectrum, bin by bin, of what `forward` gave: that itself, or, where values are a
        transform of it, what can be had back.
        """
        return spectrogram

    def through_spectrum(self, spectrogram: Spectrogram, change: Callable[[Spectrogram], Spectrogram]) -> Spectrogram:
        """What `forward` would give of a changed spectrum: for changes that are of levels in bins.

        Args:
            spectrogram: As `forward` gave it.
            change: From `spectrum` to another one.
        """
        return change(spectrogram)

    def begin(self) -> FrameStream:
        """Frames of sound that comes in blocks.

        Raises:
            RecipeError: if the frames of this frontend depend on what is still to come.
        """
        raise RecipeError(
            f"{type(self).__name__}: its frames depend on the whole clip, and a stream has no end; expected Fbank"
        )

    def at_hop(self, hop_seconds: float) -> "Frontend":
        """The same frontend with another time from one frame to the next; it shares the buffers.

        Raises:
            RecipeError: if this frontend has no hop that can be changed, or a hop would be no whole sample.
        """
        samples = int(self.sample_rate * hop_seconds + 1e-6)
        if not hasattr(self, "hop_samples") or samples < 1:
            raise RecipeError(f"{type(self).__name__} cannot have a hop of {hop_seconds:g} s")
        found = copy.copy(self)
        found.hop_samples = samples  # type: ignore[assignment]
        found.hop_seconds = samples / self.sample_rate
        return found

    def register_statistics(self, mean: float, std: float) -> None:
        """Make the buffers `mean` and `std`; called by the constructor."""
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))
        # Kept as numbers too: to read them from a device in every step would stall it.
        self.statistics = (mean, std)

    def set_statistics(self, mean: float, std: float) -> None:
        """Normalise with these from now on."""
        self.load_state_dict({**self.state_dict(), "mean": torch.tensor(mean), "std": torch.tensor(std)})

    def normalised(self, raw: Spectrogram, *, deviations: float) -> Spectrogram:
        """Unnormalised values, in place, less the mean and in units of so many deviations."""
        mean, std = self.statistics
        raw.values.sub_(mean).div_(deviations * std)
        fill = float((torch.tensor(raw.fill) - mean) / (deviations * std))
        return dataclasses.replace(raw, fill=fill)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frontend":
        """Follow the model to another device, but never into half precision, which ruins a logarithm."""

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if moved.dtype != tensor.dtype else moved

        return super()._apply(move, recurse)

    def _load_from_state_dict(self, *args: Any) -> None:
        """A checkpoint's statistics replace the constructor's."""
        super()._load_from_state_dict(*args)
        self.statistics = (float(self.mean), float(self.std))


def checked_lengths(
    waveforms: Float[Tensor, "clip sample"], samples: Int[Tensor, " clip"] | None, *, least: int, sample_rate: int
) -> list[int]:
    """The lengths of clips as numbers, as far as they are known without asking a device; empty where they are not.

    Args:
        waveforms: A batch.
        samples: Valid samples of each; None means that every clip fills its row.
        least: Samples that one frame needs.
        sample_rate: For the message.

    Raises:
        AudioError: if a clip is shorter than one frame, or claims more samples than its row has.
    """
    width = waveforms.shape[1]
    lengths = samples.tolist() if samples is not None and samples.device.type == "cpu" else []
    for clip, length in enumerate([width, *lengths]):
        if length < least:
            which = f"clip {clip - 1} of the batch" if clip else "a batch of waveforms"
            raise AudioError(
                f"{which} has {length} samples, less than one frame of {least} ({1000 * least / sample_rate:g} ms): "
                "drop or lengthen it"
            )
        if length > width:
            raise AudioError(f"clip {clip - 1} of the batch claims {length} samples, its row has {width}")
    return lengths
