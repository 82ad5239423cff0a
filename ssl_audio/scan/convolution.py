"""The causal depthwise convolution before a scan, with the same borders and directions."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_audio.scan import cpu
from ssl_audio.scan.choice import choose


def causal_convolution(
    x: Float[Tensor, "row token channel"],
    weight: Float[Tensor, "channel tap"],
    bias: Float[Tensor, " channel"] | None = None,
    *,
    reverse: bool = False,
    reset: Bool[Tensor, "row token"] | None = None,
    backend: str = "auto",
) -> Float[Tensor, "row token channel"]:
    """SiLU of a depthwise convolution that looks back only: the last tap sees the token itself.

    Args:
        x: What is convolved; float32, bfloat16 or float64.
        weight: Taps of each channel, the earliest first.
        bias: Added before the SiLU.
        reverse: Look ahead instead of back, the last tap still seeing the token itself.
        reset: Where a token begins a new clip: nothing is seen across the border before it.
        backend: As in `selective_scan`; `cpu` is compiled, all others are torch's own operations.

    Source: state-spaces/mamba@e9594ce `Mamba.conv1d`; Dao-AILab/causal-conv1d.
    """
    compiled = weight.shape[1] <= 8 and choose(backend, x.device.type, x.dtype) == "cpu"
    if not compiled:
        return eager_convolution(x, weight, bias, reverse=reverse, reset=reset)
    return _convolution(x, weight, bias, reset, reverse)


def eager_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *, reverse: bool, reset: Tensor | None) -> Tensor:
    """In torch's operations: a shifted product for each tap."""
    taps, length = weight.shape[1], x.shape[1]
    weight = weight.to(x.dtype)
    total = x * weight[:, taps - 1]
    clip = None if reset is None else reset.cumsum(1)
    for back in range(1, min(taps, length)):
        ahead, behind = slice(back, None), slice(None, length - back)
        here, there = (behind, ahead) if reverse else (ahead, behind)
        seen = x[:, there] * weight[:, taps - 1 - back]
        if clip is not None:
            seen = seen * (clip[:, here] == clip[:, there])[..., None]
        shift = (0, 0, 0, back) if reverse else (0, 0, back, 0)
        total = total + F.pad(seen, shift)
    if bias is not None:
        total = total + bias.to(x.dtype)
    return F.silu(total)


@torch.library.custom_op("ssl_audio::causal_convolution", mutates_args=())
def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, border: Tensor | None, reverse: bool) -> Tensor:
    return cpu.convolve(x, weight, bias, border, reverse=reverse)


@_convolution.register_fake
def _(x, weight, bias, border, reverse):  # type: ignore[no-untyped-def]
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("ssl_audio::causal_convolution_backward", mutates_args=())
def _convolution_backward(
    x: Tensor, weight: Tensor, bias: Tensor | None, border: Tensor | None, dy: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return cpu.convolve_backward(x, weight, bias, border, dy, reverse=reverse)


@_convolution_backward.register_fake
def _(x, weight, bias, border, dy, reverse):  # type: ignore[no-untyped-def]
    fresh = torch.empty_like(x, memory_format=torch.contiguous_format)
    return fresh, torch.empty_like(weight), weight.new_empty(weight.shape[0], dtype=torch.float32)


def _remember(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *tensors, ctx.reverse = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, dy):  # type: ignore[no-untyped-def]
    x, weight, bias, border = ctx.saved_tensors
    dx, dweight, dbias = _convolution_backward(x, weight, bias, border, dy, ctx.reverse)
    return dx, dweight, None if bias is None else dbias, None, None


_convolution.register_autograd(_differentiate, setup_context=_remember)
