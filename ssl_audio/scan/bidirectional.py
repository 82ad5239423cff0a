"""Both directions of a bidirectional layer, in one launch where a device profits from it."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_audio.scan.selective_scan import selective_scan


class Way(NamedTuple):
    """What the scan of one direction takes; see `selective_scan`.

    Args:
        u: What is fed in.
        dt: Step sizes before bias and softplus.
        A: Rates of decay.
        B: How the input enters each state.
        C: How each state is read.
        D: Weight of the direct way.
        bias: Of dt.
    """

    u: Float[Tensor, "row token channel"]
    dt: Float[Tensor, "row token channel"]
    A: Float[Tensor, "channel state"]
    B: Float[Tensor, "row token state"]
    C: Float[Tensor, "row token state"]
    D: Float[Tensor, " channel"]
    bias: Float[Tensor, " channel"]


def scan_both(
    ahead: Way, back: Way, *, reset: Bool[Tensor, "row token"] | None, backend: str = "auto"
) -> Float[Tensor, "row token channel"]:
    """Sum of a scan from the first token to the last and one from the last to the first.

    On a GPU both go in one launch, for one alone leaves much of it idle; on a CPU side by side, which copies nothing.
    """
    if ahead.u.device.type == "cpu":
        first, second = (
            selective_scan(
                way.u, way.dt, way.A, way.B[:, :, None], way.C[:, :, None], way.D, None, way.bias,
                reverse=reverse, reset=reset, backend=backend,
            )
            for way, reverse in ((ahead, False), (back, True))
        )  # fmt: skip
        return first + second
    u, dt = (torch.cat(pair, dim=-1) for pair in ((ahead.u, back.u), (ahead.dt, back.dt)))
    A, D, bias = (torch.cat(pair) for pair in ((ahead.A, back.A), (ahead.D, back.D), (ahead.bias, back.bias)))
    B, C = (torch.stack(pair, dim=2) for pair in ((ahead.B, back.B), (ahead.C, back.C)))
    y = selective_scan(u, dt, A, B, C, D, None, bias, reverse="half", reset=reset, backend=backend)
    first, second = y.chunk(2, dim=-1)
    return first + second
