"""What the pickle in a file would make, found out without making it."""

import io
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

_STORAGES = {
    "BoolStorage": 1,
    "ByteStorage": 1,
    "CharStorage": 1,
    "ShortStorage": 2,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "IntStorage": 4,
    "FloatStorage": 4,
    "LongStorage": 8,
    "DoubleStorage": 8,
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
    "UntypedStorage": 1,
}
"""Bytes of an element of each kind of storage."""

_BYTES = {f"{place}.{name}": size for name, size in _STORAGES.items() for place in ("torch", "torch.storage")}
_NAMES = {
    *_BYTES,
    "builtins.set",
    "collections.OrderedDict",
    "collections.defaultdict",
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
}
_DEEPEST_TUPLE = 16


class ForbiddenError(Exception):
    """The pickle names something that no tensor and no plain value needs."""


class _Inert(dict[Any, Any]):
    """Stands for an object that is not made."""

    def __init__(self, *given: Any) -> None:
        super().__init__()


class _Name(str):
    """Stands for what a name means; calling it makes nothing."""

    def __call__(self, *given: Any) -> _Inert:
        return _Inert()


# The C implementation cannot be watched at its work.
class PickleScan(pickle._Unpickler):
    """Reads a pickle, but imports and makes nothing other than built-in containers, numbers and text.

    Args:
        file: At the beginning of the pickle.

    Attributes:
        storages: Bytes of each storage that tensors lie in, by its key.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: io.RawIOBase | io.BufferedIOBase) -> None:
        super().__init__(file)
        self.storages: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> _Name:
        """The name itself.

        Raises:
            ForbiddenError: if it is none that a checkpoint needs.
        """
        full = f"{module}.{name}"
        if full not in _NAMES:
            raise ForbiddenError(full)
        return _Name(full)

    def persistent_load(self, found: Any) -> _Inert:
        """Note a storage: `("storage", kind, key, place, elements)`, and a view of it in old files."""
        _, kind, key, _, elements, *_ = found
        if isinstance(elements, bool) or not isinstance(elements, int) or elements < 0:
            raise ValueError(f"a storage of {elements!r} elements")
        self.storages[str(key)] = max(elements * _BYTES[str(kind)], self.storages.get(str(key), 0))
        return _Inert()


def _shallow(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """To hash tuples within tuples takes the processor's stack, and the process with it where it ends."""

    def loaded(scan: Any) -> None:
        load(scan)
        if _depth(scan.stack[-1]) > _DEEPEST_TUPLE:
            raise ForbiddenError(f"tuples more than {_DEEPEST_TUPLE} deep")

    return loaded


def _depth(value: Any) -> int:
    # No deeper than one more than allowed, because whatever is inside was looked at when it was made.
    return 1 + max(map(_depth, value), default=0) if isinstance(value, tuple) else 0


for _code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
    PickleScan.dispatch[_code[0]] = _shallow(PickleScan.dispatch[_code[0]])
