"""The convolution before a scan against torch's own, with borders as if each clip stood alone."""

import pytest
import torch
import torch.nn.functional as F

from ssl_audio.scan.convolution import causal_convolution


def oracle(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *, reverse: bool) -> torch.Tensor:
    x = x.flip(1) if reverse else x
    padded = F.pad(x.transpose(1, 2), (weight.shape[1] - 1, 0))
    y = F.silu(F.conv1d(padded, weight[:, None], bias, groups=len(weight))).transpose(1, 2)
    return y.flip(1) if reverse else y


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("length", "channels", "taps"), [(40, 37, 4), (2, 16, 4), (9, 3, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_clips_of_a_row_are_convolved_as_if_alone(reverse, length, channels, taps, dtype):
    x, weight, bias = draw(2, length, channels, seed=0), draw(channels, taps, seed=1), draw(channels, seed=2)
    first = max(1, length // 3)
    reset = torch.zeros(2, length, dtype=torch.bool)
    reset[:, first] = length > first
    expected = torch.cat([oracle(part, weight, bias, reverse=reverse) for part in (x[:, :first], x[:, first:])], dim=1)
    dy = draw(2, length, channels, seed=3).detach()
    wanted = [expected, *torch.autograd.grad(expected, (x, weight, bias), dy)]
    ours = [x.detach().to(dtype).requires_grad_()]
    ours += [
        p.detach().to(torch.float64 if dtype == torch.float64 else torch.float32).requires_grad_()
        for p in (weight, bias)
    ]
    y = causal_convolution(*ours, reverse=reverse, reset=reset)
    assert y.dtype == dtype
    found = [y, *torch.autograd.grad(y, ours, dy.to(dtype))]
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    for mine, other in zip(found, wanted, strict=True):
        assert (mine.double() - other).abs().max() < tolerance * other.abs().max()


def test_without_borders_and_bias():
    x, weight = draw(1, 20, 5, seed=0), draw(5, 4, seed=1)
    for dtype in (torch.float64, torch.float32):
        y = causal_convolution(x.to(dtype), weight.to(dtype))
        torch.testing.assert_close(y.double(), oracle(x, weight, None, reverse=False), atol=1e-6, rtol=0)
