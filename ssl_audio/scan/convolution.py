"""The causal depthwise convolution before a scan, with the same borders and directions."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_audio.scan import cpu, cuda_convolution
from ssl_audio.scan.choice import choose
from ssl_audio.scan.eager_convolution import eager_convolution
from ssl_audio.scan.operators import operator


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
        backend: As in `selective_scan`. `cpu` is compiled, `cuda` and `triton` take causal-conv1d where it is
            installed and right, all others are torch's own operations.

    Source: state-spaces/mamba@e9594ce `Mamba.conv1d`; Dao-AILab/causal-conv1d.
    """
    way = _way(choose(backend, x.device.type, x.dtype), x, weight)
    if way is None:
        return eager_convolution(x, weight, bias, reverse=reverse, reset=reset)
    return _convolution(x, weight, bias, reset, reverse, way)


def proceed_convolution(
    x: Float[Tensor, "row token channel"],
    weight: Float[Tensor, "channel tap"],
    bias: Float[Tensor, " channel"] | None = None,
    *,
    tail: Float[Tensor, "row before channel"] | None = None,
    backend: str = "auto",
) -> tuple[Float[Tensor, "row token channel"], Float[Tensor, "row before channel"]]:
    """`causal_convolution` that goes on from where another ended, and what the next one goes on from.

    Args:
        x: What is convolved.
        weight: Taps of each channel, the earliest first.
        bias: Added before the SiLU.
        tail: The tokens before, one fewer than taps; None before the first.
        backend: As in `selective_scan`.
    """
    before = weight.shape[1] - 1
    if tail is None:
        tail = x.new_zeros(len(x), before, x.shape[2])
    longer = torch.cat([tail, x], dim=1)
    y = causal_convolution(longer, weight, bias, backend=backend)[:, before:]
    return y, longer[:, longer.shape[1] - before :]


_COMPILED = {"cpu": cpu, "cuda": cuda_convolution}


def _way(backend: str, x: Tensor, weight: Tensor) -> str | None:
    """Which of `_COMPILED` goes with a backend of the scan; None if none does."""
    channels, taps = weight.shape
    if backend == "cpu" and taps <= 8:
        return "cpu"
    if backend in ("cuda", "triton") and cuda_convolution.refusal(channels, taps, x.device.type, x.dtype) is None:
        return "cuda"
    return None


@operator("ssl_audio::causal_convolution")
def _convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, border: Tensor | None, reverse: bool, way: str
) -> Tensor:
    return _COMPILED[way].convolve(x, weight, bias, border, reverse=reverse)


@_convolution.register_fake
def _(x, weight, bias, border, reverse, way):  # type: ignore[no-untyped-def]
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@operator("ssl_audio::causal_convolution_backward")
def _convolution_backward(
    x: Tensor, weight: Tensor, bias: Tensor | None, border: Tensor | None, dy: Tensor, reverse: bool, way: str
) -> tuple[Tensor, Tensor, Tensor]:
    dx, dweight, dbias = _COMPILED[way].convolve_backward(x, weight, bias, border, dy, reverse=reverse)
    # As the shapes below promise to torch.compile.
    return dx.contiguous(), dweight.contiguous(), dbias.contiguous()


@_convolution_backward.register_fake
def _(x, weight, bias, border, dy, reverse, way):  # type: ignore[no-untyped-def]
    fresh = torch.empty_like(x, memory_format=torch.contiguous_format)
    return fresh, torch.empty_like(weight), weight.new_empty(weight.shape[0], dtype=torch.float32)


def _remember(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *tensors, ctx.reverse, ctx.way = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, dy):  # type: ignore[no-untyped-def]
    x, weight, bias, border = ctx.saved_tensors
    dx, dweight, dbias = _convolution_backward(x, weight, bias, border, dy, ctx.reverse, ctx.way)
    return dx, dweight, None if bias is None else dbias, None, None, None


_convolution.register_autograd(_differentiate, setup_context=_remember)
