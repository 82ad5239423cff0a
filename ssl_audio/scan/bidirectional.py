"""Both directions of a bidirectional layer, in one launch where a device profits from it."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_audio.scan.backend import State
from ssl_audio.scan.selective_scan import proceed, selective_scan


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


def scan_one(
    way: Way, *, reverse: bool = False, reset: Bool[Tensor, "row token"] | None, backend: str = "auto"
) -> Float[Tensor, "row token channel"]:
    """One direction alone; see `selective_scan`."""
    return selective_scan(
        way.u, way.dt, way.A, way.B[:, :, None], way.C[:, :, None], way.D, None, way.bias,
        reverse=reverse, reset=reset, backend=backend,
    )  # fmt: skip


def scan_on(
    way: Way, state: State | None, *, reset: Bool[Tensor, "row token"] | None = None, backend: str = "auto"
) -> tuple[Float[Tensor, "row token channel"], State]:
    """One direction from the first token to the last that goes on from a state; see `proceed`."""
    return proceed(
        way.u, way.dt, way.A, way.B[:, :, None], way.C[:, :, None], way.D, way.bias,
        state=state, reset=reset, backend=backend,
    )  # fmt: skip


def scan_both(
    ahead: Way,
    back: Way,
    *,
    reset: Bool[Tensor, "row token"] | None,
    back_reset: Bool[Tensor, "row token"] | None = None,
    backend: str = "auto",
) -> Float[Tensor, "row token channel"]:
    """Sum of a scan from the first token to the last and one from the last to the first.

    On a GPU both go in one launch, for one alone leaves much of it idle; on a CPU, or where they restart in different
    places, side by side, which copies nothing.

    Args:
        ahead: From the first token to the last.
        back: From the last to the first.
        reset: See `selective_scan`.
        back_reset: The same for `back`; None where it is the same.
        backend: See `selective_scan`.
    """
    if ahead.u.device.type == "cpu" or back_reset is not None:
        return scan_one(ahead, reset=reset, backend=backend) + scan_one(
            back, reverse=True, reset=reset if back_reset is None else back_reset, backend=backend
        )
    return one_launch(ahead, back, reset=reset, backend=backend)


def one_launch(
    ahead: Way, back: Way, *, reset: Bool[Tensor, "row token"] | None, backend: str = "auto"
) -> Float[Tensor, "row token channel"]:
    """The same for one set of borders, both directions always in one launch."""
    u, dt = (torch.cat(pair, dim=-1) for pair in ((ahead.u, back.u), (ahead.dt, back.dt)))
    A, D, bias = (torch.cat(pair) for pair in ((ahead.A, back.A), (ahead.D, back.D), (ahead.bias, back.bias)))
    B, C = (torch.stack(pair, dim=2) for pair in ((ahead.B, back.B), (ahead.C, back.C)))
    y = selective_scan(u, dt, A, B, C, D, None, bias, reverse="half", reset=reset, backend=backend)
    first, second = y.chunk(2, dim=-1)
    return first + second
