"""Our Triton kernels compiled for GPUs that are not there: whether they compile, and what of a GPU they take."""

# mypy: disable-error-code="no-untyped-call"
import dataclasses
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_audio.errors import ScanError
from ssl_audio.scan.triton import CHANNELS, CHUNK, WARPS
from ssl_audio.storing import store

ARCHITECTURES = (80, 90, 100)
"""Compute capabilities: A100, H100 and H200, B200."""

_NUMBERS = {"rows", "L", "D", "G", "N", "forward_groups", "chunks"}
_HALVED = {"u", "dt", "B", "C", "y", "dy", "du", "ddt"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one kernel takes on one architecture.

    Args:
        architecture: Compute capability times ten.
        kernel: Its name.
        dtype: Of the activations.
        registers: Of a thread; 255 is the most there is.
        spilled_bytes: Of a thread, in memory for want of registers.
        shared_bytes: Of a program.
    """

    architecture: int
    kernel: str
    dtype: str
    registers: int
    spilled_bytes: int
    shared_bytes: int


def compile_ahead(
    architectures: Sequence[int] = ARCHITECTURES, *, states: int = 16, half: bool = False
) -> list[Resources]:
    """Compile both kernels as training uses them, for GPUs of these architectures, without one.

    Args:
        architectures: Compute capabilities times ten.
        states: States of a channel.
        half: Activations in bfloat16, else in float32.

    Raises:
        ScanError: if Triton is missing, or a kernel does not compile.
    """
    try:
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.backends.nvidia.compiler import get_ptxas
        from triton.compiler import ASTSource

        from ssl_audio.scan.triton_kernels import backward_kernel, forward_kernel
    except ImportError as error:
        raise ScanError(f"Triton's compiler is not here ({error}); pip install triton") from error

    found = []
    options = {
        "CHUNK": CHUNK, "STATES": 1 << (states - 1).bit_length(), "CHANNELS": CHANNELS, "SOFTPLUS": True,
        "HAS_BORDER": True,
    }  # fmt: skip
    for architecture in architectures:
        for kernel, more in ((forward_kernel, {"SAVE": True, "CARRY": False}), (backward_kernel, {})):
            name = kernel.fn.__name__
            source = ASTSource(kernel, _signature(kernel, half=half), constexprs=options | more)
            try:
                compiled = triton.compile(
                    source, target=GPUTarget("cuda", architecture, 32), options={"num_warps": WARPS}
                )
                log = _assembled(compiled.asm["ptx"], get_ptxas(architecture).path)
            except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                raise ScanError(f"{name} does not compile for sm_{architecture}: {error}") from error
            found.append(
                Resources(
                    architecture=architecture,
                    kernel=name,
                    dtype="bfloat16" if half else "float32",
                    registers=_number(r"Used (\d+) registers", log),
                    spilled_bytes=_number(r"(\d+) bytes spill stores", log),
                    shared_bytes=int(compiled.metadata.shared),
                )
            )
    return found


def _signature(kernel: Any, *, half: bool) -> dict[str, str]:
    kinds = {}
    for parameter in kernel.params:
        name = parameter.name
        if parameter.is_constexpr:
            kinds[name] = "constexpr"
        elif name in _NUMBERS:
            kinds[name] = "i32"
        elif name == "border":
            kinds[name] = "*i8"
        else:
            kinds[name] = "*bf16" if half and name in _HALVED else "*fp32"
    return kinds


def _assembled(ptx: str, ptxas: str) -> str:
    """What the assembler says of a kernel."""
    target = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        store(path, ptx.encode())
        done = subprocess.run(
            [ptxas, "-v", f"--gpu-name={target[1] if target else 'sm_80'}", str(path), "-o", f"{path}.cubin"],
            check=True, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    return done.stderr


def _number(pattern: str, log: str) -> int:
    found = re.search(pattern, log)
    if found is None:
        raise ScanError(f"the assembler's report has no {pattern!r}: {log[:200]!r}")
    return int(found[1])
