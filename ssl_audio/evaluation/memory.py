"""How much memory a piece of work takes at its highest."""

import contextlib
import ctypes
import math
import resource
import sys
from pathlib import Path

import torch


class PeakMemory:
    """Most memory held at once within the block, beyond what was held when it began.

    Args:
        device: Whose: a GPU's, or with `cpu` this process'.

    Attributes:
        mebibytes: How much, after the block.
    """

    mebibytes = math.nan

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated() / 2**20
        else:
            with contextlib.suppress(
                OSError, AttributeError
            ):  # glibc: what was freed before must not hide what is taken
                ctypes.CDLL(None).malloc_trim(0)
            with contextlib.suppress(OSError):  # Linux: forget the peak so far
                Path("/proc/self/clear_refs").write_text("5")
            self.before = _resident("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        most = torch.cuda.max_memory_allocated() / 2**20 if self.device.type == "cuda" else _resident("VmHWM")
        self.mebibytes = max(0.0, most - self.before)


def resident_megabytes() -> float:
    """Memory of this process now."""
    return _resident("VmRSS")


def _resident(name: str) -> float:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 1024)
