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
from ssl_audio.experiments.pseudo import pseudo_labels
from ssl_audio.experiments.recipe_files import PACKAGED, RECIPES
from ssl_audio.experiments.recipes import read_recipe, section
from ssl_audio.experiments.values import NO_OPTIONS
from ssl_audio.training.run import Run, numbered

_STAGE = re.compile(r"(\d+)[_-](.+)")
_NAMED = re.compile(r"stage (\d+)")
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

    A recipe with `verb: pseudo` writes pseudo-labels by the checkpoint of the stage before, together with others that
    `checkpoint` lists, for the shards of the next stage; a later stage reads them with `data.pseudo_labels: previous`,
    and starts from what `checkpoint` names, such as `stage 1`.

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
    made: dict[int, Path | None] = {}
    pseudo: Path | None = None
    for number, path in enumerate(recipes, 1):
        verb, told = _told(path)
        before = next((made[n] for n in sorted(made, reverse=True) if made[n] is not None), None)
        if verb == "pseudo":
            pseudo = below / "pseudo" / path.stem
            if not (pseudo / "pseudo.json").exists():
                display.line(f"stage {number} of {len(recipes)}: {path.stem}")
                _write_pseudo(path, told, before, recipes[number:], pseudo, options, display)
            continue
        runs_of = numbered(below / verb / path.stem)
        if runs_of and runs_of[-1].summary() is not None:
            run: Finished | Run = runs_of[-1]
        else:
            display.line(f"stage {number} of {len(recipes)}: {path.stem}")
            own = _own_options(path, told, before, made, pseudo, verb)
            chosen = {**own, **{key: value for key, value in options.items() if key != "checkpoint" or not ended}}
            this = _VERBS[verb](path, name=path.stem, runs=below, options=chosen, display=display)
            if this is None:
                return ended  # not the first rank
            run = this
        ended.append(run)
        made[number] = _checkpoint(run, verb)
    return ended


def _own_options(
    path: Path,
    told: dict[str, Any],
    before: Path | None,
    made: Mapping[int, Path | None],
    pseudo: Path | None,
    verb: str,
) -> dict[str, Any]:
    """What a stage takes from those before it.

    Raises:
        RecipeError: if it asks for a stage that there is not.
    """
    own: dict[str, Any] = {}
    named = _NAMED.fullmatch(str(told.get("checkpoint")))
    if named is not None:
        if made.get(int(named[1])) is None:
            raise RecipeError(f"{path}: checkpoint is {told['checkpoint']}; expected a stage before it that trained")
        own["checkpoint"] = made[int(named[1])]
    elif before is not None and "checkpoint" not in told and verb != "pretrain":
        own["checkpoint"] = before
    if section(told, "data").get("pseudo_labels") == "previous":
        if pseudo is None:
            raise RecipeError(f"{path}: data.pseudo_labels is previous, but no stage before it has `verb: pseudo`")
        own["data.pseudo_labels"] = pseudo
    return own


def _write_pseudo(
    path: Path,
    told: dict[str, Any],
    before: Path | None,
    later: list[Path],
    out: Path,
    options: Mapping[str, Any],
    display: Display,
) -> None:
    """Run a stage that writes pseudo-labels.

    Raises:
        RecipeError: if nothing was trained before it, or no stage after it says which shards.
    """
    unknown = set(told) - {"verb", "checkpoint", "shards", "split"}
    if unknown:
        raise RecipeError(f"{path}: {min(unknown)} is no option of pseudo; expected checkpoint, shards, split")
    listed = told.get("checkpoint", [])
    checkpoints = [*([] if before is None else [before]), *(listed if isinstance(listed, list) else [listed])]
    following = next((section(read_recipe(one), "data").get("shards") for one in later), None)
    shards = told.get("shards") or options.get("data.shards") or following
    if isinstance(shards, str):
        shards = [word.strip() for word in shards.strip("[]").split(",")]
    if not checkpoints or not isinstance(shards, list):
        raise RecipeError(f"{path}: pseudo needs a stage before it that trained, and `shards`")
    pseudo_labels(checkpoints, shards=shards, out=out, split=told.get("split", "train"), display=display)


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
    if verb not in (*_VERBS, "pseudo"):
        raise RecipeError(f"{path}: verb is {str(verb)[:40]!r}; expected {', '.join(_VERBS)} or pseudo")
    return str(verb), told


def _checkpoint(run: Finished | Run, verb: str) -> Path | None:
    """What a stage trained."""
    if isinstance(run, Finished):
        return run.checkpoints[0] if run.checkpoints else None
    if verb == "pretrain":
        return run.last
    return next(iter(sorted(run.folder.glob(f"**/{BEST}"))), None)
