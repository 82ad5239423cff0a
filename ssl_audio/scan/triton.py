"""Our Triton kernels as a backend: for GPUs where nothing can be compiled with a CUDA toolchain."""

import importlib.util
import os
from typing import Any

import torch
from torch import Tensor

from ssl_audio.scan.backend import Backend, Gradients, Scan, State, nothing_saved

CHUNK = 32
# A warp of 32 threads has all states of its channels to itself, so that sums over either stay within it.
CHANNELS = 16
WARPS = 1


def interpreted() -> bool:
    """Whether Triton runs its kernels in Python, which it does on any device."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


class Triton(Backend):
    """Forward and backward, borders, both directions without a flip; see triton_kernels.py."""

    name = "triton"
    compiled = True

    def unfit(self, device: torch.device, dtype: torch.dtype) -> str | None:
        if device.type != "cuda" and not interpreted():
            return f"for CUDA devices (or TRITON_INTERPRET=1), not for {device.type}"
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            return f"for float32 and halves of it, not for {str(dtype).removeprefix('torch.')}"
        if importlib.util.find_spec("triton") is None:
            return "triton is not installed; pip install triton"
        return None

    def saved_shape(self, scan: Scan) -> tuple[int, ...]:
        rows, length, channels = scan.u.shape
        return (rows, -(-length // CHUNK), channels, scan.A.shape[1])

    def forward(self, scan: Scan, *, save: bool) -> tuple[Tensor, Tensor]:
        from ssl_audio.scan.triton_kernels import forward_kernel

        y = torch.empty_like(scan.u, memory_format=torch.contiguous_format)
        saved = scan.u.new_empty(self.saved_shape(scan), dtype=torch.float32) if save else nothing_saved(scan)
        inputs, sizes, options = _arguments(scan)
        forward_kernel[_grid(scan)](
            *inputs, y, saved, saved, *sizes, **options, SAVE=save, CARRY=False, num_warps=WARPS
        )
        return y, saved

    def proceed(self, scan: Scan, state: State) -> tuple[Tensor, State]:
        from ssl_audio.scan.triton_kernels import forward_kernel

        y = torch.empty_like(scan.u, memory_format=torch.contiguous_format)
        carried = state.float().clone(memory_format=torch.contiguous_format)
        inputs, sizes, options = _arguments(scan)
        forward_kernel[_grid(scan)](
            *inputs, y, carried, carried, *sizes, **options, SAVE=False, CARRY=True, num_warps=WARPS
        )
        return y, carried

    def backward(self, scan: Scan, saved: Tensor, dy: Tensor) -> Gradients:
        from ssl_audio.scan.triton_kernels import backward_kernel

        rows, length, channels = scan.u.shape
        groups, states = scan.groups, scan.A.shape[1]
        grid = _grid(scan)

        def wide(*shape: int) -> Tensor:
            return scan.u.new_empty(shape, dtype=torch.float32)

        inputs, sizes, options = _arguments(scan)
        du, ddt = (torch.empty(scan.u.shape, dtype=scan.u.dtype, device=scan.u.device) for _ in range(2))
        dA, dskip, dbias = wide(rows, channels, states), wide(rows, channels), wide(rows, channels)
        dB, dC = (wide(grid[1] // groups, rows, length, groups, states) for _ in range(2))
        scratch = wide(rows * grid[1] * CHUNK * CHANNELS * options["STATES"])
        dy = dy.to(scan.u.dtype).contiguous()
        backward_kernel[grid](
            *inputs, dy, saved, scratch, du, ddt, dA, dB, dC, dskip, dbias, rows, *sizes, **options, num_warps=WARPS
        )
        return Gradients(
            u=du,
            dt=ddt,
            A=dA.sum(0).to(scan.A.dtype),
            B=dB.sum(0).to(scan.B.dtype),
            C=dC.sum(0).to(scan.C.dtype),
            D=None if scan.D is None else dskip.sum(0).to(scan.D.dtype),
            bias=None if scan.bias is None else dbias.sum(0).to(scan.bias.dtype),
        )


def _grid(scan: Scan) -> tuple[int, int]:
    rows, _, channels = scan.u.shape
    return rows, scan.groups * -(-(channels // scan.groups) // CHANNELS)


def _arguments(scan: Scan) -> tuple[list[Tensor], list[int], dict[str, Any]]:
    """Tensors, sizes and compile-time options that both kernels take."""
    zeros = scan.u.new_zeros(scan.u.shape[2], dtype=torch.float32)
    tensors = [
        scan.u.contiguous(),
        scan.dt.to(scan.u.dtype).contiguous(),
        scan.A.float().contiguous(),
        scan.B.contiguous(),
        scan.C.contiguous(),
        zeros if scan.D is None else scan.D.float().contiguous(),
        zeros if scan.bias is None else scan.bias.float().contiguous(),
        zeros if scan.border is None else scan.border.to(torch.int8).contiguous(),
    ]
    _, length, channels = scan.u.shape
    states = scan.A.shape[1]
    sizes = [length, channels, scan.groups, states, scan.forward_groups, -(-length // CHUNK)]
    options = {
        "CHUNK": CHUNK,
        "STATES": 1 << (states - 1).bit_length(),
        "CHANNELS": CHANNELS,
        "SOFTPLUS": scan.softplus,
        "HAS_BORDER": scan.border is not None,
    }
    return tensors, sizes, options
