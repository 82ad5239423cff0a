"""The selective scan in plain torch operations, for where nothing can be compiled.

Blocks of tokens are expanded to (token, row, channel, state) at a time, so that memory beyond inputs and outputs is a
block and one state a block; the backward pass expands each block again. Within a block tokens run one after the other;
where rows × channels × states are few, and each step is therefore mostly overhead, several stretches advance at once.
"""

import math

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

# Numbers in a block: a few such arrays stay in the last-level cache. Measured with 2 threads.
_BLOCK_NUMBERS = 1 << 19
_STRETCH_BELOW = 1 << 15


def _block_tokens(numbers: int) -> int:
    return max(8, min(256, _BLOCK_NUMBERS // max(1, numbers)))


class Eager(Backend):
    """Any device, any floating type, no compiler."""

    name = "torch"

    def unfit(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return None

    def saved_shape(self, scan: Scan) -> tuple[int, ...]:
        rows, length, channels = scan.u.shape
        states = scan.A.shape[1]
        groups = scan.groups
        blocks = -(-length // _block_tokens(rows * channels * states))
        return (blocks, rows, groups, channels // groups, states)

    def forward(self, scan: Scan, *, save: bool) -> tuple[Tensor, Tensor]:
        shape = self.saved_shape(scan)
        saved = scan.u.new_empty(shape, dtype=scan.wide) if save else None
        y, _ = self._run(scan, scan.u.new_zeros(shape[1:], dtype=scan.wide), saved)
        return y, nothing_saved(scan) if saved is None else saved

    def proceed(self, scan: Scan, state: State) -> tuple[Tensor, State]:
        with torch.no_grad():
            y, last = self._run(scan, state.unflatten(1, (scan.groups, -1)), None)
        return y, last.flatten(1, 2)

    def _run(self, scan: Scan, state: Tensor, saved: Tensor | None) -> tuple[Tensor, Tensor]:
        """Output and last state; the states at the beginning of every block go to `saved`."""
        ordered = _Ordered(scan)
        outputs = []
        for number, block in enumerate(ordered.blocks()):
            if saved is not None:
                saved[number] = state
            decay, states = ordered.expand(block)
            _recur(decay, states, state)
            state = states[-1].clone()
            outputs.append(torch.matmul(states, ordered.C[block][..., None])[..., 0])
        y = ordered.restore(torch.cat(outputs))
        if scan.D is not None:
            y = y + scan.D.to(scan.wide) * scan.u
        return y.to(scan.u.dtype), state

    def backward(self, scan: Scan, saved: Tensor, dy: Tensor) -> Gradients:
        ordered = _Ordered(scan)
        dy_ordered = ordered.order(dy.to(scan.wide))
        dx, dt, dB, dC = (torch.empty_like(x) for x in (ordered.x, ordered.dt, ordered.B, ordered.C))
        dA = torch.zeros_like(ordered.A)
        carried = torch.zeros_like(saved[0])  # gradient of the state that a block hands on
        for number, block in reversed(list(enumerate(ordered.blocks()))):
            decay, states = ordered.expand(block)
            _recur(decay, states, saved[number])
            above = dy_ordered[block]
            dC[block] = torch.matmul(above[..., None, :], states)[..., 0, :]
            gradient = (above[..., None] * ordered.C[block][..., None, :]).flip(0)
            back = torch.cat([torch.ones_like(decay[:1]), decay[1:].flip(0)])
            _recur(back, gradient, carried)
            gradient = gradient.flip(0)
            carried = decay[0] * gradient[0]
            dx[block] = torch.matmul(gradient, ordered.B[block][..., None])[..., 0]
            dB[block] = torch.matmul(ordered.x[block][..., None, :], gradient)[..., 0, :]
            before = torch.cat([saved[number][None], states[:-1]])
            exponent = gradient.mul_(decay).mul_(before)
            dt[block] = (exponent * ordered.A).sum(-1)
            dA += torch.einsum("trgc,trgcn->gcn", ordered.dt[block], exponent)
        return ordered.gradients(dx=dx, dt=dt, dA=dA, dB=dB, dC=dC, dy=dy)


class _Ordered:
    """The inputs in the order of each group's direction, token first, in the type of the states."""

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        wide = scan.wide
        raw = scan.dt.to(wide) if scan.bias is None else scan.dt.to(wide) + scan.bias.to(wide)
        self.slope = torch.sigmoid(raw) if scan.softplus else None
        self.steps = F.softplus(raw) if scan.softplus else raw
        self.A = scan.A.to(wide).view(scan.groups, -1, scan.A.shape[1])
        self.dt = self.order(self.steps)
        self.x = self.order(self.steps * scan.u)
        self.B, self.C = self.order(scan.B.to(wide)), self.order(scan.C.to(wide))
        border = border_in_order(scan)
        self.keep = None if border is None else (~border).to(wide).transpose(0, 1)[..., None, None]

    def order(self, x: Tensor) -> Tensor:
        """(row, token, ...) to (token, row, group, ...)."""
        grouped = x.reshape(*x.shape[:2], self.scan.groups, -1)
        return flip_backward_groups(grouped, self.scan).transpose(0, 1).contiguous()

    def restore(self, x: Tensor) -> Tensor:
        """(token, row, group, channel) to (row, token, channel)."""
        return flip_backward_groups(x.transpose(0, 1), self.scan).flatten(2)

    def blocks(self) -> list[slice]:
        """The blocks of tokens, in order."""
        length, size = len(self.dt), _block_tokens(self.dt[0].numel() * self.A.shape[-1])
        return [slice(start, min(start + size, length)) for start in range(0, length, size)]

    def expand(self, block: slice) -> tuple[Tensor, Tensor]:
        """Decay and input of every state, (token, row, group, channel, state)."""
        decay = torch.exp(self.dt[block][..., None] * self.A)
        if self.keep is not None:
            decay = decay * self.keep[block]
        return decay, self.x[block][..., None] * self.B[block][..., None, :]

    def gradients(self, *, dx: Tensor, dt: Tensor, dA: Tensor, dB: Tensor, dC: Tensor, dy: Tensor) -> Gradients:
        """Back through the ordering, the product dt · u and the softplus."""
        scan, wide = self.scan, self.scan.wide
        dx, dt = self.restore(dx), self.restore(dt)
        u = scan.u.to(wide)
        du = self.steps * dx
        raw = dt + u * dx
        if self.slope is not None:
            raw = raw * self.slope
        dy = dy.to(wide)
        if scan.D is not None:
            du = du + scan.D.to(wide) * dy
        shape = scan.B.shape
        return Gradients(
            u=du.to(scan.u.dtype),
            dt=raw.to(scan.dt.dtype),
            A=dA.flatten(0, 1).to(scan.A.dtype),
            B=self.restore(dB).view(shape).to(scan.B.dtype),
            C=self.restore(dC).view(shape).to(scan.C.dtype),
            D=None if scan.D is None else (dy * u).sum((0, 1)).to(scan.D.dtype),
            bias=None if scan.bias is None else raw.sum((0, 1)).to(scan.bias.dtype),
        )


def _recur(decay: Tensor, states: Tensor, start: Tensor) -> None:
    """``states[t] += decay[t] * states[t - 1]`` in place, beginning from `start`."""
    length = len(states)
    stretch = int(math.sqrt(length)) if states[0].numel() < _STRETCH_BELOW else length
    if stretch == length:
        before = start
        for factor, state in zip(decay.unbind(), states.unbind(), strict=True):
            state.addcmul_(factor, before)
            before = state
        return
    several = length // stretch
    whole = several * stretch
    factors = decay[:whole].view(several, stretch, *decay.shape[1:])
    advanced = states[:whole].view(several, stretch, *states.shape[1:])
    since = torch.empty_like(factors)  # decay since the beginning of the stretch
    since[:, 0] = factors[:, 0]
    for place in range(1, stretch):
        advanced[:, place].addcmul_(factors[:, place], advanced[:, place - 1])
        torch.mul(factors[:, place], since[:, place - 1], out=since[:, place])
    before = start
    for number in range(several):
        advanced[number].addcmul_(since[number], before)
        before = advanced[number, -1]
    for token in range(whole, length):
        states[token].addcmul_(decay[token], before)
        before = states[token]
