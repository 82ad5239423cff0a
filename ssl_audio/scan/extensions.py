"""The compiled extensions of mamba-ssm and causal-conv1d: whether each can be called, and what is wrong where not."""

import dataclasses
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Mapping
from importlib import metadata
from types import ModuleType
from typing import Any

import torch

INSTALL = (
    "MAMBA_KEEP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE CAUSAL_CONV1D_FORCE_BUILD=TRUE "
    'pip install --no-build-isolation "ssl_audio[cuda]"'
)
"""The one command that builds both: beside a CUDA torch before 2.14, a CUDA toolkit of its version (nvcc) and ninja,
packaging, setuptools, wheel. mamba-ssm 2.3.2.post1 and causal-conv1d 1.7.0 ask the compiler for C++17, and the headers
of torch 2.14 need C++20."""


@dataclasses.dataclass(frozen=True)
class Extension:
    """One of them.

    Args:
        package: What pip installs.
        module: What the package's Python code is called.
        compiled: The module that its build compiles.
        called: The module whose functions we call.
        functions: How many arguments each of these has.
    """

    package: str
    module: str
    compiled: str
    called: str
    functions: Mapping[str, int]

    def load(self) -> ModuleType:
        """The module whose functions we call."""
        return importlib.import_module(self.called)

    def fault(self) -> str | None:
        """Why it cannot be called, and what to do, in one line; None if it can."""
        try:
            module = self.load()
        except Exception as failure:
            return f"{self._missing(failure)}; {INSTALL}"
        for name, expected in self.functions.items():
            found = _arguments(getattr(module, name, None))
            if found not in (None, expected):
                takes = f"takes {found} arguments, not {expected}" if found else "is not there"
                return f"{self.package} {self.version() or ''}: its function {name} {takes}; {INSTALL}"
        return None

    def version(self) -> str | None:
        """Of the installed package; None if there is none."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None

    def _missing(self, failure: Exception) -> str:
        if importlib.util.find_spec(self.compiled) is not None:
            built = f"built for another torch or CUDA than {torch.__version__}, or against another Python"
            lines = str(failure).splitlines() or [""]
            return f"{self.compiled} does not load, so {self.package} was {built}: {lines[0][:200]}"
        if importlib.util.find_spec(self.module) is not None:
            return f"{self.package} is installed without its CUDA kernels: {self.compiled} is missing"
        return f"{self.package} is not installed"


def _arguments(function: Callable[..., Any] | None) -> int | None:
    """How many arguments a function takes, by its signature or the text that pybind11 writes; 0 if there is none."""
    if function is None:
        return 0
    try:
        return len(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return len(re.findall(r"\barg\d+:", function.__doc__ or "")) or None


MAMBA = Extension(
    package="mamba-ssm",
    module="mamba_ssm",
    compiled="selective_scan_cuda",
    called="selective_scan_cuda",
    functions={"fwd": 9, "bwd": 14},
)
"""Source: state-spaces/mamba v2.3.2.post1, csrc/selective_scan/selective_scan.cpp."""
CONVOLUTION = Extension(
    package="causal-conv1d",
    module="causal_conv1d",
    compiled="causal_conv1d_cuda",
    called="causal_conv1d.cpp_functions",
    functions={"causal_conv1d_fwd_function": 7, "causal_conv1d_bwd_function": 10},
)
"""Source: Dao-AILab/causal-conv1d v1.7.0, causal_conv1d/cpp_functions.py."""
