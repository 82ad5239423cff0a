"""Mixtures of bottleneck adapters: every token through all of them, or all of them on weighted means of the tokens."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor, nn

from ssl_audio.model.adapters.in_branches import InBranches
from ssl_audio.model.adapters.slots import Place
from ssl_audio.model.branch import Context
from ssl_audio.model.layouts import one_clip_a_row
from ssl_audio.tokens import Tokens


class DenseMixture(InBranches):
    """Each token through all bottlenecks, weighted by a softmax over them that a linear router gives (Dense-MoA).

    Args:
        experts: How many bottlenecks.
        hidden: Channels in the middle of each.
        reduction: The same as the encoder's width over this, rounded; one of the two.
        branch: Name of the branch; see `InBranches`.
        place: In the branch; see `InBranches`.
        skip: Add what it reads to what it returns; by default for sequential places alone.

    Raises:
        RecipeError: if the sizes contradict one another, or the encoder has no such branch.

    Source: arXiv 2402.00828 section 3 (parallel to the attention); umbertocappellazzo/PETL_AST@1fe23af `MoA.py`.
    Differs: the second linear layers alone begin at zero.
    """

    def __init__(
        self,
        *,
        experts: PositiveInt = 7,
        hidden: PositiveInt | None = None,
        reduction: PositiveFloat | None = None,
        branch: str = "mixer",
        place: Place = "beside",
        skip: bool | None = None,
    ) -> None:
        super().__init__(hidden=hidden, reduction=reduction, branch=branch, place=place, skip=skip)
        self.experts = experts

    def part(self, width: int, hidden: int) -> nn.Module:
        return _Dense(width, hidden=hidden, experts=self.experts)


class SoftMixture(InBranches):
    """All bottlenecks on weighted means of a clip's tokens (Soft-MoA).

    Each bottleneck has `slots` inputs, each the mean of the clip's tokens by a softmax over them; each token gets the
    mean of all outputs by a softmax over those. Both softmaxes are of the same products of tokens and learnt vectors.

    Args:
        experts: How many bottlenecks.
        slots: Inputs of each.
        hidden: Channels in the middle of each.
        reduction: The same as the encoder's width over this, rounded; one of the two.
        branch: Name of the branch; see `InBranches`.
        place: In the branch; see `InBranches`.
        skip: Add what it reads to what it returns; by default for sequential places alone.

    Raises:
        RecipeError: if the sizes contradict one another, or the encoder has no such branch.

    Source: arXiv 2402.00828 section 3 (parallel to the attention, 7 adapters with one slot each, reduction 128);
        umbertocappellazzo/PETL_AST@1fe23af `SoftMoA`; arXiv 2308.00951 (Soft MoE).
    Differs: the second linear layers alone begin at zero; padding and other clips are in no mean.
    """

    def __init__(
        self,
        *,
        experts: PositiveInt = 7,
        slots: PositiveInt = 1,
        hidden: PositiveInt | None = None,
        reduction: PositiveFloat | None = None,
        branch: str = "mixer",
        place: Place = "beside",
        skip: bool | None = None,
    ) -> None:
        super().__init__(hidden=hidden, reduction=reduction, branch=branch, place=place, skip=skip)
        self.experts = experts
        self.slots = slots

    def part(self, width: int, hidden: int) -> nn.Module:
        return _Soft(width, hidden=hidden, experts=self.experts, slots=self.slots)


class _Dense(nn.Module):
    """One wide bottleneck whose hidden channels are weighted in groups, which is the mixture of narrow ones."""

    def __init__(self, width: int, *, hidden: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts)
        self.down = nn.Linear(width, experts * hidden)
        self.up = nn.Parameter(torch.zeros(experts * hidden, width))
        self.up_bias = nn.Parameter(torch.zeros(experts, width))
        self.experts = experts

    def forward(self, tokens: Tokens, context: Context) -> Float[Tensor, "row token width"]:
        share = self.router(tokens.states).softmax(dim=-1)
        narrow = F.gelu(self.down(tokens.states)).unflatten(-1, (self.experts, -1))
        return (narrow * share[..., None]).flatten(2) @ self.up + share @ self.up_bias


class _Soft(nn.Module):
    """The mixture of one block."""

    def __init__(self, width: int, *, hidden: int, experts: int, slots: int) -> None:
        super().__init__()
        self.slots = nn.Parameter(torch.empty(width, experts, slots))
        self.down = nn.Parameter(torch.empty(experts, width, hidden))
        self.down_bias = nn.Parameter(torch.empty(experts, 1, hidden))
        self.up = nn.Parameter(torch.zeros(experts, hidden, width))
        self.up_bias = nn.Parameter(torch.zeros(experts, 1, width))
        nn.init.xavier_normal_(self.slots)
        for parameter in (self.down, self.down_bias):  # as torch.nn.Linear begins
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5)

    def forward(self, tokens: Tokens, context: Context) -> Float[Tensor, "row token width"]:
        layout = one_clip_a_row(tokens)
        states, filled = layout.lay(tokens.states), layout.filled()
        scores = (states @ self.slots.flatten(1)).float()
        seen = scores if filled is None else scores.masked_fill(~filled[..., None], torch.finfo(scores.dtype).min / 2)
        read = seen.softmax(dim=1).to(states.dtype).transpose(1, 2) @ states  # clip, slot of all experts, width
        mixed = self._experts(read).to(states.dtype)
        return layout.back(scores.softmax(dim=2).to(states.dtype) @ mixed)

    def _experts(self, read: Float[Tensor, "clip slot width"]) -> Float[Tensor, "clip slot width"]:
        clips, experts = len(read), len(self.down)
        # One batch of products for all experts: expert, (clip, its slots), width.
        each = read.view(clips, experts, -1, read.shape[2]).transpose(0, 1).flatten(1, 2)
        narrow = F.gelu(each @ self.down + self.down_bias)
        wide = narrow @ self.up + self.up_bias
        return wide.unflatten(1, (clips, -1)).transpose(0, 1).flatten(1, 2)
