"""Options from a file held against the signature of the class that they are for, before anything is made of them."""

import dataclasses
import functools
import inspect
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ssl_audio.checkpoints.classes import classes_of, expected
from ssl_audio.errors import SslAudioError

_LARGEST = 2**53


class OptionError(SslAudioError):
    """An option of a file is not what the signature of its class says; whoever catches it knows the file."""


@dataclasses.dataclass(frozen=True, slots=True)
class Planned:
    """An object that could be made: its class is known and its options are of the right types.

    Args:
        kind: Its class.
        options: Its keyword arguments; objects among them are planned too.
    """

    kind: type
    options: dict[str, Any]

    def build(self) -> Any:
        """Make it, and what it is made of."""
        return self.kind(**{name: _built(value) for name, value in self.options.items()})


def _built(value: Any) -> Any:
    if isinstance(value, Planned):
        return value.build()
    return type(value)(map(_built, value)) if isinstance(value, list | tuple) else value


def plan(spec: Any, base: type, where: str) -> Planned:
    """The object of a base that `{class_path, init_args}` describes.

    A bare name is not enough: it would be looked up, that is imported.

    Args:
        spec: From a file.
        base: What it must be of.
        where: What to call it in messages.

    Raises:
        OptionError: if it is of no known class, or an option is unknown, missing or of another type.
    """
    if not isinstance(spec, Mapping) or "class_path" not in spec:
        raise OptionError(f"has no {where.rsplit('.', 1)[-1]} in full; expected class_path and init_args")
    named, known = spec["class_path"], classes_of(base)
    if not isinstance(named, str) or named not in known:
        raise OptionError(
            f"names {str(named)[:80]!r}; expected classes of ssl_audio, or such as are imported already, for {where}: "
            f"{expected(base)}"
        )
    extra = set(spec) - {"class_path", "init_args"}
    if extra:
        raise OptionError(f"{where}: {str(min(map(str, extra)))[:40]!r} is none of class_path and init_args")
    return Planned(known[named], _options(known[named], spec.get("init_args") or {}, where))


def _options(kind: type, given: Any, where: str) -> dict[str, Any]:
    """Keyword arguments for a class, of the types that its signature says."""
    if not isinstance(given, Mapping):
        raise OptionError(f"{where}: init_args is {_shown(given)}; expected options by name")
    types_of, parameters = _signature(kind)
    unknown = [name for name in given if name not in parameters]
    if unknown:
        raise OptionError(f"{where}: {kind.__name__} has no option {str(unknown[0])[:40]!r} in this version")
    missing = [name for name, p in parameters.items() if p.default is p.empty and name not in given]
    if missing:
        raise OptionError(f"has no {missing[0]} in full: {where}: {kind.__name__} needs it")
    return {name: typed(value, types_of.get(name, Any), f"{where}.{name}") for name, value in given.items()}


@functools.cache
def _signature(kind: type) -> tuple[dict[str, Any], dict[str, inspect.Parameter]]:
    """The types of the options of a class, and the options."""
    # A class without a constructor of its own has that of `Module`, which takes anything and names nothing.
    anything = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = {name: p for name, p in inspect.signature(kind).parameters.items() if p.kind not in anything}
    return typing.get_type_hints(inspect.unwrap(kind.__init__)), parameters  # type: ignore[misc]


def typed(value: Any, kind: Any, where: str) -> Any:
    """A value as a type wants it: tuples for lists, and planned objects for their descriptions.

    Raises:
        OptionError: if it is of another type.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _either(value, inner, where)
    if origin is Literal:
        if any(value == one and type(value) is type(one) for one in inner):
            return value
    elif origin is tuple and isinstance(value, list | tuple):
        each = inner[:1] * len(value) if inner[1:] == (...,) else inner
        if len(each) == len(value):
            return tuple(typed(one, of, where) for one, of in zip(value, each, strict=True))
    elif origin in (list, Sequence) and isinstance(value, list | tuple):
        return [typed(one, inner[0], where) for one in value]
    elif origin in (dict, Mapping) and isinstance(value, Mapping):
        return {typed(name, inner[0], where): typed(one, inner[1], where) for name, one in value.items()}
    elif kind is Any:
        return value
    elif origin is None and isinstance(kind, type):
        return _plain(value, kind, where)
    raise OptionError(f"{where} is {_shown(value)}; expected {_named(kind)}")


def _either(value: Any, kinds: Sequence[Any], where: str) -> Any:
    """The first of several types that a value is of."""
    failure: OptionError | None = None
    for kind in kinds:
        try:
            return typed(value, kind, where)
        except OptionError as error:
            # What is wrong within a value says more than that it is none of the types.
            failure = failure if str(error).startswith(f"{where} is ") else error
    raise failure or OptionError(f"{where} is {_shown(value)}; expected {' or '.join(map(_named, kinds))}")


def _plain(value: Any, kind: type, where: str) -> Any:
    """A number, a text, nothing, or a class with options of its own."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and (abs(value) > _LARGEST or not math.isfinite(value)):
        raise OptionError(f"{where} is {_shown(value)}; expected a finite number of ordinary size")
    if kind in (bool, str, type(None)):
        if isinstance(value, kind):
            return value
    elif issubclass(kind, int | float):
        whole = number and (issubclass(kind, float) or value == int(value))
        if whole:
            try:
                # jsonargparse's numbers within limits refuse what lies beyond; what they make is no plain number.
                return float(kind(value)) if issubclass(kind, float) else int(kind(value))
            except ValueError:
                pass
    elif dataclasses.is_dataclass(kind):
        return Planned(kind, _options(kind, value, where))
    else:
        return plan(value, kind, where)
    raise OptionError(f"{where} is {_shown(value)}; expected {_named(kind)}")


def _named(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    if kind is type(None):
        return "null"
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind).replace("typing.", "")


def _shown(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, int) and abs(value) > _LARGEST:
        return "a number beyond 2**53"
    return repr(value)[:60]
