"""State-offset tuning: a learnt offset of a scan's states."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_audio.model.adapters.adapter import Adapter
from ssl_audio.model.adapters.slots import modules_with

if TYPE_CHECKING:
    from ssl_audio.model.backbone import Backbone


class StateOffset(Adapter):
    """One offset for every scan, the same at every token, added to its states where they are read: C (h + offset).

    The counterpart of a prefix for encoders with scans: the effect of prefix tokens would decay along the scan.

    Raises:
        RecipeError: if the encoder has no scans.

    Source: arXiv 2503.03499 (State-offset Tuning, the variant (h)), which begins at zero.
    Differs: both directions of a bidirectional scan have an offset of their own.
    """

    apart = True

    def attach(self, backbone: "Backbone") -> None:
        scans = modules_with("StateOffset", backbone.encoder, "offsets", why="has no scan; use Prefix")
        self.parts = nn.ModuleList(_Offset(*scan.A_log.shape) for scan in scans)
        for scan, part in zip(scans, self.parts, strict=True):
            scan.offsets.append(part)


class _Offset(nn.Module):
    """That of one scan."""

    def __init__(self, inner: int, states: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(inner, states))

    def forward(self) -> Float[Tensor, "inner state"]:
        return self.offset
