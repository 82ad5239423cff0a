"""Prompts: learnt tokens among those of every clip."""

import dataclasses
import math
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from ssl_audio.model.adapters.adapter import Adapter
from ssl_audio.model.adapters.slots import modules_with
from ssl_audio.model.layouts import clips_of_rows
from ssl_audio.tokens import PROMPT, Tokens, concatenate

if TYPE_CHECKING:
    from ssl_audio.model.backbone import Backbone


class Prompts(Adapter):
    """Learnt tokens for each clip, behind its row, which the encoder mixes with the others and does not return.

    Their `time` is `PROMPT`; their `band`, that or below, tells them apart.

    Args:
        count: Tokens a clip.
        deep: Fresh ones before every block in place of what the block before made of them; otherwise before the first
            block alone.

    Raises:
        RecipeError: if the encoder's mixers take no further keys and values: where the order of the tokens matters,
            there is no place for a token that has none.

    Source: arXiv 2203.12119 (visual prompts); arXiv 2312.03694 (on AST: shallow 300, deep 25).
    Differs: no class token is removed for them (umbertocappellazzo/PETL_AST@1fe23af drops the distillation token), and
        they replace no patch (MichaelLynn1996/AAT@dc406ad overwrites the first ones).
    """

    identity = False

    def __init__(self, *, count: PositiveInt, deep: bool = False) -> None:
        super().__init__()
        self.count = count
        self.deep = deep

    def attach(self, backbone: "Backbone") -> None:
        encoder = backbone.encoder
        modules_with(
            "Prompts",
            encoder,
            "prefixes",
            why="mixes tokens in their order and takes no keys and values besides theirs; use StateOffset",
        )
        self.depth = len(encoder.blocks)
        others = [change for change in encoder.before_block if isinstance(change, Prompts)]
        self.first = PROMPT - sum(other.count for other in others)
        self.prompts = nn.Parameter(torch.empty(self.depth if self.deep else 1, self.count, backbone.width))
        start_as_patches(self.prompts, backbone)
        encoder.before_block.append(self)

    def forward(self, number: int, tokens: Tokens) -> Tokens:
        """The tokens before a block, with prompts; behind the last block without."""
        if number == 0:
            return self._with_prompts(tokens)
        if number == self.depth:
            return self._without_prompts(tokens)
        return tokens.with_states(self._renewed(tokens, self.prompts[number])) if self.deep else tokens

    def _with_prompts(self, tokens: Tokens) -> Tokens:
        clips = clips_of_rows(tokens)
        rows, most = clips.shape
        clip = clips.repeat_interleave(self.count, dim=1)
        states = self.prompts[0].to(tokens.states.dtype).repeat(most, 1).expand(rows, -1, -1)
        band = self.first - torch.arange(self.count, device=clip.device).repeat(most).expand(rows, -1)
        prompts = Tokens(
            states=states,
            clip=clip,
            time=torch.full_like(clip, PROMPT),
            band=band,
            size=torch.ones_like(clip, dtype=torch.float32),
            whole=tokens.whole,
            clips=tokens.clips,
        )
        return concatenate(tokens, prompts)

    def _without_prompts(self, tokens: Tokens) -> Tokens:
        own = self._which(tokens)
        gone = self.count if tokens.whole else int(own[0].sum())
        order = own.to(torch.int8).argsort(dim=1, stable=True)
        # All that was there before, in its order: patches lie on the grid that they lay on.
        return dataclasses.replace(tokens.take(order[:, : order.shape[1] - gone]), grid=tokens.grid)

    def _renewed(self, tokens: Tokens, prompts: Float[Tensor, "prompt width"]) -> Float[Tensor, "row token width"]:
        """Wherever prompts stand, those of a block; chosen by a product, whose gradient adds up in a fixed order."""
        chosen = self._number(tokens)[..., None] == torch.arange(self.count, device=tokens.band.device)
        fresh = chosen.to(tokens.states.dtype) @ prompts.to(tokens.states.dtype)
        return torch.where(self._which(tokens)[..., None], fresh.to(tokens.states.dtype), tokens.states)

    def _which(self, tokens: Tokens) -> Bool[Tensor, "row token"]:
        number = self._number(tokens)
        return (tokens.time == PROMPT) & (number >= 0) & (number < self.count)

    def _number(self, tokens: Tokens) -> Int[Tensor, "row token"]:
        return self.first - tokens.band


def start_as_patches(parameter: nn.Parameter, backbone: "Backbone") -> None:
    """Draw vectors from the range that the embedding of a patch of three colours would begin in (published)."""
    bound = math.sqrt(6.0 / (3 * backbone.pixels + backbone.width))
    nn.init.uniform_(parameter, -bound, bound)
