"""The compiled CPU kernels: a shared library with a plain C interface, called through ctypes."""

import ctypes
import functools
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ssl_audio.errors import ScanError
from ssl_audio.scan import build
from ssl_audio.scan.backend import Backend, Gradients, Scan, State, nothing_saved

_NUMBERS = {torch.float32: 0, torch.bfloat16: 1}


def _structure(name: str, numbers: str, pointers: str, last: str = "") -> type[ctypes.Structure]:
    fields = [(field, ctypes.c_int64) for field in numbers.split()]
    fields += [(field, ctypes.c_void_p) for field in pointers.split()]  # type: ignore[misc]
    fields += [(field, ctypes.c_int64) for field in last.split()]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


# The structs of kernels.cpp, field by field.
_ScanArguments = _structure(
    "Scan",
    "rows length channels groups states forward_groups softplus bf16 threads "
    "u_row u_token dt_row dt_token dy_row dy_token",
    "u dt A B C D bias border y saved start end dy du ddt dA dD dbias dB dC",
    "split",
)
_ConvolutionArguments = _structure(
    "Convolution",
    "rows length channels taps reverse bf16 threads x_row x_token y_row y_token dy_row dy_token",
    "x weight bias border y dy dx dweight dbias",
)


FORWARD_OPERATIONS = 11
"""Vector operations that one state of one token takes: 8 for the exponential, 3 for state and output."""
BACKWARD_OPERATIONS = 18
"""The same going back: 10 to work the state out again, 8 for the gradients."""


@functools.cache
def kernels(variant: str | None = None) -> ctypes.CDLL:
    """The library, built if it has to be.

    Args:
        variant: One of `build.VARIANTS`; None is the widest this CPU runs.

    Raises:
        ScanError: if it cannot be built or loaded.
    """
    path = build.library(variant)
    try:
        found = ctypes.CDLL(str(path))
    except OSError as error:
        raise ScanError(f"cannot load {path} ({error}); delete it to build it again") from error
    for name in ("lanes", "chunk", "most_taps"):
        getattr(found, name).restype = ctypes.c_int64
    found.multiply_adds.restype = ctypes.c_float
    found.multiply_adds.argtypes = [ctypes.c_int64]
    return found


def _call(function: Callable[..., Any], arguments: type[ctypes.Structure], values: dict[str, Any]) -> None:
    """Tensors are passed as pointers to their first element."""
    plain = {name: value.data_ptr() if isinstance(value, Tensor) else value for name, value in values.items()}
    function(ctypes.byref(arguments(**plain)))


def neighbours(x: Tensor) -> Tensor:
    """The same values with channels next to each other."""
    return x if x.stride(-1) == 1 else x.contiguous()


