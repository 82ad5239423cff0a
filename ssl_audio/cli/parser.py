"""Typed functions as verbs."""

from collections.abc import Callable
from typing import Any

from ssl_audio.experiments.parsing import VerbParser, check_finite, unwrapped


def call(function: Callable[..., Any], words: list[str], *, prog: str, positional: bool = True) -> Any:
    """Call a typed function with options from the command line; its signature and docstring are the help."""
    parser = VerbParser(prog=prog, description=(function.__doc__ or "").split("\n\n")[0])
    parser.add_function_arguments(function, as_positional=positional, as_group=False, fail_untyped=True)
    chosen = parser.parse_args(words)
    with unwrapped():
        chosen = parser.instantiate_classes(chosen)
    values = chosen.as_dict() if hasattr(chosen, "as_dict") else vars(chosen)
    check_finite(values)
    return function(**values)
