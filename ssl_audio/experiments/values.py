"""Values of Python as the options that recipes are laid under."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

Recipe = str | Path | Sequence[str | Path]
"""Name or file of a recipe, or several, each laid over those before it."""

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def words_of(recipe: Recipe, chosen: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """Recipes and options as the parser of recipes takes them.

    Args:
        recipe: The recipes.
        chosen: Options by name; those that are None are left to the recipes.
        options: More of them, where None is a value.
    """
    recipes = [recipe] if isinstance(recipe, str | Path) else list(recipe)
    given = {name: value for name, value in chosen.items() if value is not None} | dict(options)
    words = [word for one in recipes for word in ("--config", str(one))]
    return words + [f"--{name}={_text(value)}" for name, value in given.items()]


def _text(value: Any) -> str:
    """A value as YAML reads it back; a plain text or path as it is."""
    return str(value) if isinstance(value, str | Path) else json.dumps(value, default=os.fspath)