class Cpu(Backend):
    """AVX-512, AVX2 or whatever there is; see kernels.cpp.

    Args:
        variant: One of `build.VARIANTS`; None is the widest this CPU runs.
    """

    name = "cpu"
    compiled = True

    def __init__(self, variant: str | None = None) -> None:
        self.variant = variant

    def unfit(self, device: torch.device, dtype: torch.dtype) -> str | None:
        if device.type != "cpu":
            return f"for the CPU, not for {device.type}"
        if dtype not in _NUMBERS:
            return f"for float32 and bfloat16, not for {str(dtype).removeprefix('torch.')}"
        try:
            kernels(self.variant)
        except ScanError as error:
            return str(error)
        return None

    def saved_shape(self, scan: Scan) -> tuple[int, ...]:
        rows, length, channels = scan.u.shape
        return (rows, -(-length // kernels(self.variant).chunk()), scan.A.shape[1], channels)

    def forward(self, scan: Scan, *, save: bool) -> tuple[Tensor, Tensor]:
        values = _shared(scan)
        y = torch.empty_like(scan.u, memory_format=torch.contiguous_format)
        saved = torch.empty(self.saved_shape(scan)) if save else nothing_saved(scan)
        _call(kernels(self.variant).scan_forward, _ScanArguments, values | {"y": y, "saved": saved if save else None})
        return y, saved

    def proceed(self, scan: Scan, state: State) -> tuple[Tensor, State]:
        y = torch.empty_like(scan.u, memory_format=torch.contiguous_format)
        start = _plain(state.transpose(1, 2))
        end = torch.empty_like(start)
        results = {"y": y, "start": start, "end": end}
        _call(kernels(self.variant).scan_forward, _ScanArguments, _shared(scan) | results)
        return y, end.transpose(1, 2)

    def backward(self, scan: Scan, saved: Tensor, dy: Tensor) -> Gradients:
        values = _shared(scan)
        rows, length, channels = scan.u.shape
        groups, states = scan.groups, scan.A.shape[1]
        # B and C of a group are shared by its channels: a worker owns a stretch of them, and stretches are added up.
        blocks = -(-(channels // groups) // kernels(self.variant).lanes())
        split = max(1, min(blocks, -(-values["threads"] // (rows * groups))))
        dy = neighbours(dy.to(scan.u.dtype))
        du, ddt = (torch.empty(scan.u.shape, dtype=scan.u.dtype) for _ in range(2))
        dA, dD, dbias = torch.empty(rows, channels, states), torch.empty(rows, channels), torch.empty(rows, channels)
        dB, dC = (torch.empty(split, rows, length, groups, states) for _ in range(2))
        results = {"du": du, "ddt": ddt, "dA": dA, "dD": dD, "dbias": dbias, "dB": dB, "dC": dC}
        strides = {"dy_row": dy.stride(0), "dy_token": dy.stride(1)}
        _call(
            kernels(self.variant).scan_backward,
            _ScanArguments,
            values | results | strides | {"dy": dy, "saved": saved, "split": split},
        )
        return Gradients(
            u=du,
            dt=ddt,
            A=dA.sum(0).to(scan.A.dtype),
            B=dB.sum(0).to(scan.B.dtype),
            C=dC.sum(0).to(scan.C.dtype),
            D=None if scan.D is None else dD.sum(0).to(scan.D.dtype),
            bias=None if scan.bias is None else dbias.sum(0).to(scan.bias.dtype),
        )


def _shared(scan: Scan) -> dict[str, Any]:
    """What both passes are told. The tensors in it live as long as the dictionary."""
    u, dt = neighbours(scan.u), neighbours(scan.dt.to(scan.u.dtype))
    rows, length, channels = u.shape
    return {
        "rows": rows,
        "length": length,
        "channels": channels,
        "groups": scan.groups,
        "states": scan.A.shape[1],
        "forward_groups": scan.forward_groups,
        "softplus": int(scan.softplus),
        "bf16": _NUMBERS[u.dtype],
        "threads": torch.get_num_threads(),
        "u_row": u.stride(0),
        "u_token": u.stride(1),
        "dt_row": dt.stride(0),
        "dt_token": dt.stride(1),
        "u": u,
        "dt": dt,
        "A": _plain(scan.A),
        "B": _plain(scan.B),
        "C": _plain(scan.C),
        "D": None if scan.D is None else _plain(scan.D),
        "bias": None if scan.bias is None else _plain(scan.bias),
        "border": None if scan.border is None else scan.border.contiguous(),
    }


def _plain(x: Tensor) -> Tensor:
    return x.detach().float().contiguous()


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, border: Tensor | None, *, reverse: bool) -> Tensor:
    """SiLU of the causal convolution; see `scan.convolution`."""
    values = _convolution(x, weight, bias, border, reverse=reverse)
    y = torch.empty(x.shape, dtype=x.dtype)
    _call(
        kernels().convolution_forward,
        _ConvolutionArguments,
        values | {"y": y, "y_row": y.stride(0), "y_token": y.stride(1)},
    )
    return y


def convolve_backward(
    x: Tensor, weight: Tensor, bias: Tensor | None, border: Tensor | None, dy: Tensor, *, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    values = _convolution(x, weight, bias, border, reverse=reverse)
    dy = neighbours(dy.to(x.dtype))
    dx = torch.empty(x.shape, dtype=x.dtype)
    dweight = torch.empty(len(x), weight.shape[1], weight.shape[0])
    dbias = torch.empty(len(x), weight.shape[0])
    results = {"dy": dy, "dy_row": dy.stride(0), "dy_token": dy.stride(1), "dx": dx, "dweight": dweight, "dbias": dbias}
    _call(kernels().convolution_backward, _ConvolutionArguments, values | results)
    return dx, dweight.sum(0).T.to(weight.dtype), dbias.sum(0)


def _convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, border: Tensor | None, *, reverse: bool
) -> dict[str, Any]:
    x = neighbours(x)
    return {
        "rows": x.shape[0],
        "length": x.shape[1],
        "channels": x.shape[2],
        "taps": weight.shape[1],
        "reverse": int(reverse),
        "bf16": _NUMBERS[x.dtype],
        "threads": torch.get_num_threads(),
        "x_row": x.stride(0),
        "x_token": x.stride(1),
        "x": x,
        "weight": _plain(weight),
        "bias": None if bias is None else _plain(bias),
        "border": None if border is None else border.contiguous(),
    }


def multiply_adds_per_second(variant: str | None = None) -> float:
    """Fused multiply-adds that one thread reaches: the bound of the arithmetic.

    Args:
        variant: One of `build.VARIANTS`; None is the widest this CPU runs.
    """
    rounds, best, compiled = 200_000, float("inf"), kernels(variant)
    for _ in range(5):
        start = time.perf_counter()
        compiled.multiply_adds(rounds)
        best = min(best, time.perf_counter() - start)
    return rounds * 16 * compiled.lanes() / best
