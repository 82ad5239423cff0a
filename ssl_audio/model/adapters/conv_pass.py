"""ConvPass: a bottleneck with a convolution on the (band, time) grid."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from jsonargparse.typing import ClosedUnitInterval, PositiveFloat, PositiveInt
from torch import Tensor, nn

from ssl_audio.model.adapters.in_branches import InBranches
from ssl_audio.model.adapters.slots import Place
from ssl_audio.model.branch import Context
from ssl_audio.model.layouts import on_grid
from ssl_audio.tokens import Tokens


class ConvPass(InBranches):
    """Down, QuickGELU, a 3 × 3 convolution over bands and columns, QuickGELU, up; one a block in one of the branches.

    Class tokens and prompts go through the same convolution, each on a grid of its own with one place. Where patches
    were left out or merged there is no grid, and the forward pass ends in a `LayoutError`.

    Args:
        hidden: Channels of the convolution; 32 unless `reduction` is given.
        reduction: The same as the encoder's width over this, rounded.
        dropout: Of what comes out of the convolution, in training.
        branch: Name of the branch; see `InBranches`. Published: one in each branch, so two of these.
        place: In the branch; see `InBranches`.
        skip: Add what it reads to what it returns; by default for sequential places alone.

    Raises:
        RecipeError: if the sizes contradict one another, or the encoder has no such branch.

    Source: arXiv 2302.14314; NMS05/Adapter-Incremental-Continual-Learning-AST@3d28c67 `pet_modules.py` (hidden 32 in
        all its procedures, 64 in the constructor).
    """

    def __init__(
        self,
        *,
        hidden: PositiveInt | None = None,
        reduction: PositiveFloat | None = None,
        dropout: ClosedUnitInterval = 0.1,
        branch: str = "mlp",
        place: Place = "beside",
        skip: bool | None = None,
    ) -> None:
        super().__init__(
            hidden=32 if hidden is None and reduction is None else hidden,
            reduction=reduction,
            branch=branch,
            place=place,
            skip=skip,
        )
        self.dropout = float(dropout)

    def part(self, width: int, hidden: int) -> nn.Module:
        return _GridNeck(width, hidden=hidden, dropout=self.dropout)


class _GridNeck(nn.Module):
    """The part of one block; what goes up begins at zero."""

    def __init__(self, width: int, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.down = nn.Linear(width, hidden)
        self.convolution = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Linear(hidden, width)
        for layer in (self.down, self.convolution, self.up):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.up.weight)

    def forward(self, tokens: Tokens, context: Context) -> Float[Tensor, "row token width"]:
        layout = on_grid(tokens, who="ConvPass")
        narrow = _quick_gelu(self.down(tokens.states))
        laid = self.convolution(layout.lay(narrow).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        # A grid with one place: all but the middle of the kernel sees nothing.
        alone = F.linear(narrow, self.convolution.weight[:, :, 1, 1], self.convolution.bias)
        convolved = torch.where(tokens.is_patch()[..., None], layout.back(laid), alone)
        return self.up(self.dropout(_quick_gelu(convolved)))


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)
