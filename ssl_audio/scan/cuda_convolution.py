"""causal-conv1d's compiled convolution, by way of its two plain functions, with directions and borders of our own.

Its autograd function knows one direction only. Rows that run backwards are turned round; clips of a row are told
apart by `seq_idx`, for which the kernels want channels next to each other, as ours are.
"""

import functools
import logging

import torch
from torch import Tensor

from ssl_audio.scan.choice import TOLERANCE
from ssl_audio.scan.eager_convolution import eager_convolution
from ssl_audio.scan.extensions import CONVOLUTION

log = logging.getLogger("ssl_audio.scan")


def unfit(channels: int, taps: int, dtype: torch.dtype) -> str | None:
    """Why causal-conv1d cannot convolve such tensors here, in a few words; None if it can."""
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"for float32 and halves of it, not for {str(dtype).removeprefix('torch.')}"
    if channels % 8 or not 2 <= taps <= 4:
        return f"for channels in eights and 2 to 4 taps, not {channels} channels and {taps} taps"
    return CONVOLUTION.fault()


@functools.cache
def refusal(channels: int, taps: int, device_type: str, dtype: torch.dtype) -> str | None:
    """`unfit`, or what is wrong with its numbers; said once in the log."""
    reason = unfit(channels, taps, dtype)
    if reason is None:
        try:
            with torch.inference_mode(False), torch.autocast(device_type, enabled=False):
                error = self_test(channels, taps, torch.device(device_type), dtype)
            if not error < TOLERANCE[dtype]:
                reason = f"REFUSED: its self-test is off by {error:.1e} of the largest value"
        except Exception as failure:
            reason = f"its self-test failed ({type(failure).__name__}: {str(failure)[:200]})"
    if reason is None:
        log.info("convolution on %s in %s: causal-conv1d", device_type, dtype)
    else:
        log.warning("convolution on %s: torch's operations, not causal-conv1d: %s", device_type, reason)
    return reason


def self_test(channels: int, taps: int, device: torch.device, dtype: torch.dtype) -> float:
    """Largest error of outputs and gradients over the largest value, against torch's operations in float64."""
    draws = torch.Generator().manual_seed(0)
    shapes = ((2, 21, channels), (channels, taps), (channels,), (2, 21, channels))
    drawn = [torch.randn(*shape, generator=draws).to(device) for shape in shapes]
    x, weight, bias, dy = drawn[0].to(dtype), drawn[1], drawn[2], drawn[3].to(dtype)
    border = torch.rand(2, 21, generator=draws).to(device) > 0.8
    worst = 0.0
    for reverse in (False, True):
        with torch.enable_grad():
            wide = [tensor.double().requires_grad_() for tensor in (x, weight, bias)]
            expected = eager_convolution(*wide, reverse=reverse, reset=border)
            oracle = [expected, *torch.autograd.grad(expected, wide, dy.double())]
        ours = [convolve(x, weight, bias, border, reverse=reverse)]
        ours += convolve_backward(x, weight, bias, border, dy, reverse=reverse)
        for mine, other in zip(ours, oracle, strict=True):
            error = (mine.double() - other.detach()).abs().max() / other.detach().abs().max()
            worst = max(worst, float(error))
    return worst


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, border: Tensor | None, *, reverse: bool) -> Tensor:
    """SiLU of the causal convolution; see `scan.convolution`.

    Source: Dao-AILab/causal-conv1d@v1.7 causal_conv1d/cpp_functions.py `causal_conv1d_fwd_function`.
    """
    weight, bias = _same_type(weight, bias)
    y = CONVOLUTION.load().causal_conv1d_fwd_function(
        _ordered(x, reverse=reverse), weight, bias, _clips(border, reverse=reverse), None, None, True
    )
    return _restored(y, reverse=reverse)


def convolve_backward(
    x: Tensor, weight: Tensor, bias: Tensor | None, border: Tensor | None, dy: Tensor, *, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias.

    Source: Dao-AILab/causal-conv1d@v1.7 causal_conv1d/cpp_functions.py `causal_conv1d_bwd_function`.
    """
    taps, offsets = _same_type(weight, bias)
    dx, dweight, dbias, _ = CONVOLUTION.load().causal_conv1d_bwd_function(
        _ordered(x, reverse=reverse),
        taps,
        offsets,
        _ordered(dy.to(x.dtype), reverse=reverse),
        _clips(border, reverse=reverse),
        None,
        None,
        None,
        False,
        True,
    )
    if dbias is None:
        dbias = weight.new_zeros(len(weight), dtype=torch.float32)
    return _restored(dx, reverse=reverse), dweight.to(weight.dtype), dbias.float()


def _same_type(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return weight.contiguous(), None if bias is None else bias.to(weight.dtype).contiguous()


def _ordered(x: Tensor, *, reverse: bool) -> Tensor:
    """(row, channel, token) in the order of the direction, channels next to each other in memory."""
    return (x.flip(1) if reverse else x).contiguous().transpose(1, 2)


def _restored(x: Tensor, *, reverse: bool) -> Tensor:
    x = x.transpose(1, 2)
    return x.flip(1) if reverse else x.contiguous()


def _clips(border: Tensor | None, *, reverse: bool) -> Tensor | None:
    """Which clip of its row each token is of, counted in the order of the direction."""
    if border is None:
        return None
    clip = border.cumsum(1)
    return ((clip[:, -1:] - clip).flip(1) if reverse else clip).int().contiguous()
