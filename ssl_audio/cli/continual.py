"""`ssl-audio continual`: tasks one after the other by several methods, and tables of what is known of each."""

import importlib
import re
from typing import Any

from jsonargparse import Namespace

from ssl_audio.cli.results import add_result
from ssl_audio.errors import RecipeError
from ssl_audio.experiments.continual import continual
from ssl_audio.experiments.continual_methods import Method, Sequential
from ssl_audio.experiments.continual_plan import Continual, Task
from ssl_audio.experiments.parsing import VerbParser
from ssl_audio.experiments.recipes import recipe_name, with_recipe_paths
from ssl_audio.names import suggest


def run(words: list[str]) -> None:
    """Parse, learn, and print the tables."""
    parser = VerbParser(
        prog="ssl-audio continual",
        description="Learn tasks in sequence by several methods, and test on all of them after each.",
    )
    parser.add_argument("--config", action="config", help="A recipe of recipes/continual, or the file of one.")
    parser.add_class_arguments(Continual, None, as_positional=False)
    try:
        chosen = parser.parse_args(with_recipe_paths(words, "continual"))
    except RecipeError as error:
        raise _about_methods(str(error)) from None
    name = chosen.name or recipe_name(chosen)
    # Options of trainings may describe objects, which are made by the trainings alone.
    options = {key: _plain(value) for key, value in vars(chosen).items() if key != "config"}
    options["tasks"] = {key: Task(**value) for key, value in options["tasks"].items()}
    options["methods"] = {key: _method(value) for key, value in options["methods"].items()}
    finished = continual(Continual(**{**options, "name": name}))
    add_result({"folder": finished.folder, **finished.summary})
    print(f"\n{finished.text}")


def _about_methods(message: str) -> RecipeError:
    """The same, and which classes there are where it is about the class of a method."""
    message = re.sub(r"\(see `[^`]*--help`\)", "(see `ssl-audio continual --help`)", message)
    wrong = re.search(r'"methods.*?": Expected a dot import path string: (\S+)', message)
    if wrong is None:
        return RecipeError(message)
    known = [kind.__name__ for kind in Method.__subclasses__() + Sequential.__subclasses__()]
    return RecipeError(
        f"methods: no class {wrong[1]!r}{suggest(wrong[1], known)}; expected one of {', '.join(sorted(known))}, or the "
        "path of one of your own, such as mine.Method"
    )


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
