"""Types in the help of options, in words rather than as Python writes them."""

import re
from argparse import Action
from typing import Any

from jsonargparse import DefaultHelpFormatter

_USAGE_LINES = 16
_WORDS = {
    "bool": "true or false",
    "str": "text",
    "int": "whole number",
    "float": "number",
    "Path": "path",
    "PositiveInt": "whole number above 0",
    "NonNegativeInt": "whole number from 0",
    "PositiveFloat": "number above 0",
    "NonNegativeFloat": "number from 0",
    "ClosedUnitInterval": "0 to 1",
    "OpenUnitInterval": "between 0 and 1",
}


class PlainHelp(DefaultHelpFormatter):
    """Help whose types are words."""

    def _get_type_str(self, action: Action) -> str | None:
        told = super()._get_type_str(action)
        # Choices stand behind the option already.
        return None if told is None or self._shows_choices(action) else in_words(told)

    def _format_usage(self, usage: Any, actions: Any, groups: Any, prefix: Any) -> str:
        whole = super()._format_usage(usage, actions, groups, prefix)
        if whole.count("\n") <= _USAGE_LINES:
            return whole
        needed = [action for action in actions if action.required or not action.option_strings]
        return super()._format_usage(usage, needed, [], prefix).rstrip() + " [options]\n\n"

    def _metavar_formatter(self, action: Action, default_metavar: Any) -> Any:
        # Of lists of paths jsonargparse says in how many ways they may be written.
        if str(action.metavar).startswith("'["):
            return lambda count: (default_metavar,) * count
        return super()._metavar_formatter(action, default_metavar)

    def _expand_help(self, action: Action) -> str:
        return re.sub(r"default: (True|False)", lambda found: found[0].lower(), super()._expand_help(action))

    def _shows_choices(self, action: Action) -> bool:
        return bool(action.option_strings) and str(self._metavar_formatter(action, "")(1)[0]).startswith("{")


def in_words(told: str) -> str:
    """A type as jsonargparse writes it, in words.

    Args:
        told: Such as ``PositiveInt | null`` or ``Optional[list[Path]]``.
    """
    told = re.sub(r"<class '([\w.]+)'>", lambda found: found[1].rsplit(".", 1)[-1], told.strip())
    if (inner := _inside(told, "Optional")) is not None:
        return in_words(inner)
    parts = [part for part in _apart(told, " | ") if part != "null"]
    if len(parts) != 1 or parts[0] != told:
        return " or ".join(map(in_words, parts))
    if (inner := _inside(told, "Union")) is not None:
        return " or ".join(in_words(part) for part in _apart(inner, ", ") if part not in ("null", "NoneType"))
    if (inner := _inside(told, "Literal")) is not None:
        return "one of " + inner.replace("'", "")
    if (inner := _inside(told, "list")) is not None:
        return "list of " + re.sub(r"(path|text|number)", r"\1s", in_words(inner))
    if (inner := _inside(told, "tuple")) is not None:
        return f"list of {', '.join(map(in_words, _apart(inner, ', ')))}"
    return _WORDS.get(told, told)


def _inside(told: str, name: str) -> str | None:
    return told[len(name) + 1 : -1] if told.startswith(f"{name}[") and told.endswith("]") else None


def _apart(told: str, mark: str) -> list[str]:
    """The parts between marks that lie in no brackets."""
    parts, depth, begin = [], 0, 0
    for place, letter in enumerate(told):
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if not depth and told.startswith(mark, place):
            parts.append(told[begin:place])
            begin = place + len(mark)
    return [*parts, told[begin:]]
