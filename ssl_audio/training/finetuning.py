"""Supervised training: a classification where the recipe names no other objective."""

import logging

import torch
from jsonargparse.typing import ClosedUnitInterval, PositiveFloat
from lightning.pytorch.cli import OptimizerCallable

from ssl_audio.data.facts import Facts
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.tuning import Tuning
from ssl_audio.objectives.augmentation import Augmentation
from ssl_audio.objectives.classification import HEAD, Classification, HeadOptions, Loss
from ssl_audio.objectives.objective import Objective
from ssl_audio.objectives.views import Views
from ssl_audio.training.module import AUGMENTATION, TUNING, Measure, Training
from ssl_audio.training.optimisation import DecayOn, Schedule

_log = logging.getLogger(__name__)


class Finetuning(Training):
    """`Training` for a labelled task.

    Args:
        backbone: Waveform to token states; by default the checkpoint's.
        objective: What is learnt; by default a `Classification` with the head, loss and smoothing below.
        head: Options of the head on the backbone.
        loss: `cross_entropy` for one label a clip, `binary` asks of each label by itself; `auto` takes the one that
            fits the task.
        label_smoothing: Share of the target that is spread over all labels.
        drop_tokens: Share of each clip's patches that are left out in training.
        tuning: What of the backbone trains.
        augmentation: How training clips are varied.
        views: How views of a clip differ, in training and validation; None leaves them as they are.
        optimizer: Made from groups of parameters.
        schedule: Moves the learning rate.
        decay_on: Which parameters weight decay is for.
        head_rate: Factor of the optimizer's learning rate for the head.
        layer_decay: Factor of a block's learning rate for every block above it.
        recompute: Recompute activations of the encoder's blocks in the backward pass instead of keeping them.
        compile: Compile the encoder's blocks.
    """

    def __init__(
        self,
        *,
        backbone: Backbone | None = None,
        objective: Objective | None = None,
        head: HeadOptions = HEAD,
        loss: Loss = "auto",
        label_smoothing: ClosedUnitInterval = 0.0,
        drop_tokens: ClosedUnitInterval = 0.0,
        tuning: Tuning = TUNING,
        augmentation: Augmentation = AUGMENTATION,
        views: Views | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        schedule: Schedule | None = None,
        decay_on: DecayOn = "weights",
        head_rate: PositiveFloat = 1.0,
        layer_decay: PositiveFloat = 1.0,
        recompute: bool = False,
        compile: bool = False,
    ) -> None:
        if backbone is None:
            raise RecipeError("there is no backbone; give --checkpoint, or --model.backbone to start from scratch")
        if objective is None or objective.incomplete:
            own = Classification(head=head, loss=loss, label_smoothing=label_smoothing, drop_tokens=drop_tokens)
            if objective is None:
                objective = own
            else:
                objective.complete(own)
        elif (head, loss, label_smoothing, drop_tokens) != (HEAD, "auto", 0.0, 0.0):
            _log.warning(
                "model.objective is %s: model.head, model.loss, model.label_smoothing and model.drop_tokens of the "
                "recipe, which describe a Classification, are not used",
                type(objective).__name__,
            )
        super().__init__(
            backbone=backbone,
            objective=objective,
            views=views,
            augmentation=augmentation,
            tuning=tuning,
            optimizer=optimizer,
            schedule=schedule,
            decay_on=decay_on,
            head_rate=head_rate,
            layer_decay=layer_decay,
            recompute=recompute,
            compile=compile,
        )

    def attach(self, facts: Facts, *, measure: Measure | None = None, frame_measure: Measure | None = None) -> None:
        super().attach(facts, measure=measure, frame_measure=frame_measure)
        if self.options.kind == "knn":
            self.backbone.requires_grad_(False)
            self.train(self.training)

    @property
    def words(self) -> str:
        return "nearest neighbours" if self.options.kind == "knn" else super().words

    @property
    def options(self) -> HeadOptions:
        """Options of the head, if the objective is a classification."""
        found = self.objective.answering
        return found.options if isinstance(found, Classification) else HEAD
