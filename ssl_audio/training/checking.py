"""Checks before training of what would otherwise fail in the first batches."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Timer

from ssl_audio.data.module import ShardModule
from ssl_audio.data.shard_rates import check_rates
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.training.module import Training
from ssl_audio.training.pace import StepsInTime


def check_training(module: Training, data: ShardModule) -> None:
    """Check that backbone, objective and data fit together.

    Args:
        module: With its objective attached.
        data: What it is trained on.

    Raises:
        RecipeError: naming the options that contradict each other.
        ShardError: if shards have another rate than the frontend.
    """
    check_rates(data.shards, data.sample_rate, resample=data.resample)
    facts = data.facts
    if facts.crop_seconds is not None:
        module.backbone.columns_in(facts.crop_seconds)
    module.objective.check(module.backbone, facts)


def check_positions(backbone: Backbone, seconds: float) -> None:
    """Check that the backbone has positions for clips of this length.

    Raises:
        RecipeError: if it has fewer.
    """
    there, columns = backbone.positions.table.shape[1], backbone.columns_in(seconds)
    if backbone.fixed_frames is None and not backbone.positions.endless and columns > there:
        frames = int(backbone.frontend.frames_of(round(seconds * backbone.frontend.sample_rate)))
        covered = (there - 1) * backbone.stride[1] + backbone.patch[1]
        raise RecipeError(
            f"clips last up to {seconds:.2f} s, which is {frames} frames, but the backbone has positions for "
            f"{covered}; set --adaptation.frames {frames} or a smaller data.crop_seconds"
        )


def is_limited(trainer: L.Trainer) -> bool:
    """Whether the length of training is limited, by steps or by time."""
    callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]
    return trainer.max_steps > 0 or any(isinstance(callback, Timer | StepsInTime) for callback in callbacks)
