"""Bottleneck adapters: down, GELU, up."""

import torch.nn.functional as F
from jaxtyping import Float
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor, nn

from ssl_audio.model.adapters.in_branches import InBranches
from ssl_audio.model.adapters.slots import Place
from ssl_audio.model.branch import Context
from ssl_audio.tokens import Tokens


class Bottleneck(InBranches):
    """One bottleneck a block in one of the encoder's branches.

    Published arrangements: parallel to the MLP (AAT's M, Pfeiffer parallel), after the mixer with a skip (AAT's S), in
    both branches (Houlsby: two of these), after the MLP with a skip (Pfeiffer sequential).

    Args:
        hidden: Channels in the middle.
        reduction: The same as the encoder's width over this, rounded; one of the two.
        branch: Name of the branch; see `InBranches`.
        place: In the branch; see `InBranches`.
        skip: Add what it reads to what it returns; by default for sequential places alone.

    Raises:
        RecipeError: if the sizes contradict one another, or the encoder has no such branch.

    Source: arXiv 2401.10544 (AAT: reduction 4, GELU, MichaelLynn1996/AAT@dc406ad); arXiv 1902.00751 (Houlsby); arXiv
        2005.00247 (Pfeiffer); arXiv 2312.03694 (parallel and sequential on AST).
    Differs: the second linear layer alone begins at zero; where both did (umbertocappellazzo/PETL_AST@1fe23af), only
        its bias could ever learn.
    """

    apart = True

    def __init__(
        self,
        *,
        hidden: PositiveInt | None = None,
        reduction: PositiveFloat | None = None,
        branch: str = "mlp",
        place: Place = "beside",
        skip: bool | None = None,
    ) -> None:
        super().__init__(hidden=hidden, reduction=reduction, branch=branch, place=place, skip=skip)

    def part(self, width: int, hidden: int) -> nn.Module:
        return _Neck(width, hidden=hidden)


class _Neck(nn.Module):
    """The bottleneck of one block; its second linear layer begins at zero."""

    def __init__(self, width: int, *, hidden: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, hidden)
        self.up = nn.Linear(hidden, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tokens, context: Context) -> Float[Tensor, "row token width"]:
        return self.up(F.gelu(self.down(tokens.states)))
