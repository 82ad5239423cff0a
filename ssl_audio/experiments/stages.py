"""Experiments of several stages: a folder of recipes, each a run that starts from the checkpoint of the one before."""

import itertools
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssl_audio.checkpoints.newest import NEWEST, chosen_checkpoint, newest_checkpoint
from ssl_audio.checkpoints.opening import open_alone, open_checkpoint
from ssl_audio.errors import CheckpointError, Ended, RecipeError
from ssl_audio.evaluation.pretrained import pretrained
from ssl_audio.experiments.arguments import checked
from ssl_audio.experiments.builder import RunBuilder
from ssl_audio.experiments.display import TERMINAL, Display, Silent
from ssl_audio.experiments.finetune import BEST, finetune
from ssl_audio.experiments.finetune_builder import FinetuneBuilder
from ssl_audio.experiments.finished import Finished
from ssl_audio.experiments.pretrain import PretrainBuilder, pretrain
from ssl_audio.experiments.pseudo import pseudo_labels
from ssl_audio.experiments.recipe_files import PACKAGED, RECIPES, find
from ssl_audio.experiments.recipes import read_recipe, section, started_from
from ssl_audio.experiments.values import NO_OPTIONS, words_of
from ssl_audio.training.engines import is_first_process, process_group_kept
from ssl_audio.training.resuming import flatten
from ssl_audio.training.run import Run, check_name, json_text, numbered

_STAGE = re.compile(r"(\d+)[_-](.+)")
_NAMED = re.compile(r"stage (\d+)")
_VERBS: dict[str, Callable[..., Finished | None]] = {"pretrain": pretrain, "finetune": finetune}
_BUILDERS: dict[str, type[RunBuilder]] = {"pretrain": PretrainBuilder, "finetune": FinetuneBuilder}
_STAGE_FILE = "stage.json"


def stages_folder(name: str, *, verb: str = "finetune") -> Path | None:
    """The folder of stages of this name, or None if the name is that of a recipe file."""
    if not name or find(f"{verb}/{name}") is not None:
        return None
    places = [Path(name), *(folder / below for folder in (RECIPES, PACKAGED) for below in (name, f"{verb}/{name}"))]
    return next((place for place in places if place.is_dir()), None)


@checked
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
    another: backbone and adapters, and with `keep_head: true` the head. `checkpoint: newest` is the newest pretraining
    of the experiment, or, if it has none, below `runs`.

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
    display = display if is_first_process() else Silent()
    below = Path(runs) / "stages" / check_name(name or found.resolve().name)
    for path in recipes:
        _check_options(path, options)
    ended: list[Finished | Run] = []
    made: dict[int, Path | None] = {}
    pseudo: Path | None = None
    with process_group_kept():
        for number, path in enumerate(recipes, 1):
            verb, told = _told(path)
            before = next((made[n] for n in sorted(made, reverse=True) if made[n] is not None), None)
            if verb == "pseudo":
                pseudo = below / "pseudo" / path.stem
                if not (pseudo / "pseudo.json").exists():
                    display.line(f"stage {number} of {len(recipes)}: {path.stem}")
                    _write_pseudo(path, told, before, recipes[number:], pseudo, options, Path(runs), display)
                continue
            own = _own_options(path, told, before, made, pseudo, verb)
            chosen = {**own, **{key: value for key, value in options.items() if key != "checkpoint" or not ended}}
            stage = {"recipe": told, "options": _plain(chosen)}
            run: Finished | Run | None = _ended(below / verb / path.stem, stage, again=options.get("resume") == "never")
            if run is None:
                display.line(f"stage {number} of {len(recipes)}: {path.stem}")
                if verb == "finetune":
                    chosen |= _start(below, Path(runs), path.stem, {**told, **chosen})
                this = _VERBS[verb](path, name=path.stem, runs=below, options=chosen, display=display)
                if this is not None:
                    this.run.write(_STAGE_FILE, json_text(stage))
                run = this or _awaited(below / verb / path.stem)
            ended.append(run)
            made[number] = _checkpoint(run, verb)
    return ended


