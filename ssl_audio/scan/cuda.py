"""mamba-ssm's compiled scan as a backend, by way of its extension module alone.

`import mamba_ssm` would need transformers and more, and its autograd functions know neither borders nor two directions;
the extension `selective_scan_cuda` is two plain functions. Both directions go in one launch: the groups that run
backwards are turned round first. The kernels know no borders, so a token that wipes the state is put at each.
"""

import torch
from torch import Tensor

from ssl_audio.errors import ScanError
from ssl_audio.scan.backend import (
    Backend,
    Gradients,
    Scan,
    State,
    border_in_order,
    flip_backward_groups,
    nothing_saved,
)
from ssl_audio.scan.extensions import MAMBA

# exp(dt A) is 0 in float32 for every A below -1e-6; softplus leaves such a number as it is.
_WIPE = 1e8
_SAVED_TOKENS = 2048
_MOST_STATES = 256


class Cuda(Backend):
    """`selective_scan_cuda` of stock mamba-ssm releases.

    Source: state-spaces/mamba@e9594ce, csrc/selective_scan/selective_scan.cpp (`fwd`, `bwd`: channel-first, float32
        A, D and bias, states kept every 2048 tokens).
    """

    name = "cuda"
    compiled = True
    proceeds = False

    def unfit(self, device: torch.device, dtype: torch.dtype) -> str | None:
        if device.type != "cuda":
            return f"for CUDA devices, not for {device.type}"
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            return f"for float32 and halves of it, not for {str(dtype).removeprefix('torch.')}"
        return MAMBA.fault()

    def saved_shape(self, scan: Scan) -> tuple[int, ...]:
        # With borders the sequence is longer by as many as the fullest row has, which only the data say: its
        # states are then worked out again in the backward pass.
        rows, length, channels = scan.u.shape
        if scan.border is not None:
            return (0,)
        return (rows, channels, -(-length // _SAVED_TOKENS), 2 * scan.A.shape[1])

    def forward(self, scan: Scan, *, save: bool) -> tuple[Tensor, Tensor]:
        layout = _Layout(scan)
        y, states = layout.run()
        kept = save and scan.border is None
        return layout.restore(y).to(scan.u.dtype), states if kept else nothing_saved(scan)

    def proceed(self, scan: Scan, state: State) -> tuple[Tensor, State]:
        raise ScanError(
            "scan backend cuda: mamba-ssm's kernels take no state to go on from; take triton, torch or auto"
        )

    def backward(self, scan: Scan, saved: Tensor, dy: Tensor) -> Gradients:
        layout = _Layout(scan)
        states = saved if scan.border is None else layout.run()[1]
        above = layout.channel_first(dy.to(scan.u.dtype), fill=0.0)
        du, ddt, dA, dB, dC, dD, dbias, *_ = MAMBA.load().bwd(
            *layout.tensors, None, layout.bias, above, states, None, None, scan.softplus, False
        )
        return Gradients(
            u=layout.restore(du).to(scan.u.dtype),
            dt=layout.restore(ddt).to(scan.dt.dtype),
            A=dA.to(scan.A.dtype),
            B=layout.restore_shared(dB).to(scan.B.dtype),
            C=layout.restore_shared(dC).to(scan.C.dtype),
            D=None if scan.D is None else dD.to(scan.D.dtype),
            bias=None if scan.bias is None else dbias.to(scan.bias.dtype),
        )


class _Layout:
    """The inputs as the kernels want them: (row, channel, token), every group in the order of its direction."""

    def __init__(self, scan: Scan) -> None:
        if scan.A.shape[1] > _MOST_STATES:
            raise ScanError(f"scan backend cuda: {scan.A.shape[1]} states; its kernels take at most {_MOST_STATES}")
        self.scan = scan
        self.place = self._places(border_in_order(scan))
        dtype = scan.u.dtype
        D, bias = scan.D, scan.bias
        self.bias = None if bias is None else bias.float().contiguous()
        self.tensors = (
            self.channel_first(scan.u, fill=0.0),
            self.channel_first(scan.dt.to(dtype), fill=_WIPE),
            scan.A.float().contiguous(),
            self._shared(scan.B.to(dtype)),
            self._shared(scan.C.to(dtype)),
            None if D is None else D.float().contiguous(),
        )

    def _places(self, border: Tensor | None) -> Tensor | None:
        """Where each token goes, (row, token, group), when one is put in before each border; None without borders."""
        if border is None:
            return None
        before = border.long().cumsum(1)
        self.length = border.shape[1] + int(before[:, -1].max())
        return torch.arange(border.shape[1], device=border.device)[None, :, None] + before

    def run(self) -> tuple[Tensor, Tensor]:
        """Output and states."""
        found = MAMBA.load().fwd(*self.tensors, None, self.bias, self.scan.softplus)
        return found[0], found[1]

    def channel_first(self, x: Tensor, *, fill: float) -> Tensor:
        """(row, token, channel) to (row, channel, token), with `fill` for the tokens that are put in."""
        rows, length, _ = x.shape
        return self._ordered(x.reshape(rows, length, self.scan.groups, -1), fill).flatten(1, 2)

    def _shared(self, x: Tensor) -> Tensor:
        """(row, token, group, state) to (row, group, state, token)."""
        return self._ordered(x, 0.0)

    def _ordered(self, x: Tensor, fill: float) -> Tensor:
        x = flip_backward_groups(x, self.scan)
        if self.place is not None:
            longer = x.new_full((len(x), self.length, *x.shape[2:]), fill)
            x = longer.scatter(1, self.place[..., None].expand_as(x), x)
        return x.permute(0, 2, 3, 1).contiguous()

    def restore(self, x: Tensor) -> Tensor:
        """(row, channel, token) to (row, token, channel)."""
        return self.restore_shared(x.unflatten(1, (self.scan.groups, -1))).flatten(2)

    def restore_shared(self, x: Tensor) -> Tensor:
        """(row, group, state, token) to (row, token, group, state)."""
        x = x.permute(0, 3, 1, 2)
        if self.place is not None:
            x = x.gather(1, self.place[..., None].expand(-1, -1, -1, x.shape[3]))
        return flip_backward_groups(x, self.scan)
