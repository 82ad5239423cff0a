"""Import Lightning without what it imports and no verb needs before it trains.

At its import Lightning loads torch._dynamo (and with it sympy and FSDP) for one class and one decorator, and
torchmetrics loads scipy.signal, matplotlib, torchvision and transformers for metrics that nothing here uses. Together
they take longer than torch itself.
"""

import builtins
import contextlib
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from unittest import mock

_DYNAMO = "torch._dynamo"
_NOT_FOR_METRICS = ("matplotlib", "scipy", "torchvision", "transformers")


class _IsOptimized(type):
    """Nothing is of a class whose module nobody has imported."""

    def __instancecheck__(cls, instance: object) -> bool:
        dynamo = sys.modules.get(_DYNAMO)
        return dynamo is not None and isinstance(instance, dynamo.OptimizedModule)


class OptimizedModule(metaclass=_IsOptimized):
    """Stands for `torch._dynamo.OptimizedModule` in Lightning, which only asks `isinstance` of it."""


@contextlib.contextmanager
def light_imports() -> Iterator[None]:
    """Within this context the first import of Lightning leaves those modules out; all other imports are unchanged."""
    normal = builtins.__import__

    def importing(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> ModuleType:
        if not level and name.partition(".")[0] == "lightning" and "lightning" not in sys.modules:
            with _dynamo_at_first_use(), _metrics_alone():
                normal("lightning.pytorch")
        if name == _DYNAMO and fromlist == ("OptimizedModule",) and _is_of_lightning(globals):
            return sys.modules[__name__]
        return normal(name, globals, locals, fromlist, level)

    with mock.patch.object(builtins, "__import__", importing):
        yield


def _is_of_lightning(globals: Any) -> bool:
    return globals is not None and str(globals.get("__name__")).startswith("lightning.")


@contextlib.contextmanager
def _dynamo_at_first_use() -> Iterator[None]:
    """Replace `torch.compiler.disable` by the one of torch's optimizers, which imports torch._dynamo when called."""
    import torch

    later = getattr(torch, "_disable_dynamo", None)
    with mock.patch.object(torch.compiler, "disable", later or torch.compiler.disable):
        yield


@contextlib.contextmanager
def _metrics_alone() -> Iterator[None]:
    """Import torchmetrics as if `_NOT_FOR_METRICS` were not installed, or in full if it checks in other ways."""
    from lightning_utilities.core import imports

    available = getattr(imports, "package_available", None)
    check = getattr(getattr(imports, "RequirementCache", None), "_check_available", None)
    if available is None or check is None:
        yield
        return

    def check_others(requirement: Any) -> None:
        # "transformers>=4.4" is a requirement of transformers.
        if re.split(r"[^\w.-]", str(requirement.requirement), maxsplit=1)[0] in _NOT_FOR_METRICS:
            requirement.available, requirement.message = False, "not for metrics"
        check(requirement)

    with (
        mock.patch.object(imports, "package_available", lambda name: name not in _NOT_FOR_METRICS and available(name)),
        mock.patch.object(imports.RequirementCache, "_check_available", check_others),
    ):
        import torchmetrics  # noqa: F401
    yield
