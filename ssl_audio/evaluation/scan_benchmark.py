"""The scan's backends beside a fair loop in torch, on the same inputs in one run."""

import tempfile
import time
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_audio.evaluation.benchmark import Timing, interleaved
from ssl_audio.evaluation.gpu_bounds import Bounds, scan_bounds
from ssl_audio.scan import build
from ssl_audio.scan.backend import Backend, Scan
from ssl_audio.scan.bidirectional import Way, one_launch, scan_one
from ssl_audio.scan.choice import BACKENDS, refusal
from ssl_audio.scan.cpu import BACKWARD_OPERATIONS, FORWARD_OPERATIONS, Cpu, multiply_adds_per_second


def loop_scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor) -> Tensor:
    """Token after token through autograd, with slices whose gradient is a stack: the fairest plain loop there is.

    mamba's own `selective_scan_ref` indexes ``x[:, :, i]``, which makes its backward pass quadratic in length.
    """
    step = F.softplus(dt + bias)
    steps, inputs = step.unbind(1), (step * u).unbind(1)
    state, outputs = u.new_zeros(len(u), *A.shape), []
    for d, x, into, out in zip(steps, inputs, B[:, :, 0].unbind(1), C[:, :, 0].unbind(1), strict=True):
        state = torch.exp(d[..., None] * A) * state + x[..., None] * into[:, None]
        outputs.append(torch.matmul(state, out[..., None])[..., 0])
    return torch.stack(outputs, 1) + D * u


def example(rows: int, length: int, *, channels: int, states: int, device: torch.device) -> dict[str, Tensor]:
    """Inputs as a trained mixer has them; all want a gradient."""
    draws = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draws)

    step = torch.exp(torch.rand(channels, generator=draws) * 4.6 - 6.9)
    inputs = {
        "u": normal(rows, length, channels),
        "dt": 0.5 * normal(rows, length, channels),
        "A": -torch.arange(1.0, states + 1).repeat(channels, 1),
        "B": normal(rows, length, 1, states),
        "C": normal(rows, length, 1, states),
        "D": normal(channels),
        "bias": step + torch.log(-torch.expm1(-step)),
    }
    return {name: x.to(device).requires_grad_() for name, x in inputs.items()}


class _Through(torch.autograd.Function):
    """A backend through autograd without the operator around it, so that variants can be timed beside each other."""

    @staticmethod
    def forward(ctx, backend: Backend, *tensors: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.backend = backend
        ctx.scan = _scan(tensors)
        y, ctx.saved = backend.forward(ctx.scan, save=True)
        return y

    @staticmethod
    def backward(ctx, dy: Tensor):  # type: ignore[no-untyped-def]
        return None, *ctx.backend.backward(ctx.scan, ctx.saved, dy)


def _scan(tensors: tuple[Tensor, ...]) -> Scan:
    u, dt, A, B, C, D, bias = (x.detach() for x in tensors)
    return Scan(u=u, dt=dt, A=A, B=B, C=C, D=D, bias=bias, border=None, softplus=True, forward_groups=1)


def contenders(device: torch.device) -> dict[str, Backend]:
    """Every backend that runs on the device and passes its self-test, and every variant of the CPU's."""
    found = {
        name: BACKENDS[name]
        for name in ("torch", "cuda", "triton")
        if refusal(name, device.type, torch.float32) is None
    }
    if device.type == "cpu" and build.compiler() is not None:
        names = list(build.VARIANTS)
        found |= {f"cpu {name}": Cpu(name) for name in names[names.index(build.variant()) :]}
    return found


def time_scans(
    rows: int, length: int, *, channels: int, states: int, device: torch.device, rounds: int
) -> dict[str, dict[str, Timing]]:
    """Times by contender, then by `forward` and `both`; the loop is called `loop`.

    Args:
        rows: Sequences.
        length: Tokens of each.
        channels: Channels.
        states: States of each.
        device: Where.
        rounds: How often each is timed, in turn.
    """
    inputs = tuple(example(rows, length, channels=channels, states=states, device=device).values())
    dy = torch.randn(rows, length, channels, device=device)
    half = tuple(
        x.detach().bfloat16().requires_grad_() if place in (0, 1, 3, 4) else x for place, x in enumerate(inputs)
    )
    works = {"loop": partial(loop_scan, *inputs)}
    for name, backend in contenders(device).items():
        works[name] = partial(_Through.apply, backend, *inputs)
        if name != "torch":
            works[f"{name} bf16"] = partial(_Through.apply, backend, *half)

    def forward(work):  # type: ignore[no-untyped-def]
        with torch.no_grad():
            work()

    def both(work):  # type: ignore[no-untyped-def]
        y = work()
        torch.autograd.grad(y, half if y.dtype == torch.bfloat16 else inputs, dy.to(y.dtype))

    timed = {
        kind: interleaved({name: partial(run, work) for name, work in works.items()}, rounds=rounds, device=device)
        for kind, run in (("forward", forward), ("both", both))
    }
    return {name: {kind: timed[kind][name] for kind in timed} for name in works}


def share_of_bound(
    name: str,
    times: dict[str, Timing],
    *,
    rows: int,
    length: int,
    channels: int,
    states: int,
    gpu: Bounds | None = None,
) -> dict[str, float]:
    """How much of what limits it a compiled scan uses, by `forward` and `both`; empty for other contenders.

    On a CPU that is the time in which as many multiply-adds as it has vector operations could be done, over the time
    it takes; on a GPU the longer of the times that its memory and its exponentials take at least.
    """
    if gpu is not None:
        if name == "loop":
            return {}
        size = {
            "rows": rows, "length": length, "channels": channels, "states": states,
            "element_bytes": 2 if name.endswith("bf16") else 4,
        }  # fmt: skip
        least = {part: max(scan_bounds(gpu, **size, backward=part == "both").values()) for part in times}
        return {part: least[part] / times[part].seconds for part in times}
    kind, _, variant = name.removesuffix(" bf16").partition(" ")
    if kind != "cpu":
        return {}
    operations = {"forward": FORWARD_OPERATIONS, "both": FORWARD_OPERATIONS + BACKWARD_OPERATIONS}
    rate = multiply_adds_per_second(variant) * torch.get_num_threads() / (rows * length * channels * states)
    return {part: operations[part] / rate / times[part].seconds for part in operations}


def time_directions(
    rows: int, length: int, *, channels: int, states: int, device: torch.device, rounds: int
) -> dict[str, Timing]:
    """Both directions of a bidirectional layer, forward and backward: in one launch, and in two.

    Args:
        rows: Sequences.
        length: Tokens of each.
        channels: Channels of each direction.
        states: States of each.
        device: Where.
        rounds: How often each is timed, in turn.
    """
    ways = []
    for _ in range(2):
        x = example(rows, length, channels=channels, states=states, device=device)
        ways.append(Way(**x | {"B": x["B"][:, :, 0], "C": x["C"][:, :, 0]}))
    dy = torch.randn(rows, length, channels, device=device)

    def gradients(y: Tensor) -> None:
        torch.autograd.grad(y, [*ways[0], *ways[1]], dy)

    def one() -> None:
        gradients(one_launch(*ways, reset=None))

    def two() -> None:
        gradients(scan_one(ways[0], reset=None) + scan_one(ways[1], reverse=True, reset=None))

    return interleaved({"one launch": one, "two launches": two}, rounds=rounds, device=device)


def build_seconds() -> float | None:
    """How long the kernels take to compile from nothing; None without a compiler."""
    if build.compiler() is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        build.library(cache=Path(folder))
        return time.perf_counter() - start
