"""Python values as options of the command line."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ssl_audio.errors import RecipeError

Recipe = str | Path | Sequence[str | Path]
"""Name or file of a recipe, or several; later ones override earlier ones."""

OptionValue = str | bool | int | float | list | dict | None
"""The value of an option in a recipe within a recipe. (Of `Any` a parser makes objects where it describes some.)"""

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def words_of(recipe: Recipe, chosen: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """Recipes and options as words of a command line.

    Args:
        recipe: The recipes.
        chosen: Options by name; None leaves the recipe's value.
        options: More options, where None is a value.
    """
    recipes = [recipe] if isinstance(recipe, str | Path) else list(recipe)
    question = next((name for name in options if name in ("config", "help", "print_config")), None)
    if question is not None:
        raise RecipeError(f"options: {question} is for the command line; expected options of a recipe by name")
    given = {name: value for name, value in chosen.items() if value is not None} | dict(options)
    words = [word for one in recipes for word in ("--config", str(one))]
    return words + [f"--{name}={_text(value)}" for name, value in given.items()]


def _text(value: Any) -> str:
    """A value as YAML; a string or path unchanged."""
    if isinstance(value, str | Path):
        return str(value)
    try:
        return json.dumps(value, default=_plain)
    except TypeError as error:
        raise RecipeError(f"options: a {type(value).__name__} is no value of an option ({value!r:.100})") from error


def _plain(value: Any) -> Any:
    """Numbers of numpy, and paths."""
    return value.item() if isinstance(value, np.generic) else os.fspath(value)
