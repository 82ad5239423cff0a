"""Which checkpoint a run resumes from, and whether the recipe allows it."""

import dataclasses
import importlib
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_audio.checkpoints.checkpoint import load_checkpoint
from ssl_audio.checkpoints.classes import MODEL_BASES, classes_of, unknown
from ssl_audio.errors import CheckpointError, RecipeError
from ssl_audio.model.tuning import Tuning
from ssl_audio.names import printable
from ssl_audio.objectives.augmentation import Augmentation
from ssl_audio.objectives.objective import Objective
from ssl_audio.training.optimisation import Schedule

# What may differ in a resumed run: where it runs and how long, not what it computes. Shards may have other paths:
# their manifests show that they are the same.
_FREE_DATA = ("shards", "batch_clips", "workers", "max_replaced")
_FREE_MODEL = ("recompute", "compile")
_FREE_OPTIMIZER = ("fused", "foreach", "capturable", "differentiable")  # torch's: the same step by other kernels
_BOUND_TRAINER = ("gradient_clip_val", "gradient_clip_algorithm", "precision")
_SHOWN = 3


# Options of a model that earlier versions did not have, with the values that change nothing.
_ADDED: dict[str, Any] = {
    **{f"tuning.{name}": value for name, value in dataclasses.asdict(Tuning()).items()},
    **{f"augmentation.{name}": value for name, value in dataclasses.asdict(Augmentation()).items()},
    **{"head_rate": 1.0, "layer_decay": 1.0, "views": None, "objective": None},
}


def newest_whole(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that can be read, and why each newer one cannot.

    Args:
        folder: The checkpoints of a run.

    Raises:
        CheckpointError: if there are checkpoints and none can be read.
    """
    candidates = [folder / "last.ckpt", *sorted(folder.glob("step-*.ckpt"), key=_step_of, reverse=True)]
    damaged: list[str] = []
    for path in candidates:
        if not path.exists():
            continue
        try:
            load_checkpoint(path).check_finite()
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        return path, damaged
    if damaged:
        raise CheckpointError(f"{damaged[0]}, and no other in {folder} is whole; begin a new run with --resume never")
    return None, []


def _step_of(path: Path) -> int:
    found = re.search(r"(\d+)", path.stem)
    return int(found[1]) if found else -1


def check_resume(checkpoint: Path | None, recipe: dict[str, Any]) -> None:
    """Refuse to resume with another recipe: what is computed must be the same; where and how long may change.

    Args:
        checkpoint: Resumed from; None for a new run.
        recipe: The current recipe.

    Raises:
        RecipeError: naming what differs.
        CheckpointError: if its recipe names classes that are not known here.
    """
    if checkpoint is None:
        return
    found = load_checkpoint(checkpoint)
    found.check_finite()
    told = found.recipe
    named = unknown(told["model"], (*MODEL_BASES, Schedule), asked=recipe)
    if named is not None:
        raise CheckpointError(
            f"{checkpoint}: its recipe names {named[:100]!r}, which is not a known optimizer, schedule or part of a "
            "model; begin a new run with --resume never"
        )
    before, now = bound(told), bound(recipe)
    for part in ("model", "data", "trainer", "seed_everything"):
        one, other = (flatten(described.get(part)) for described in (before, now))
        # An option that only one of the versions has is at its default in the other.
        changed = [name for name in one if name in other and one[name] != other[name]]
        if part == "model":
            one = {name: value for name, value in _ADDED.items() if name in other} | one
            one |= {name: value for name in other if name not in one for value in _default(name, other)}
            changed = [name for name in {**one, **other} if one.get(name) != other.get(name)]
        if not changed:
            continue
        shown = "; ".join(
            printable(f"{name or part} was {str(one.get(name))[:200]}, is {other.get(name)}")
            for name in changed[:_SHOWN]
        )
        raise RecipeError(
            f"{checkpoint} is of another {part} ({shown}{'; ...' if len(changed) > _SHOWN else ''}); give it back, or "
            "begin a new run with --resume never or another --name"
        )


def check_unchanged(before: dict[str, Any], now: dict[str, Any], names: Sequence[str], place: Path) -> None:
    """Refuse other values of some options than an unfinished run has.

    Args:
        before: Its recipe; empty for a new run.
        now: The current recipe.
        names: Of the options.
        place: What to call the run.

    Raises:
        RecipeError: naming an option that differs.
    """
    one, other = ({name: recipe.get(name) for name in names if name in before} for recipe in (before, now))
    differs = [name for name, value in flatten(one).items() if flatten(other).get(name) != value]
    if differs:
        raise RecipeError(
            f"{place} was started with {differs[0]} {flatten(one)[differs[0]]}, not {flatten(other).get(differs[0])}; "
            "give it back, or begin a new run with --resume never or another --name"
        )


def _default(name: str, options: dict[str, Any]) -> list[Any]:
    """The default of an option that an earlier version did not have, if its class, which the recipe names, has one.

    Args:
        name: Of the option, such as `backbone.init_args.encoder.init_args.width`, or of a field of one, such as
            `objective.init_args.head.rnn_layers`.
        options: The recipe, flattened.
    """
    owner, _, option = name.rpartition(".init_args.")
    module, _, kind = str(options.get(f"{owner}.class_path")).rpartition(".")
    found = getattr(importlib.import_module(module), kind, None) if module.startswith("ssl_audio.") else None
    known = {} if found is None else inspect.signature(found).parameters
    option, *fields = option.split(".")
    if option not in known:
        return []
    value = known[option].default
    for field in fields:
        if not (dataclasses.is_dataclass(value) and hasattr(value, field)):
            return []
        value = getattr(value, field)
    return [list(value) if isinstance(value, tuple) else value]


def _named_alike(tree: Any) -> Any:
    """A recipe with one canonical name for every class."""
    if isinstance(tree, dict):
        return {name: _named_alike(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_named_alike(value) for value in tree]
    return _alias(tree) if isinstance(tree, str) else tree


def _alias(name: str) -> str:
    found = classes_of(Objective).get(name)
    return name if found is None else f"{found.__module__}.{found.__qualname__}"


def bound(recipe: dict[str, Any]) -> dict[str, Any]:
    """The part of a recipe that decides what is computed."""
    trainer, data, model = (dict(recipe.get(name) or {}) for name in ("trainer", "data", "model"))
    optimizer = model.get("optimizer")
    if isinstance(optimizer, dict) and isinstance(options := optimizer.get("init_args"), dict):
        kept = {name: value for name, value in options.items() if name not in _FREE_OPTIMIZER}
        model["optimizer"] = {**optimizer, "init_args": kept}
    return {
        "model": _named_alike({name: value for name, value in model.items() if name not in _FREE_MODEL}),
        "data": {name: value for name, value in data.items() if name not in _FREE_DATA},
        "trainer": {name: trainer.get(name) for name in _BOUND_TRAINER},
        "seed_everything": recipe.get("seed_everything"),
    }


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested dictionaries by dotted name."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        name: leaf for key, value in tree.items() for name, leaf in flatten(value, f"{prefix}.{key}".strip(".")).items()
    }
