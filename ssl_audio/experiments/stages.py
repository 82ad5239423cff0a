"""Experiments of several stages: a folder of recipes, each a run that starts from the checkpoint of the one before."""

import itertools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssl_audio.errors import RecipeError
from ssl_audio.experiments.display import TERMINAL, Display
from ssl_audio.experiments.finetune import BEST, finetune
from ssl_audio.experiments.finished import Finished
from ssl_audio.experiments.pretrain import pretrain
from ssl_audio.experiments.recipe_files import PACKAGED, RECIPES
from ssl_audio.experiments.recipes import read_recipe
from ssl_audio.experiments.values import NO_OPTIONS
from ssl_audio.training.run import Run, numbered

_STAGE = re.compile(r"(\d+)[_-](.+)")
_VERBS: dict[str, Callable[..., Finished | None]] = {"pretrain": pretrain, "finetune": finetune}


def stages_folder(name: str, *, verb: str = "finetune") -> Path | None:
    """The folder of stages of this name, or None if the name is that of a recipe file."""
    places = [Path(name), *(folder / below for folder in (RECIPES, PACKAGED) for below in (name, f"{verb}/{name}"))]
    return next((place for place in places if place.is_dir()), None)


def stages(
    folder: str | Path,
    *,
    name: str | None = None,
    runs: str | Path = "runs",
    options: Mapping[str, Any] = NO_OPTIONS,
    display: Display = TERMINAL,
) -> list[Finished | Run]:
    """Run the recipes of a folder in the order of their numbers; the same call resumes.

    A recipe is named `1_NAME.yaml`, `2_NAME.yaml`, ..., and is a recipe of `finetune`, or of `pretrain` if it has
    `verb: pretrain`. From the second stage on it starts from the checkpoint of the stage before, unless it names
    another: backbone and adapters, and with `keep_head: true` the head.

    Args:
        folder: Folder of the recipes, or its name below `recipes/`.
        name: Of the experiment; by default the folder's.
        runs: Folder of all runs.
        options: Options of every stage, which override its recipe.
        display: Shows messages and progress.

    Returns:
        The result of each stage; its run if it was finished before.

    Raises:
        SslAudioError: if the folder holds no stages, or a stage cannot be run.
    """
    found = stages_folder(str(folder))
    if found is None:
        raise RecipeError(f"{folder}: no such folder of recipes; expected one with 1_NAME.yaml, 2_NAME.yaml, ...")
    recipes = recipes_of(found)
    below = Path(runs) / "stages" / (name or found.name)
    ended: list[Finished | Run] = []
    checkpoint: Path | None = None
    for number, path in enumerate(recipes, 1):
        verb, told = _told(path)
        made = numbered(below / verb / path.stem)
        if made and made[-1].summary() is not None:
            run: Finished | Run = made[-1]
        else:
            display.line(f"stage {number} of {len(recipes)}: {path.stem}")
            began = None if checkpoint is None or "checkpoint" in told or verb == "pretrain" else checkpoint
            chosen = {**options, **({} if began is None else {"checkpoint": began})}
            this = _VERBS[verb](path, name=path.stem, runs=below, options=chosen, display=display)
            if this is None:
                return ended  # not the first rank
            run = this
        ended.append(run)
        checkpoint = _checkpoint(run, verb)
    return ended


def recipes_of(folder: Path) -> list[Path]:
    """The stages of a folder in the order of their numbers.

    Raises:
        RecipeError: if there are none, or two have one number.
    """
    found = {path: int(named[1]) for path in folder.glob("*.yaml") if (named := _STAGE.fullmatch(path.stem))}
    if not found:
        raise RecipeError(f"{folder}: has no stages; expected recipes named 1_NAME.yaml, 2_NAME.yaml, ...")
    order = sorted(found, key=lambda path: found[path])
    twice = next((b for a, b in itertools.pairwise(order) if found[a] == found[b]), None)
    if twice is not None:
        raise RecipeError(f"{folder}: two stages have the number {found[twice]} ({twice.name}); expected one each")
    return order


def _told(path: Path) -> tuple[str, dict[str, Any]]:
    told = read_recipe(path)
    verb = told.get("verb", "finetune")
    if verb not in _VERBS:
        raise RecipeError(f"{path}: verb is {str(verb)[:40]!r}; expected {' or '.join(_VERBS)}")
    return str(verb), told


def _checkpoint(run: Finished | Run, verb: str) -> Path | None:
    """What a stage trained."""
    if isinstance(run, Finished):
        return run.checkpoints[0] if run.checkpoints else None
    if verb == "pretrain":
        return run.last
    return next(iter(sorted(run.folder.glob(f"**/{BEST}"))), None)
