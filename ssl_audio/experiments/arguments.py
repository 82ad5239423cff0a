"""Checks of what a notebook passes to a function, by its annotations and before anything is done."""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import numpy as np
from jsonargparse import ArgumentError, ArgumentParser

from ssl_audio.errors import RecipeError
from ssl_audio.experiments.parsing import check_finite, one_line

_P = ParamSpec("_P")
_R = TypeVar("_R")


def checked(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function, which raises RecipeError for values of wrong types; numbers of numpy become Python's."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        bound = signature.bind(*args, **kwargs)
        hints = typing.get_type_hints(function)
        for name, value in bound.arguments.items():
            bound.arguments[name] = value = value.item() if isinstance(value, np.generic) else value
            _check(f"{function.__name__}: {name}", value, hints[name])
        check_finite(bound.arguments)
        return function(*bound.args, **bound.kwargs)

    return call


def _check(what: str, value: Any, hint: Any) -> None:
    told = f"{what} is {value!r:.100}; expected {getattr(hint, '__name__', str(hint).replace('typing.', ''))}"
    kind = typing.get_origin(hint) or hint
    if kind is Mapping or (inspect.isclass(kind) and kind.__module__.startswith("ssl_audio.")):
        if not isinstance(value, kind):
            raise RecipeError(told)
        return
    if value is None and type(None) not in typing.get_args(hint):
        raise RecipeError(told)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        parser.parse_object({"value": value})
    except (ArgumentError, TypeError, ValueError) as error:
        raise RecipeError(f"{told} ({one_line(str(error))[:200]})") from error
