"""What every way of computing the selective scan takes and gives."""

import dataclasses
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The inputs of a scan, without the gate: that is applied outside, the same for every backend.

    Args:
        u: What is fed in.
        dt: Step sizes; before the bias and softplus if there are any.
        A: Rates of decay, negative. Float32 or wider, as D and bias.
        B: How the input enters each state.
        C: How each state is read.
        D: Weight of the direct way from input to output.
        bias: Added to dt.
        border: Where a token begins a new clip: no state passes between it and the token before it, either way.
        softplus: Apply softplus to dt and bias.
        forward_groups: Groups of channels from the first on that run from the first token to the last; the others
            run from the last to the first.
    """

    u: Float[Tensor, "row token channel"]
    dt: Float[Tensor, "row token channel"]
    A: Float[Tensor, "channel state"]
    B: Float[Tensor, "row token group state"]
    C: Float[Tensor, "row token group state"]
    D: Float[Tensor, " channel"] | None
    bias: Float[Tensor, " channel"] | None
    border: Bool[Tensor, "row token"] | None
    softplus: bool
    forward_groups: int

    @property
    def groups(self) -> int:
        """Groups of channels that share B and C."""
        return self.B.shape[2]

    @property
    def wide(self) -> torch.dtype:
        """The type states are kept in: float64 for float64, else float32."""
        return torch.float64 if self.u.dtype == torch.float64 else torch.float32


State = Float[Tensor, "row channel state"]
"""What a scan carries from one token to the next."""


class Gradients(NamedTuple):
    """Of the loss with respect to each input, in that input's type; those of missing inputs are None."""

    u: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    bias: Tensor | None


class Backend(ABC):
    """A way of computing the scan.

    Attributes:
        name: What it is called on the command line and in `SSL_AUDIO_SCAN`.
        compiled: Its code was made for this machine, so its numbers are checked before its first use.
        proceeds: It can go on from a state.
    """

    name: str
    compiled: bool = False
    proceeds: bool = True

    @abstractmethod
    def unfit(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot compute such tensors here, in a few words; None if it can."""

    @abstractmethod
    def saved_shape(self, scan: Scan) -> tuple[int, ...]:
        """Shape of the float tensor that the forward pass leaves for the backward pass."""

    @abstractmethod
    def forward(self, scan: Scan, *, save: bool) -> tuple[Tensor, Tensor]:
        """The output, of u's shape and type, and what the backward pass needs (empty unless `save`)."""

    @abstractmethod
    def backward(self, scan: Scan, saved: Tensor, dy: Tensor) -> Gradients:
        """Gradients for the gradient of the output."""

    @abstractmethod
    def proceed(self, scan: Scan, state: State) -> tuple[Tensor, State]:
        """The output of a scan that goes on from a state, and the state behind its last token; without gradients.

        Args:
            scan: All its groups run from the first token to the last.
            state: What the tokens before left behind; in `scan.wide`.
        """


def nothing_saved(scan: Scan) -> Tensor:
    """What the forward pass leaves when no gradient is wanted."""
    return scan.u.new_empty((0,), dtype=scan.wide)


def flip_backward_groups(x: Tensor, scan: Scan) -> Tensor:
    """(row, token, group, ...) with the groups that run backwards turned round in time."""
    forward = scan.forward_groups
    if forward >= scan.groups:
        return x
    turned = x[:, :, forward:].flip(1)
    return turned if not forward else torch.cat([x[:, :, :forward], turned], dim=2)


def border_in_order(scan: Scan) -> Bool[Tensor, "row token group"] | None:
    """Where each group's state is cleared, in the order in which the group takes tokens."""
    if scan.border is None:
        return None
    ahead = scan.border[:, :, None].expand(-1, -1, scan.groups)
    behind = torch.cat([ahead[:, 1:], torch.zeros_like(ahead[:, :1])], dim=1)
    backward = torch.arange(scan.groups, device=ahead.device) >= scan.forward_groups
    return flip_backward_groups(torch.where(backward, behind, ahead), scan)
