"""Recipes by name: `--config demo` is `recipes/<verb>/demo.yaml`, `adapters/lora` is `recipes/adapters/lora.yaml`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ssl_audio.errors import RecipeError
from ssl_audio.experiments.recipe_files import expected, find, names_in
from ssl_audio.experiments.yaml_limits import load_yaml
from ssl_audio.training.run import RECIPE, Run, numbered

_FLAGS = ("--config", "-c")
_LARGEST = 2**20


def recipe_name(config: Any) -> str:
    paths = [path for path in (config.config or []) if path is not None]
    return "+".join(Path(str(path)).stem for path in paths) or "unnamed"


def with_recipe_paths(words: list[str], verb: str) -> list[str]:
    """Options with the names of recipes replaced by their paths: `--config demo` is `recipes/pretrain/demo.yaml`.

    Recipes are moved before all other options, so that an option always overrides them.

    Raises:
        RecipeError: if there is no such recipe, or two of them list adapters.
    """
    recipes: list[str] = []
    adapters = ""
    named, options = recipes_among(words)
    for name in named:
        path = recipe_path(name, verb)
        if "adapters" in read_recipe(Path(path)):
            if adapters:
                raise RecipeError(
                    f"--config {adapters} and {name}: both list adapters, and the second would replace the first; "
                    "take one of them, or put the adapters of both into the list of one recipe"
                )
            adapters = name
        recipes += ["--config", path]
    # The parser reports a flag without a value.
    return [*recipes, *map(_with_path, options), *(words[-1:] if words and words[-1] in _FLAGS else [])]


def with_whole_lists(words: list[str]) -> list[str]:
    """Options with a list of objects emptied before a later recipe or option replaces it.

    Of two lists of one length jsonargparse gives the objects of the second what those of the first had.

    Args:
        words: Recipes by their paths, or in JSON, before options.
    """
    found: list[str] = []
    seen: set[str] = set()
    for before, word in zip(["", *words], words, strict=False):
        if before == "--config":
            recipe = load_yaml(word) if word.startswith("{") else read_recipe(Path(word))
            options = list(_lists_in(recipe))
            found[-1:-1] = [f"--{option}=[]" for option in options if _bare(option) in seen]
            seen |= {_bare(option) for option in options}
        elif word.startswith("--") and _bare(option := word[2:].split("=")[0]) in seen:
            found.append(f"--{option}=[]")
        found.append(word)
    return found


def _lists_in(recipe: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of options that are lists of objects."""
    for name, value in recipe.items():
        if isinstance(value, dict):
            yield from _lists_in(value, f"{prefix}{name}.")
        elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
            yield f"{prefix}{name}"


def _bare(option: str) -> str:
    """A dotted name as it is where `init_args` is left out."""
    return option.replace("init_args.", "")


def recipes_among(words: list[str]) -> tuple[list[str], list[str]]:
    """The names of recipes on a command line, and the other words of it."""
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    recipes, options = [], []
    for before, word in zip(["", *words], words, strict=False):
        if before in _FLAGS:
            recipes.append(word)
        elif word not in _FLAGS:
            options.append(word)
    return recipes, options


def _with_path(word: str) -> str:
    """Replace a value such as `recipes/encoders/NAME.yaml` by the package's file if that is the only one."""
    option, equals, value = word.rpartition("=")
    if value.startswith("recipes/") and (path := find(value)) is not None:
        return f"{option}{equals}{path}"
    return word


def recipe_path(word: str, verb: str) -> str:
    """The file that a recipe's name means for a verb.

    Raises:
        RecipeError: if there is none; the message lists the existing ones.
    """
    if Path(word).is_dir() and find(f"{verb}/{word}") is None:
        raise RecipeError(
            f"--config {word}: is a folder; expected a recipe. `ssl-audio finetune --config FOLDER` runs the numbered "
            "recipes of a folder one after the other"
        )
    group, _, name = word.partition("/")
    if name and not Path(word).is_absolute() and names_in(group):
        return str(expected(name, [group], option="--config"))
    return str(expected(word, [verb, ""], option="--config"))


def read_recipe(path: Path) -> dict[str, Any]:
    """The options of a recipe by name.

    Raises:
        RecipeError: if it cannot be read, is not YAML in UTF-8, or holds something other than options by name.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise RecipeError(f"{path}: has {path.stat().st_size} bytes; expected a recipe of {_LARGEST} at most")
        found = load_yaml(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: is not UTF-8 text (byte {error.start} is {error.object[error.start]:#04x}); save it as UTF-8"
        ) from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: is not valid YAML: {' '.join(str(error).split())[:300]}") from error
    except RecipeError as error:
        raise RecipeError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise RecipeError(f"{path}: holds a {type(found).__name__}; expected options by name, such as trainer: ...")
    return found


def recipe_of(run: Run) -> dict[str, Any]:
    """The recipe that a run saved; empty before it did."""
    path = run.folder / RECIPE
    return read_recipe(path) if path.exists() else {}


def started_from(runs: Path, verb: str, name: str) -> str | None:
    """The checkpoint that the unfinished run of this name started from; None if there is none."""
    made = numbered(runs / verb / name)
    found = recipe_of(made[-1]).get("checkpoint") if made and made[-1].summary() is None else None
    return found if isinstance(found, str) else None


def section(recipe: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of a recipe; empty where it is not a mapping, which the parser reports."""
    found = recipe.get(name)
    return found if isinstance(found, dict) else {}


def asked_alone(words: list[str], option: str, default: str) -> str:
    """The value of an option on the command line; recipes are ignored."""
    found = default
    for before, word in zip(["", *words], [*words, ""], strict=True):
        if before == option:
            found = word
        elif before.startswith(f"{option}="):
            found = before.split("=", 1)[1]
    return found
