"""Token states of an endless sound that comes in blocks, equal to those of a whole pass."""

import dataclasses
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.patches import cut
from ssl_audio.tokens import Tokens

_MOST_SECONDS = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class Columns:
    """The next patch columns of a stream.

    Args:
        tokens: Of one row, in the order of time, in their final states.
        layers: The same behind each block, before the final norm.
        first: Number of the first column.
        count: How many columns these are.
    """

    tokens: Tokens
    layers: list[Tokens]
    first: int
    count: int


def refusal(backbone: Backbone) -> str | None:
    """Why a stream through this backbone could not equal a whole pass, in one line; None if it does."""
    encoder = backbone.encoder
    name = type(encoder).__name__
    pattern = getattr(encoder, "pattern", None)
    if pattern is not None:
        return f"the pattern {type(pattern).__name__} sees the whole clip; an exact stream needs pattern null"
    if encoder.stream_columns is None:
        return (
            f"the tokens of this {name} see the whole clip; an exact stream needs an encoder with chunk, or a BiMamba "
            "with forward_only"
        )
    if backbone.fixed_frames is not None:
        return f"fixed_frames={backbone.fixed_frames} cuts or pads every clip; an exact stream needs null"
    if len(backbone.class_tokens):
        return f"{len(backbone.class_tokens)} class tokens see the whole clip; an exact stream needs class_tokens 0"
    if backbone.positions.rule != "repeat":
        return (
            f"the {type(backbone.positions).__name__} say where in a clip a patch is (position_rule: "
            f"{backbone.positions.rule}); an exact stream needs position_rule repeat"
        )
    if backbone.merging.r:
        return f"merging of {backbone.merging.r} tokens a block looks at whole clips; an exact stream needs r: 0"
    for adapter in backbone.adapters:
        if not adapter.apart:
            return f"the adapter {type(adapter).__name__} mixes tokens; an exact stream needs one that does not"
    try:
        backbone.frontend.begin()
    except RecipeError as error:
        return str(error)
    return None


class BackboneStream:
    """One endless sound through a backbone; blocks of any size give the states of a whole pass to rounding.

    Memory does not grow: the frontend keeps the samples and frames that complete no patch column yet, the encoder what
    `Encoder.begin` says.

    Args:
        backbone: In evaluation mode.

    Raises:
        RecipeError: if it cannot be given a stream; the message says why.
    """

    def __init__(self, backbone: Backbone) -> None:
        reason = refusal(backbone)
        if reason is not None:
            raise RecipeError(reason)
        self.backbone = backbone
        self.frames = backbone.frontend.begin()
        self.past = backbone.encoder.begin()
        self.together = backbone.encoder.stream_columns or 1
        self.columns = 0
        self._waiting = torch.zeros(0, backbone.frontend.bins, device=backbone.embedding.weight.device)

    def feed(self, waveform: Float[Tensor, " sample"]) -> Iterator[Columns]:
        """The columns that the next samples complete.

        Args:
            waveform: At the frontend's rate; long blocks are computed in parts, so that memory stays as it is.
        """
        for part in waveform.split(max(1, round(_MOST_SECONDS * self.backbone.frontend.sample_rate))):
            self._waiting = torch.cat([self._waiting, self.frames.feed(part)])
            ready = self._columns_waiting() // self.together * self.together
            if ready:
                yield self._advance(ready)

    def finish(self) -> Iterator[Columns]:
        """The columns of a chunk that the sound ended in."""
        ready = self._columns_waiting()
        if ready:
            yield self._advance(ready)

    def _columns_waiting(self) -> int:
        backbone = self.backbone
        return max(0, (len(self._waiting) - backbone.patch[1]) // backbone.stride[1] + 1)

    @torch.inference_mode()
    def _advance(self, count: int) -> Columns:
        backbone = self.backbone
        frames = (count - 1) * backbone.stride[1] + backbone.patch[1]
        values = self._waiting[None, :frames]
        self._waiting = self._waiting[count * backbone.stride[1] :].clone()
        patches = cut(
            Spectrogram(values, torch.tensor([frames]), whole=True), shape=backbone.patch, stride=backbone.stride
        )
        order = patches.time[0].argsort(stable=True)
        band, time = patches.band[:, order], patches.time[:, order] + self.columns
        table = backbone.positions.table
        states = backbone.embedding(patches.pixels[:, order]) + table[band, time % table.shape[1]]
        tokens = Tokens(
            states=states,
            clip=torch.zeros_like(time),
            time=time,
            band=band,
            size=torch.ones_like(time, dtype=torch.float32),
            whole=True,
            clips=1,
        )
        layers = list(backbone.encoder.proceed(tokens, self.past))
        first, self.columns = self.columns, self.columns + count
        return Columns(backbone.encoder.normalise(layers[-1]), layers, first, count)
