"""The convolution before a scan against torch's own, with borders as if each clip stood alone."""

import sys
import types

import pytest
import torch
import torch.nn.functional as F

from ssl_audio.scan import choice, cuda_convolution
from ssl_audio.scan.convolution import causal_convolution, proceed_convolution
from ssl_audio.scan.cuda import Cuda


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


def upstream_functions(spoil: float = 0.0) -> types.ModuleType:
    """`causal_conv1d.cpp_functions` in torch, as strict about layouts as the kernels: (row, channel, token)."""

    def windows(x, taps, clips):
        """What each tap sees, (row, channel, token, tap)."""
        channels = x.shape[1]
        assert x.stride(1) == 1
        assert channels % 8 == x.stride(2) % 8 == x.stride(0) % 8 == 0
        seen = F.pad(x, (taps - 1, 0)).unfold(2, taps, 1).float()
        if clips is None:
            return seen
        assert clips.dtype == torch.int32
        assert clips.is_contiguous()
        same = F.pad(clips, (taps - 1, 0), value=-1).unfold(1, taps, 1) == clips[..., None]
        return seen * same[:, None]

    def before_silu(x, weight, bias, clips):
        assert bias is None or bias.dtype == weight.dtype
        y = (windows(x, weight.shape[1], clips) * weight[:, None]).sum(-1)
        return y + spoil + (0.0 if bias is None else bias[:, None])

    def forward(x, weight, bias, clips, initial, final, silu):
        assert (initial, final, silu) == (None, None, True)
        return F.silu(before_silu(x, weight, bias, clips)).to(x.dtype)

    def backward(x, weight, bias, dy, clips, initial, dfinal, dx, want_initial, silu):
        assert (initial, dfinal, dx, want_initial, silu) == (None, None, None, False, True)
        assert dy.stride(1) == 1
        taps = weight.shape[1]
        total = before_silu(x, weight, bias, clips)
        share = total.sigmoid()
        above = dy * share * (1 + total * (1 - share))
        dx = torch.zeros_like(x)
        for back in range(taps):
            passed = (above * weight[:, taps - 1 - back, None])[..., back:]
            if clips is not None:
                passed = passed * (clips[:, None, back:] == clips[:, None, : clips.shape[1] - back])
            dx[..., : x.shape[2] - back] += passed
        dweight = (above[..., None] * windows(x, taps, clips)).sum((0, 2))
        return dx, dweight, None if bias is None else above.sum((0, 2)), None

    module = types.ModuleType("causal_conv1d.cpp_functions")
    module.causal_conv1d_fwd_function, module.causal_conv1d_bwd_function = forward, backward
    return module


@pytest.fixture
def as_on_cuda(monkeypatch):
    """The way of CUDA tensors taken by those of the CPU."""
    monkeypatch.setattr(Cuda, "unfit", lambda self, device, dtype: None)
    monkeypatch.setattr(choice, "self_test", lambda *_: 0.0)

    def install(module: types.ModuleType) -> None:
        monkeypatch.setitem(sys.modules, "causal_conv1d", types.ModuleType("causal_conv1d"))
        monkeypatch.setitem(sys.modules, "causal_conv1d.cpp_functions", module)
        forget()

    def forget() -> None:
        for cache in (choice.refusal, choice._choose, cuda_convolution.refusal):
            cache.cache_clear()

    yield install
    forget()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("borders", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_the_way_to_causal_conv1d_and_back(reverse, borders, biased, as_on_cuda):
    """Layout, direction and borders; the kernels themselves need a GPU (and there the self-test runs)."""
    as_on_cuda(upstream_functions())
    x, weight, dy = (
        draw(*shape, seed=seed).detach().float() for seed, shape in enumerate([(2, 19, 16), (16, 4), (2, 19, 16)])
    )
    bias = draw(16, seed=3).detach().float() if biased else None
    reset = torch.rand(2, 19, generator=torch.Generator().manual_seed(4)) > 0.7 if borders else None
    assert cuda_convolution.refusal(16, 4, "cpu", torch.float32) is None
    outcomes = []
    for backend in ("cuda", "reference"):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias) if tensor is not None]
        y = causal_convolution(leaves[0], leaves[1], *leaves[2:], reverse=reverse, reset=reset, backend=backend)
        outcomes.append((y, *torch.autograd.grad(y, leaves, dy)))
    for mine, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_a_wrong_causal_conv1d_is_refused_and_torch_takes_over(as_on_cuda, caplog):
    as_on_cuda(upstream_functions(spoil=0.1))
    x, weight = draw(1, 9, 8, seed=0).detach().float(), draw(8, 4, seed=1).detach().float()
    with caplog.at_level("WARNING"):
        y = causal_convolution(x, weight, backend="cuda")
    assert "not causal-conv1d: REFUSED: its self-test is off by" in caplog.text
    torch.testing.assert_close(y, causal_convolution(x, weight, backend="reference"))
    assert "channels in eights" in cuda_convolution.refusal(12, 4, "cpu", torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [1, 2, 9, 20])
def test_a_convolution_that_goes_on_equals_the_whole_one(dtype, size):
    x, weight, bias = draw(2, 20, 5, seed=0).detach(), draw(5, 4, seed=1).detach(), draw(5, seed=2).detach()
    tail, parts = None, []
    for part in x.to(dtype).split(size, dim=1):
        y, tail = proceed_convolution(part, weight.to(dtype), bias.to(dtype), tail=tail)
        parts.append(y)
    assert (torch.cat(parts, dim=1) - oracle(x, weight, bias, reverse=False)).abs().max() < 1e-5
