"""`ssl-audio finetune`."""

from pathlib import Path
from typing import Any

from ssl_audio.cli.results import add_result
from ssl_audio.errors import RecipeError
from ssl_audio.experiments.finetune import finetune_words
from ssl_audio.experiments.finished import Finished
from ssl_audio.experiments.recipes import recipes_among
from ssl_audio.experiments.stages import stages, stages_folder


def run(words: list[str]) -> None:
    """Train from a recipe, or from a folder of them one after the other, and print what came of it."""
    recipes, options = recipes_among(words)
    folders = [folder for name in recipes if (folder := stages_folder(name)) is not None]
    if not folders:
        finished = finetune_words(words)
        if finished is not None:
            add_result({"folder": finished.folder, **finished.summary})
            print(f"\n{finished.text}")
        return
    if len(recipes) > 1:
        raise RecipeError(
            f"--config {' --config '.join(recipes)}: {folders[0]} is a folder of stages, over which no recipe can be "
            "laid; expected it alone, and what the recipe holds in each of its stages or as options"
        )
    found = []
    for ended in stages(folders[0], **_chosen(folders[0], options)):
        print(f"\n{ended.text}" if isinstance(ended, Finished) else f"\n{ended.folder} had ended before")
        found.append({"folder": ended.folder, **(ended.summary if isinstance(ended, Finished) else {})})
    add_result({"stages": found})


def _chosen(folder: Path, words: list[str]) -> dict[str, Any]:
    """Name, runs and the options that are laid over every stage."""
    rest = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    if len(rest) % 2 or not all(name.startswith("--") for name in rest[::2]):
        raise RecipeError(
            f"finetune --config {folder} {' '.join(words)}: a folder of stages takes options with values, such as "
            "--name N; `ssl-audio finetune --help` lists them"
        )
    given = {name.removeprefix("--"): value for name, value in zip(rest[::2], rest[1::2], strict=True)}
    own: dict[str, Any] = {name: given.pop(name) for name in ("name", "runs") if name in given}
    return {**own, "options": given}
