"""Recipes by name: `--config demo` is `recipes/<verb>/demo.yaml`, `adapters/lora` is `recipes/adapters/lora.yaml`."""

from pathlib import Path
from typing import Any

from ssl_audio.cli.main import suggest
from ssl_audio.errors import RecipeError

RECIPES = Path("recipes")
_FLAGS = ("--config", "-c")


def recipe_name(config: Any) -> str:
    paths = [path for path in (config.config or []) if path is not None]
    return "+".join(Path(str(path)).stem for path in paths) or "unnamed"


def with_recipe_paths(words: list[str], verb: str) -> list[str]:
    """Options with the names of recipes replaced by their paths: `--config demo` is `recipes/pretrain/demo.yaml`.

    Recipes come to stand before all other options, so that an option wins wherever it stands.
    """
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    recipes, options = [], []
    for before, word in zip(["", *words], words, strict=False):
        if before in _FLAGS:
            recipes += ["--config", recipe_path(word, verb)]
        elif word not in _FLAGS:
            options.append(word)
    # The parser says what is wrong with a flag that nothing follows.
    return [*recipes, *options, *(words[-1:] if words and words[-1] in _FLAGS else [])]


def recipe_path(word: str, verb: str) -> str:
    """The file that a recipe's name means for a verb.

    Raises:
        RecipeError: if there is none; the message lists those there are.
    """
    if Path(word).is_file():
        return word
    for here in (RECIPES / verb / f"{word}.yaml", RECIPES / f"{word}.yaml"):
        if here.is_file():
            return str(here)
    if (RECIPES / word).parent != RECIPES and (RECIPES / word).parent.is_dir():
        verb, word = Path(word).parts[0], Path(word).name
    known = [path.stem for path in sorted((RECIPES / verb).glob("*.yaml"))]
    if not known:
        raise RecipeError(
            f"--config {word}: no such file, and no folder {RECIPES / verb} here to look for a recipe of that name; "
            "expected a YAML file, or to be run where recipes/ lies"
        )
    near = suggest(Path(word).stem, known).removeprefix("; ")
    raise RecipeError(f"--config {word}: no such recipe; {f'{near} ' if near else ''}recipes here: {', '.join(known)}")


def asked_alone(words: list[str], option: str, default: str) -> str:
    """The value of an option that counts on the command line alone, whatever recipes say."""
    found = default
    for before, word in zip(["", *words], [*words, ""], strict=True):
        if before == option:
            found = word
        elif before.startswith(f"{option}="):
            found = before.split("=", 1)[1]
    return found
