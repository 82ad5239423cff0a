"""`ssl-audio continual`: tasks one after the other by several methods, and tables of what is known of each."""

import importlib
from typing import Any

from jsonargparse import Namespace

from ssl_audio.experiments.continual import continual
from ssl_audio.experiments.continual_methods import Method
from ssl_audio.experiments.continual_plan import Continual, Task
from ssl_audio.experiments.parsing import VerbParser
from ssl_audio.experiments.recipes import recipe_name, with_recipe_paths


def run(words: list[str]) -> None:
    """Parse, learn, and print the tables."""
    parser = VerbParser(
        prog="ssl-audio continual",
        description="Learn tasks one after the other by several methods, and test all of them after each.",
    )
    parser.add_argument("--config", action="config", help="A recipe of recipes/continual, or the file of one.")
    parser.add_class_arguments(Continual, None, as_positional=False)
    chosen = parser.parse_args(with_recipe_paths(words, "continual"))
    name = chosen.name or recipe_name(chosen)
    # Options of trainings may describe objects, which are made by the trainings alone.
    options = {key: _plain(value) for key, value in vars(chosen).items() if key != "config"}
    options["tasks"] = {key: Task(**value) for key, value in options["tasks"].items()}
    options["methods"] = {key: _method(value) for key, value in options["methods"].items()}
    print(f"\n{continual(Continual(**{**options, 'name': name})).text}")


def _method(told: Any) -> Method:
    if isinstance(told, Method):
        return told
    module, _, name = told["class_path"].rpartition(".")  # the parser has checked that it is a Method
    found: Method = getattr(importlib.import_module(module), name)(**told.get("init_args", {}))
    return found


def _plain(value: Any) -> Any:
    """Dictionaries for what the parser has of its own."""
    if isinstance(value, Namespace | Task):
        value = vars(value)
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
