"""`ssl-audio finetune`."""

from typing import Any

from ssl_audio.errors import RecipeError
from ssl_audio.experiments.finetune import finetune_words
from ssl_audio.experiments.finished import Finished
from ssl_audio.experiments.recipes import asked_alone
from ssl_audio.experiments.stages import stages, stages_folder


def run(words: list[str]) -> None:
    """Train from a recipe, or from a folder of them one after the other, and print what came of it."""
    folder = stages_folder(asked_alone(words, "--config", ""))
    if folder is None:
        finished = finetune_words(words)
        if finished is not None:
            print(f"\n{finished.text}")
        return
    for ended in stages(folder, **_chosen(words)):
        print(f"\n{ended.text}" if isinstance(ended, Finished) else f"\n{ended.folder} had ended before")


def _chosen(words: list[str]) -> dict[str, Any]:
    """Name, runs and the options that are laid over every stage."""
    rest = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    if len(rest) % 2 or not all(name.startswith("--") for name in rest[::2]):
        raise RecipeError(f"finetune {' '.join(words)}: a folder of stages takes options with values, such as --name N")
    given = {name.removeprefix("--"): value for name, value in zip(rest[::2], rest[1::2], strict=True)}
    given.pop("config")
    own: dict[str, Any] = {name: given.pop(name) for name in ("name", "runs") if name in given}
    return {**own, "options": given}
