"""The selective scan as its definition reads: the oracle for all others."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_audio.scan.backend import (
    Backend,
    Gradients,
    Scan,
    State,
    border_in_order,
    flip_backward_groups,
    nothing_saved,
)


def reference_scan(scan: Scan) -> Tensor:
    """Token after token, differentiable, in the type of its inputs (float64 for an oracle)."""
    rows, _, channels = scan.u.shape
    return proceeding_scan(scan, scan.u.new_zeros(rows, channels, scan.A.shape[1], dtype=scan.wide))[0]


def proceeding_scan(scan: Scan, start: State) -> tuple[Tensor, State]:
    """The same from a given state on, and the state behind the last token.

    Source: arXiv 2312.00752 equation 2 and algorithm 2; state-spaces/mamba@e9594ce `selective_scan_ref`:
        ``h = exp(dt A) h + dt B u``, ``y = C h + D u``, the discretisation of B being Euler's.
    """
    rows, length, channels = scan.u.shape
    groups, wide = scan.groups, scan.wide
    u, dt = scan.u.to(wide), scan.dt.to(wide)
    if scan.bias is not None:
        dt = dt + scan.bias.to(wide)
    if scan.softplus:
        dt = F.softplus(dt)

    def grouped(x: Tensor) -> Tensor:
        return flip_backward_groups(x.reshape(rows, length, groups, -1), scan)

    A = scan.A.to(wide).view(groups, channels // groups, -1)
    steps, inputs, B, C = grouped(dt), grouped(dt * u), grouped(scan.B.to(wide)), grouped(scan.C.to(wide))
    border = border_in_order(scan)
    state = start.view(rows, groups, channels // groups, A.shape[-1])
    outputs = []
    for token in range(length):
        if border is not None:
            state = state.masked_fill(border[:, token, :, None, None], 0.0)
        decay = torch.exp(steps[:, token, :, :, None] * A)
        state = decay * state + inputs[:, token, :, :, None] * B[:, token, :, None]
        outputs.append((state * C[:, token, :, None]).sum(-1))
    y = flip_backward_groups(torch.stack(outputs, dim=1), scan).reshape(rows, length, channels)
    if scan.D is not None:
        y = y + scan.D.to(wide) * u
    return y.to(scan.u.dtype), state.flatten(1, 2)


class Reference(Backend):
    """`reference_scan` behind the door; its gradients are autograd's."""

    name = "reference"

    def unfit(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return None

    def saved_shape(self, scan: Scan) -> tuple[int, ...]:
        return (0,)

    def forward(self, scan: Scan, *, save: bool) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return reference_scan(scan), nothing_saved(scan)

    def backward(self, scan: Scan, saved: Tensor, dy: Tensor) -> Gradients:
        inputs = {name: getattr(scan, name) for name in Gradients._fields}
        leaves = {name: x.detach().requires_grad_() for name, x in inputs.items() if x is not None}
        with torch.enable_grad():
            y = reference_scan(dataclasses.replace(scan, **leaves))
        found = dict(zip(leaves, torch.autograd.grad(y, list(leaves.values()), dy), strict=True))
        return Gradients(**{name: found.get(name) for name in inputs})  # type: ignore[arg-type]

    def proceed(self, scan: Scan, state: State) -> tuple[Tensor, State]:
        with torch.no_grad():
            return proceeding_scan(scan, state)
