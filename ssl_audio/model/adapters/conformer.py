"""The Conformer adapter: a gated depthwise convolution along the tokens of each clip."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor, nn

from ssl_audio.errors import RecipeError
from ssl_audio.model.adapters.in_branches import InBranches
from ssl_audio.model.adapters.slots import Place
from ssl_audio.model.branch import Context
from ssl_audio.model.layouts import one_clip_a_row
from ssl_audio.tokens import Tokens


class Conformer(InBranches):
    """The convolution module of a Conformer, one a block in one of the encoder's branches.

    The convolution runs along the tokens of a clip as they stand, class tokens and prompts included, and sees zeros
    beyond their ends.

    Args:
        hidden: Channels of the convolution.
        reduction: The same as the encoder's width over this, rounded; one of the two.
        kernel: Tokens that the convolution sees; odd.
        branch: Name of the branch; see `InBranches`.
        place: In the branch; see `InBranches`.
        skip: Add what it reads to what it returns; by default for sequential places alone.

    Raises:
        RecipeError: if the kernel is even, the sizes contradict one another, or the encoder has no such branch.

    Source: arXiv 2312.03694 (parallel to the MLP, kernel 31, reduction 96 or 64); arXiv 2005.08100 section 2.2.
    Differs: the last layer begins at zero; the layer norm is used (umbertocappellazzo/PETL_AST@1fe23af computes it and
        passes on what was not normalised); padding and other clips are out of the convolution and of the statistics.
    """

    ordered = True

    def __init__(
        self,
        *,
        hidden: PositiveInt | None = None,
        reduction: PositiveFloat | None = None,
        kernel: PositiveInt = 31,
        branch: str = "mlp",
        place: Place = "beside",
        skip: bool | None = None,
    ) -> None:
        super().__init__(hidden=hidden, reduction=reduction, branch=branch, place=place, skip=skip)
        if kernel % 2 == 0:
            raise RecipeError(f"Conformer: kernel is {kernel}; expected an odd number, so that it has a middle")
        self.kernel = kernel

    def part(self, width: int, hidden: int) -> nn.Module:
        return ConvolutionModule(width, hidden=hidden, kernel=self.kernel)


class ConvolutionModule(nn.Module):
    """Layer norm, pointwise, GLU, depthwise, batch norm, SiLU, pointwise; the last begins at zero."""

    def __init__(self, width: int, *, hidden: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, 2 * hidden)
        self.depthwise = nn.Conv1d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden)
        self.batch_norm = TokenBatchNorm(hidden)
        self.out = nn.Linear(hidden, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, tokens: Tokens, context: Context) -> Float[Tensor, "row token width"]:
        gated = F.glu(self.into(self.norm(tokens.states)), dim=-1)
        layout = one_clip_a_row(tokens)
        convolved = self.depthwise(layout.lay(gated).transpose(1, 2)).transpose(1, 2)
        kept = None if tokens.whole else tokens.clip >= 0
        return self.out(F.silu(self.batch_norm(layout.back(convolved), kept)))


class TokenBatchNorm(nn.BatchNorm1d):
    """Batch norm over the tokens that are kept: padding is in no statistic.

    Under activation recomputation the running statistics move in the first pass alone.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.share = 0.1  # of the newest batch in the running statistics

    def forward(  # type: ignore[override]
        self, states: Float[Tensor, "row token channel"], kept: Bool[Tensor, "row token"] | None
    ) -> Float[Tensor, "row token channel"]:
        states = states.float()
        mean, variance = self.running_mean, self.running_var
        if self.training:
            weight = states.new_ones(states.shape[:2]) if kept is None else kept.to(states.dtype)
            count = weight.sum().clamp_min(1.0)
            mean = (weight[..., None] * states).sum(dim=(0, 1)) / count
            variance = (weight[..., None] * (states - mean).square()).sum(dim=(0, 1)) / count
            if not _computing_again():
                self._move(mean.detach(), variance.detach() * count / (count - 1.0).clamp_min(1.0))
        return (states - mean) * (variance + self.eps).rsqrt() * self.weight + self.bias

    def _move(self, mean: Float[Tensor, " channel"], variance: Float[Tensor, " channel"]) -> None:
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.share)
            self.running_var.lerp_(variance, self.share)
            self.num_batches_tracked.add_(1)


def _computing_again() -> bool:
    """Whether this is the second pass of activation recomputation, which runs within the backward pass.

    torch.compile moves each buffer once, however often it computes what goes into it.
    """
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
