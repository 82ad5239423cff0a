"""Custom operators whose first call does not import torch's compiler.

At the first call of a custom operator torch imports torch._dynamo, to keep the compiler out of it. That takes more than
a second, and as long as nobody has imported torch._dynamo there is no compiler to keep out.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any

import torch

_DYNAMO = "torch._dynamo"
_KEPT = "__dynamo_disable"  # where torch._compile keeps what it calls; without it there, it imports torch._dynamo


def operator(name: str) -> Callable[[Callable[..., Any]], Any]:
    """`torch.library.custom_op` without that import."""

    def made(function: Callable[..., Any]) -> Any:
        found = torch.library.custom_op(name, mutates_args=())(function)
        # Of torch 2.14's own insides; where they are others, the import is back.
        inner = getattr(getattr(found, "_backend_fns", {}).get(None), "__wrapped__", None)
        if inner is not None:
            setattr(inner, _KEPT, _kept_out(inner))
        return found

    return made


def _kept_out(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, kept from the compiler as soon as there is one."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if _DYNAMO not in sys.modules:
            return function(*args, **kwargs)
        kept = importlib.import_module(_DYNAMO).disable(function, wrapping=False)
        setattr(function, _KEPT, kept)
        return kept(*args, **kwargs)

    return call
