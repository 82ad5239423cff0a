"""A checkpoint as modules that compute: backbone, objective, and what belongs to them."""

import dataclasses

import torch

from ssl_audio.checkpoints.adapters_only import complete
from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.evaluation.windows import Grid
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.packing import Packing
from ssl_audio.objectives.objective import Objective

_PREFIX = "backbone."
_POSITIONS = "positions.table"


@dataclasses.dataclass(slots=True, kw_only=True)
class CheckpointModules:
    """What a checkpoint computes with.

    Args:
        checkpoint: Where it comes from.
        backbone: Waveform to token states.
        objective: What answers; None if it was not fine-tuned.
        grid: How recordings are cut into windows.
        labels: Names of what the objective tells apart; empty without one.
        several: Whether a clip may have several labels.
    """

    checkpoint: Checkpoint
    backbone: Backbone
    objective: Objective | None
    grid: Grid
    labels: list[str]
    several: bool


def modules_of(
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    window_seconds: float | None,
    merge: int | None = None,
    pack: int | None = None,
    backbone: Backbone | None = None,
) -> CheckpointModules:
    """The modules of a checkpoint, for inference.

    Args:
        checkpoint: With its weights.
        device: Where to compute.
        window_seconds: Length of a window; None takes as much as the backbone has positions for.
        merge: Tokens merged in a block; None as the checkpoint says.
        pack: Tokens of the rows that clips share; None as the checkpoint says.
        backbone: The checkpoint's backbone, if it was made already.
    """
    backbone = (checkpoint.backbone() if backbone is None else backbone).to(device).eval()
    if merge is not None:
        backbone.merge(merge)
    if pack is not None:
        backbone.packing = Packing(room=pack)
    task = checkpoint.task
    return CheckpointModules(
        checkpoint=checkpoint,
        backbone=backbone,
        objective=None if task is None else checkpoint.objective(backbone).to(device).eval(),
        grid=Grid.of(backbone, seconds=window_seconds),
        labels=[] if task is None else [str(label) for label in task["labels"]],
        several=task is not None and bool(task["several"]),
    )


def adapted(
    modules: CheckpointModules,
    alone: Checkpoint,
    base: Checkpoint,
    *,
    window_seconds: float | None,
    merge: int | None = None,
    pack: int | None = None,
) -> CheckpointModules:
    """An adapter checkpoint on the base of other modules, whose frozen tensors both use.

    Args:
        modules: Whose backbone is there already.
        alone: The adapter checkpoint, as its file has it.
        base: What both stand on.
        window_seconds: Length of a window, as in `modules_of`.
        merge: Tokens merged in a block, as in `modules_of`.
        pack: Tokens of a row, as in `modules_of`.

    Raises:
        CheckpointError: if it has no place on this base.
    """
    assert alone.base is not None
    whole = complete(alone, base)
    had = modules.backbone.state_dict()
    changed = {*alone.base.trained, *(modules.checkpoint.base.trained if modules.checkpoint.base is not None else ())}
    weights = dict(whole.weights)
    state = {name.removeprefix(_PREFIX): value for name, value in weights.items() if name.startswith(_PREFIX)}
    for name, value in state.items():
        if name in changed or name not in had or had[name].shape != value.shape:
            continue
        # Positions of another length may have the same shape by chance; everything else is the base's as it is.
        if name != _POSITIONS or torch.equal(had[name].cpu(), value):
            state[name] = had[name]
            weights[_PREFIX + name] = modules.checkpoint.weights[_PREFIX + name]
    backbone = whole.untrained()
    backbone.load_state_dict(state, assign=True)
    kept = dataclasses.replace(whole, weights=weights)
    device = next(iter(had.values())).device
    return modules_of(kept, device=device, window_seconds=window_seconds, merge=merge, pack=pack, backbone=backbone)
