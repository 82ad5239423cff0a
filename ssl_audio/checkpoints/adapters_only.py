"""Adapter checkpoints: what trained on a base, without the base."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ssl_audio.checkpoints.adaptation import load_backbone
from ssl_audio.checkpoints.base import STATISTICS, Base, shortened, sketch_of, tensors_digest
from ssl_audio.checkpoints.checkpoint import Checkpoint, content_of
from ssl_audio.checkpoints.schema import check_over_base, check_task
from ssl_audio.checkpoints.sizes import NO_HINTS, Hints
from ssl_audio.errors import CheckpointError
from ssl_audio.model.backbone import Backbone

_PREFIX = "backbone."


def base_of(source: Checkpoint, *, hints: Hints = NO_HINTS) -> Base:
    """What a checkpoint is known by as a base.

    Args:
        source: It, whole.
        hints: What it was opened with, if it is a published file.
    """
    tensors = _backbone_of(source.weights)
    encoder = str(source.spec["init_args"]["encoder"]["class_path"]).rsplit(".")[-1]
    here = source.path.resolve()
    below = here.is_relative_to(Path.cwd())
    return Base(
        digest=tensors_digest(tensors),
        sketch=sketch_of(tensors),
        kind=source.kind if encoder in source.kind else f"{source.kind} {encoder}",
        name=here.relative_to(Path.cwd()).as_posix() if below else source.path.name,
        hints=hints if source.fates else NO_HINTS,
        path=source.path,
    )


def is_base(found: Checkpoint, wanted: Base) -> bool:
    """Whether a checkpoint has the very weights that an adapter checkpoint was trained on."""
    tensors = _backbone_of(found.weights)
    return sketch_of(tensors) == wanted.sketch and tensors_digest(tensors) == wanted.digest


def check_base(path: Path, known: Base, wanted: Base) -> None:
    """What was given as the base of an adapter checkpoint is its base.

    Args:
        path: The adapter checkpoint.
        known: What was given.
        wanted: What it was trained on.

    Raises:
        CheckpointError: if it is another one; the message has both digests.
    """
    if known.digest != wanted.digest:
        raise CheckpointError(
            f"{path}: was trained on the base {wanted.words}; {known.path} is another one (sha256 "
            f"{shortened(known.digest)}); give the checkpoint that it began at"
        )


def only_trained(
    state: Mapping[str, Tensor],
    recipe: dict[str, Any],
    base: Checkpoint,
    *,
    trained: Iterable[str],
    rule: Literal["place", "published"],
    hints: Hints = NO_HINTS,
    task: dict[str, Any] | None = None,
    step: int = 0,
) -> dict[str, Any]:
    """The content of an adapter checkpoint.

    It holds what trained, whatever the base has not, and whatever differs from what the base alone would give, so that
    the base and it together are these weights to the bit.

    Args:
        state: `backbone.*` and what stands on it, such as `objective.*`.
        recipe: The whole recipe of the run.
        base: Where the training began, without adapters of a stage before it.
        trained: Names within the backbone of the parameters that trained and of the buffers beside them.
        rule: How positions came to the grid of the recipe.
        hints: What the base was opened with, if it is a published file.
        task: What the objective tells apart.
        step: Optimizer steps taken.
    """
    alone = Checkpoint(Path("recipe"), recipe, {}, step, "")
    backbone = alone.untrained()
    load_backbone(backbone, base, rule=rule)
    without, had = backbone.state_dict(), _backbone_of(base.weights)
    kept = set(trained) | set(STATISTICS)
    weights = {name: value.detach().cpu() for name, value in state.items()}
    for name, value in without.items():
        mine = weights[_PREFIX + name]
        if name not in kept and name in had and torch.equal(mine, value):
            del weights[_PREFIX + name]
    told = dataclasses.replace(base_of(base, hints=hints), rule=rule)
    own = {name: value.clone() for name, value in weights.items()}
    return content_of(dataclasses.replace(alone, weights=own, task=task, base=told))


def complete(alone: Checkpoint, base: Checkpoint) -> Checkpoint:
    """An adapter checkpoint and its base as one whole checkpoint.

    Args:
        alone: What the file of the adapter checkpoint holds.
        base: Its base.

    Raises:
        CheckpointError: if the base has no place for what the file holds.
    """
    assert alone.base is not None
    sizes = check_over_base(alone.path, alone.planned(), _backbone_of(alone.weights), _backbone_of(base.weights))
    if alone.task is not None:
        check_task(alone.path, alone.task, alone.recipe, alone.weights, sizes)
    backbone = untouched(alone, base)
    wanted, own = backbone.state_dict(), _backbone_of(alone.weights)
    for name, value in own.items():
        if name not in wanted or value.shape != wanted[name].shape:
            where = "no such place" if name not in wanted else f"one of {tuple(wanted[name].shape)} there"
            raise CheckpointError(
                f"{alone.path}: {name[:100]} is {tuple(value.shape)}, and {base.path} with this recipe has {where}; "
                "it is an adapter of another base"
            )
    weights = {_PREFIX + name: value for name, value in wanted.items()} | alone.weights
    return dataclasses.replace(alone, weights=weights, base=dataclasses.replace(alone.base, path=base.path))


def untouched(alone: Checkpoint, base: Checkpoint) -> Backbone:
    """The backbone of an adapter checkpoint's recipe with the weights of the base.

    Raises:
        CheckpointError: if they do not fit it.
    """
    assert alone.base is not None
    backbone = alone.untrained()
    load_backbone(backbone, base, rule=alone.base.rule)
    return backbone


def _backbone_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(_PREFIX): value for name, value in weights.items() if name.startswith(_PREFIX)}
