"""The convolutional and the recurrent part of DCASE's baseline for sound events."""

import dataclasses
import functools
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from jsonargparse.typing import ClosedUnitInterval, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ssl_audio.errors import RecipeError


@dataclasses.dataclass(frozen=True)
class CnnOptions:
    """Options of the convolutions.

    Args:
        input: `own`: the mel spectrogram that they were published with; `backbone`: that of the backbone.
        channels: Of each layer.
        time_pooling: Frames that become one after each layer.
        band_pooling: Bins that become one after each layer.
        dropout: Share of the values that is dropped after each layer.
        rate: Factor of the learning rate, beside that of the objective.
        input_pooling: Frames and bins of the spectrogram whose mean becomes one before the first layer. The layers'
            cost falls by the product; frames as published need (1, 1).

    Source: CPJKU/cpjku_dcase24@9b5cb78 (626 frames become 156).
    """

    input: Literal["own", "backbone"] = "own"
    channels: tuple[PositiveInt, ...] = (16, 32, 64, 128, 128, 128, 128)
    time_pooling: tuple[PositiveInt, ...] = (2, 2, 1, 1, 1, 1, 1)
    band_pooling: tuple[PositiveInt, ...] = (2, 2, 2, 2, 2, 2, 2)
    dropout: ClosedUnitInterval = 0.3
    rate: PositiveFloat = 1.0
    input_pooling: tuple[PositiveInt, PositiveInt] = (1, 1)


class Draws:
    """A source of random numbers that several modules share, seeded again in every step."""

    def __init__(self) -> None:
        self.generator: torch.Generator | None = None

    def begin(self, seed: int, device: torch.device) -> None:
        """Numbers from a seed on."""
        if self.generator is None or self.generator.device != device:
            self.generator = torch.Generator(device)
        self.generator.manual_seed(seed)

    def __deepcopy__(self, memo: object) -> "Draws":
        return Draws()


class Dropout(nn.Module):
    """Dropout whose draws depend on the seeds of a batch and on nothing else.

    Args:
        share: That is dropped.
        draws: Where the draws come from.
    """

    def __init__(self, share: float, draws: Draws) -> None:
        super().__init__()
        self.share = float(share)
        self.draws = draws

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or not self.share:
            return values
        kept = torch.empty_like(values).bernoulli_(1.0 - self.share, generator=self.draws.generator)
        return values * kept / (1.0 - self.share)


class ContextGating(nn.Module):
    """Each channel times a gate that all channels of its place decide.

    Args:
        channels: How many.

    Source: arXiv 1706.06905 section 3.2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)

    def forward(self, values: Float[Tensor, "clip channel frame bin"]) -> Float[Tensor, "clip channel frame bin"]:
        gates = self.linear(values.permute(0, 2, 3, 1)).sigmoid().permute(0, 3, 1, 2)
        return values * gates


class Cnn(nn.Module):
    """Layers of convolution, batch norm, context gating, dropout and average pooling.

    Args:
        options: Sizes.
        draws: For dropout.

    Raises:
        RecipeError: if the options of layers differ in number.

    Source: CPJKU/cpjku_dcase24@9b5cb78 (batch norm with eps 1e-3 and momentum .99).
    Differs: what lies behind a clip's end is zero in every layer, so that a clip does not depend on its neighbours.
    """

    def __init__(self, options: CnnOptions, draws: Draws) -> None:
        super().__init__()
        sizes = [options.channels, options.time_pooling, options.band_pooling]
        if not options.channels or len({len(size) for size in sizes}) != 1:
            raise RecipeError(
                f"head.cnn: {len(sizes[0])} channels, {len(sizes[1])} time_pooling and {len(sizes[2])} band_pooling; "
                "expected one of each for every layer"
            )
        self.pooling = list(zip(options.time_pooling, options.band_pooling, strict=True))
        self.input_pooling = tuple(options.input_pooling)
        inputs = (1, *options.channels[:-1])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in zip(inputs, options.channels, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, eps=1e-3, momentum=0.99) for width in options.channels)
        self.gates = nn.ModuleList(ContextGating(width) for width in options.channels)
        self.dropout = Dropout(options.dropout, draws)
        self.width = options.channels[-1]

    @property
    def frames_in_one(self) -> int:
        """Frames of the spectrogram that become one."""
        return functools.reduce(lambda product, step: product * step[0], self.pooling, self.input_pooling[0])

    def forward(
        self, values: Float[Tensor, "clip frame bin"], frames: Int[Tensor, " clip"] | None
    ) -> tuple[Float[Tensor, "clip step channel"], Int[Tensor, " clip"] | None]:
        """One vector a frame, and how many each clip has.

        Args:
            values: A spectrogram.
            frames: Valid frames of each clip; None means that all are.
        """
        # Channels last in memory, so that gates read them without a copy.
        found = values[:, None].contiguous(memory_format=torch.channels_last)
        if self.input_pooling != (1, 1):
            found = F.avg_pool2d(found, self.input_pooling)
            frames = None if frames is None else frames // self.input_pooling[0]
        layers = zip(self.convolutions, self.norms, self.gates, self.pooling, strict=True)
        for convolution, norm, gate, (time, band) in layers:
            found = self.dropout(gate(norm(convolution(_cut(found, frames)))))
            found = F.avg_pool2d(found, (time, min(band, found.shape[3])))
            frames = None if frames is None else frames // time
        return _cut(found, frames).mean(dim=3).transpose(1, 2), frames


def _cut(values: Tensor, frames: Tensor | None) -> Tensor:
    """Zero behind each clip's end."""
    if frames is None:
        return values
    inside = torch.arange(values.shape[2], device=values.device)[None, :] < frames[:, None]
    return values * inside[:, None, :, None]


class BiGru(nn.Module):
    """Recurrent layers in both directions over the frames of each clip.

    Args:
        inputs: Channels of a frame.
        width: Channels of each direction.
        layers: How many.
        dropout: Share of the values that is dropped after the layers.
        draws: For dropout.
    """

    def __init__(self, inputs: int, *, width: int, layers: int, dropout: float, draws: Draws) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, width, num_layers=layers, batch_first=True, bidirectional=True)
        self.dropout = Dropout(dropout, draws)
        self.width = 2 * width

    def forward(
        self, states: Float[Tensor, "clip frame channel"], frames: Int[Tensor, " clip"] | None
    ) -> Float[Tensor, "clip frame width"]:
        """States that know of all frames of their clip.

        Args:
            states: One vector a frame.
            frames: Valid frames of each clip; None means that all are.
        """
        with torch.autocast(states.device.type, enabled=False):
            if frames is None:
                return self.dropout(self.gru(states.float())[0])
            packed = pack_padded_sequence(
                states.float(), frames.clamp_min(1).cpu(), batch_first=True, enforce_sorted=False
            )
            found, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=states.shape[1])
        return self.dropout(found)