def _start(below: Path, runs: Path, name: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint that a stage of fine-tuning starts from, if a word or nothing names it, and its base, if it holds
    only what trained: both may lie outside of the experiment.

    `newest` is where the stage started if it is resumed; else the newest pretraining of the experiment, or, if it has
    none, of all.

    Raises:
        CheckpointError: if there is none.
    """
    found: dict[str, Any] = {}
    path = chosen.get("checkpoint", NEWEST)
    if path == NEWEST:
        started = started_from(below, "finetune", name) if chosen.get("resume", "auto") == "auto" else None
        path = found["checkpoint"] = started or newest_checkpoint(below) or chosen_checkpoint(NEWEST, runs)
    if chosen.get("base") is None and Path(str(path)).is_file():
        base = _base(Path(str(path)), runs)
        return found if base is None else {**found, "base": base}
    return found


def _base(checkpoint: Path, runs: Path) -> Path | None:
    """Where the base of a checkpoint lies, below the folder of all runs; None if it is whole."""
    try:
        if open_alone(checkpoint, mmap=True).base is None:
            return None
    except CheckpointError:
        return None  # such as a published file, which the options of the stage describe
    base = open_checkpoint(checkpoint, runs=runs).base
    return None if base is None else base.path


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(values), default=str))


def _ended(folder: Path, stage: dict[str, Any], *, again: bool) -> Run | None:
    """The run of a stage that has ended, if it is not to be done again.

    Raises:
        RecipeError: if it ended with another recipe or other options.
    """
    runs = numbered(folder)
    if again or not runs or runs[-1].summary() is None:
        return None
    before = runs[-1].read(_STAGE_FILE)
    one, other = flatten(stage if before is None else before), flatten(_plain(stage))
    differs = sorted(name for name in {**one, **other} if one.get(name) != other.get(name))
    if differs:
        name = differs[0]
        raise RecipeError(
            f"{runs[-1].folder} has ended with another {name.replace('.', ': ', 1)} ({one.get(name)!s:.100}; now "
            f"{other.get(name)!s:.100}); give it back, or --name for another experiment, or --resume never to do all "
            "stages again"
        )
    return runs[-1]


def _awaited(folder: Path) -> Run:
    """The run of a stage whose report the first rank is writing.

    Raises:
        Ended: if the process that started this one has gone.
    """
    parent = os.getppid()
    while (runs := numbered(folder)) and not (runs[-1].folder / _STAGE_FILE).exists():
        if os.getppid() != parent:
            raise Ended("the first rank has gone")
        time.sleep(0.2)
    return runs[-1]


def _check_options(path: Path, options: Mapping[str, Any]) -> None:
    """Parse the recipe of a stage, before the first of them is trained.

    Raises:
        RecipeError: if it has an option that its verb does not have.
    """
    verb, _ = _told(path)
    if verb != "pseudo":
        later = {"checkpoint": "none"} if verb == "finetune" else {}  # of a stage that has not run yet
        _BUILDERS[verb].check_options(words_of(path, {}, {**options, **later}))


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
    elif "checkpoint" not in told and verb != "pretrain" and made:
        if before is None:
            raise RecipeError(f"{path}: the stages before it left no checkpoint; expected `checkpoint` in it")
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
    runs: Path,
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
    models = [pretrained(one, base=_base(Path(one), runs)) for one in checkpoints]
    pseudo_labels(models, shards=shards, out=out, split=told.get("split", "train"), display=display)


def recipes_of(folder: Path) -> list[Path]:
    """The stages of a folder in the order of their numbers.

    Raises:
        RecipeError: if there are none, or two have one number.
    """
    found = {path: int(named[1]) for path in folder.glob("*.yaml") if (named := _STAGE.fullmatch(path.stem))}
    other = next((path for path in sorted(folder.glob("*.y*ml")) if path not in found), None)
    if found and other is not None:
        raise RecipeError(f"{other}: is no stage; expected a name such as 1_NAME.yaml, or another folder for it")
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
