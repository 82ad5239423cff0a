"""The one door to the selective scan.

The operators are registered with torch, with shapes for tracing and a backward pass, so that a model with them passes
torch.compile and torch.export whatever computes them.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_audio.scan.backend import Scan, State
from ssl_audio.scan.choice import BACKENDS, choose
from ssl_audio.scan.operators import operator
from ssl_audio.scan.reference import reference_scan


def selective_scan(
    u: Float[Tensor, "row token channel"],
    dt: Float[Tensor, "row token channel"],
    A: Float[Tensor, "channel state"],
    B: Float[Tensor, "row token group state"],
    C: Float[Tensor, "row token group state"],
    D: Float[Tensor, " channel"] | None = None,
    z: Float[Tensor, "row token channel"] | None = None,
    dt_bias: Float[Tensor, " channel"] | None = None,
    *,
    softplus: bool = True,
    reverse: bool | str = False,
    reset: Bool[Tensor, "row token"] | None = None,
    backend: str = "auto",
) -> Float[Tensor, "row token channel"]:
    """``h = exp(dt A) h + dt B u`` token after token; ``y = C h + D u``, times ``silu(z)``.

    Args:
        u: What is fed in; float32, bfloat16 or float64. The state is float32 (float64) in any case.
        dt: Step sizes.
        A: Rates of decay, negative.
        B: How the input enters each state; channels of a group share it.
        C: How each state is read.
        D: Weight of the direct way; None leaves it out.
        z: Gate; None leaves it out.
        dt_bias: Added to dt before the softplus.
        softplus: Whether dt passes through a softplus.
        reverse: From the last token to the first; "half": the first half of the groups runs forwards and the second
            backwards, both at once.
        reset: Where a token begins a new clip: no state passes between it and the token before it, either way.
        backend: `reference`, `torch`, `cpu`, `cuda`, `triton`, or `auto` for the fastest that runs here. The
            environment variable SSL_AUDIO_SCAN overrides `auto`.

    Raises:
        ScanError: if a backend was asked for by name and cannot be used here.
        ValueError: if channels do not divide into the groups, or "half" is asked of an odd number of them.

    Source: arXiv 2312.00752 algorithm 2.
    """
    groups = B.shape[2]
    if u.shape[2] % groups or (reverse == "half" and groups % 2):
        raise ValueError(
            f"{u.shape[2]} channels, {groups} groups, reverse={reverse}; expected whole groups, an even number for half"
        )
    forward_groups = groups // 2 if reverse == "half" else 0 if reverse else groups
    name = choose(backend, u.device.type, u.dtype)
    if name == "reference":  # its gradients are autograd's, which an operator would hide
        y = reference_scan(_scan_of(u, dt, A, B, C, D, dt_bias, reset, softplus, forward_groups))
        return y if z is None else y * F.silu(z)
    wanted = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (u, dt, A, B, C, D, dt_bias))
    y, _ = _scan(u, dt, A, B, C, D, dt_bias, reset, softplus, forward_groups, wanted, name)
    return y if z is None else y * F.silu(z)


def proceed(
    u: Float[Tensor, "row token channel"],
    dt: Float[Tensor, "row token channel"],
    A: Float[Tensor, "channel state"],
    B: Float[Tensor, "row token group state"],
    C: Float[Tensor, "row token group state"],
    D: Float[Tensor, " channel"] | None = None,
    dt_bias: Float[Tensor, " channel"] | None = None,
    *,
    state: State | None = None,
    softplus: bool = True,
    reset: Bool[Tensor, "row token"] | None = None,
    backend: str = "auto",
) -> tuple[Float[Tensor, "row token channel"], State]:
    """A scan from the first token to the last that goes on from where another ended; without gradients.

    The outputs of stretches, each started with the state that the one before left, are those of `selective_scan` over
    all of them to rounding, whatever the lengths of the stretches.

    Args:
        u: See `selective_scan`, as for the following.
        dt: Step sizes.
        A: Rates of decay.
        B: How the input enters each state.
        C: How each state is read.
        D: Weight of the direct way.
        dt_bias: Added to dt.
        state: What the tokens before left behind; None before the first.
        softplus: Whether dt passes through a softplus.
        reset: Where a token begins a new clip, and the state is cleared before it.
        backend: As in `selective_scan`; `auto` passes over `cuda`, whose kernels take no state.

    Raises:
        ScanError: if a backend was asked for by name and cannot be used here, or takes no state.
    """
    name = choose(backend, u.device.type, u.dtype, proceeding=True)
    scan = _scan_of(u, dt, A, B, C, D, dt_bias, reset, softplus, B.shape[2])
    if state is None:
        state = u.new_zeros((len(u), *A.shape), dtype=scan.wide)
    return BACKENDS[name].proceed(scan, state)


def _scan_of(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    bias: Tensor | None,
    border: Tensor | None,
    softplus: bool,
    forward_groups: int,
) -> Scan:
    return Scan(
        u=u, dt=dt, A=A, B=B, C=C, D=D, bias=bias, border=border, softplus=softplus, forward_groups=forward_groups
    )


@operator("ssl_audio::selective_scan")
def _scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    bias: Tensor | None,
    border: Tensor | None,
    softplus: bool,
    forward_groups: int,
    save: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    scan = _scan_of(u, dt, A, B, C, D, bias, border, softplus, forward_groups)
    y, saved = BACKENDS[backend].forward(scan, save=save)
    return y.contiguous(), saved


@_scan.register_fake
def _(u, dt, A, B, C, D, bias, border, softplus, forward_groups, save, backend):  # type: ignore[no-untyped-def]
    scan = _scan_of(u, dt, A, B, C, D, bias, border, softplus, forward_groups)
    saved = u.new_empty(BACKENDS[backend].saved_shape(scan) if save else (0,), dtype=scan.wide)
    return torch.empty_like(u, memory_format=torch.contiguous_format), saved


@operator("ssl_audio::selective_scan_backward")
def _scan_backward(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    bias: Tensor | None,
    border: Tensor | None,
    saved: Tensor,
    dy: Tensor,
    softplus: bool,
    forward_groups: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    scan = _scan_of(u, dt, A, B, C, D, bias, border, softplus, forward_groups)
    found = BACKENDS[backend].backward(scan, saved, dy)
    # An operator cannot return nothing: an empty tensor stands for it.
    return tuple(u.new_empty(0) if gradient is None else gradient.contiguous() for gradient in found)  # type: ignore[return-value]


@_scan_backward.register_fake
def _(u, dt, A, B, C, D, bias, border, saved, dy, softplus, forward_groups, backend):  # type: ignore[no-untyped-def]
    return tuple(
        u.new_empty(0) if x is None else torch.empty_like(x, memory_format=torch.contiguous_format)
        for x in (u, dt, A, B, C, D, bias)
    )


def _remember(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *tensors, ctx.softplus, ctx.forward_groups, _, ctx.backend = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, dy, _):  # type: ignore[no-untyped-def]
    *tensors, saved = ctx.saved_tensors
    found = _scan_backward(*tensors, saved, dy, ctx.softplus, ctx.forward_groups, ctx.backend)
    gradients = (None if x is None else gradient for x, gradient in zip(tensors[:7], found, strict=True))
    return *gradients, None, None, None, None, None


_scan.register_autograd(_differentiate, setup_context=_remember)
