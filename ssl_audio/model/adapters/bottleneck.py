"""Bottleneck adapters: down, GELU, up."""

from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F
from jaxtyping import Float
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor, nn

from ssl_audio.model.adapters.adapter import Adapter
from ssl_audio.model.adapters.sizes import hidden_channels
from ssl_audio.model.branch import Branch, Context, branches_named
from ssl_audio.tokens import Tokens

if TYPE_CHECKING:
    from ssl_audio.model.backbone import Backbone

Place = Literal["before", "beside", "after"]
"""Where an adapter stands in a branch: on what enters the transform, parallel to it, or on what leaves it."""


def slot(branch: Branch, place: Place) -> list:
    """The list of parts of a branch at a place."""
    return {"before": branch.before, "beside": branch.beside, "after": branch.after}[place]


class Bottleneck(Adapter):
    """One bottleneck a block in one of the encoder's branches.

    Published arrangements: parallel to the MLP (AAT's M, Pfeiffer parallel), after the mixer with a skip (AAT's S), in
    both branches (Houlsby: two of these), after the MLP with a skip (Pfeiffer sequential).

    Args:
        hidden: Channels in the middle.
        reduction: The same as the encoder's width over this, rounded; one of the two.
        branch: Name of the branch: `mixer`, or the Transformer's `mlp`.
        place: `beside` the transform (parallel: reads the normalised input, is added to the output), `after` it or
            `before` it (sequential: reads and replaces the output, or the normalised input).
        skip: Add what it reads to what it returns; by default for sequential places alone.

    Source: arXiv 2401.10544 (AAT: reduction 4, GELU, MichaelLynn1996/AAT@dc406ad); arXiv 1902.00751 (Houlsby); arXiv
        2005.00247 (Pfeiffer); arXiv 2312.03694 (parallel and sequential on AST).
    Differs: the second linear layer alone begins at zero; where both did (umbertocappellazzo/PETL_AST@1fe23af), only
        its bias could ever learn.
    """

    def __init__(
        self,
        *,
        hidden: PositiveInt | None = None,
        reduction: PositiveFloat | None = None,
        branch: str = "mlp",
        place: Place = "beside",
        skip: bool | None = None,
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.reduction = reduction
        self.branch = branch
        self.place: Place = place
        self.skip = place != "beside" if skip is None else skip

    def attach(self, backbone: "Backbone") -> None:
        branches = branches_named(backbone.encoder.branches(), self.branch)
        hidden = hidden_channels(backbone.width, hidden=self.hidden, reduction=self.reduction, who="Bottleneck")
        self.parts = nn.ModuleList(_Neck(backbone.width, hidden=hidden, skip=self.skip) for _ in branches)
        for branch, part in zip(branches, self.parts, strict=True):
            slot(branch, self.place).append(part)


class _Neck(nn.Module):
    """The bottleneck of one block; its second linear layer begins at zero."""

    def __init__(self, width: int, *, hidden: int, skip: bool) -> None:
        super().__init__()
        self.down = nn.Linear(width, hidden)
        self.up = nn.Linear(hidden, width)
        self.skip = skip
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tokens, context: Context) -> Float[Tensor, "row token width"]:
        added = self.up(F.gelu(self.down(tokens.states)))
        return tokens.states + added if self.skip else added
