"""Prefix tuning: learnt keys and values beside those of the tokens."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from ssl_audio.model.adapters.adapter import Adapter
from ssl_audio.model.adapters.prompts import start_as_patches
from ssl_audio.model.adapters.slots import modules_with

if TYPE_CHECKING:
    from ssl_audio.model.backbone import Backbone


class Prefix(Adapter):
    """Learnt keys and values that every token of every attention sees; the tokens stay as many as they are.

    Args:
        count: Keys, and as many values, of each attention.

    Raises:
        RecipeError: if the encoder has no attention.

    Source: arXiv 2101.00190; arXiv 2312.03694 (on AST: 12 keys and 12 values, without a network that makes them).
    """

    identity = False
    apart = True

    def __init__(self, *, count: PositiveInt) -> None:
        super().__init__()
        self.count = count

    def attach(self, backbone: "Backbone") -> None:
        attentions = modules_with(
            "Prefix", backbone.encoder, "prefixes", why="has no attention to take keys and values; use StateOffset"
        )
        self.parts = nn.ModuleList(_KeysAndValues(self.count, backbone) for _ in attentions)
        for attention, part in zip(attentions, self.parts, strict=True):
            attention.prefixes.append(part)


class _KeysAndValues(nn.Module):
    """Those of one attention."""

    def __init__(self, count: int, backbone: "Backbone") -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.empty(count, backbone.width))
        self.values = nn.Parameter(torch.empty(count, backbone.width))
        start_as_patches(self.keys, backbone)
        start_as_patches(self.values, backbone)

    def forward(self) -> tuple[Float[Tensor, "prefix width"], Float[Tensor, "prefix width"]]:
        return self.keys, self.values
