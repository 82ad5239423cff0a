"""A task of a sequence as a model with its data, also on the backbone of another checkpoint."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_audio.checkpoints.adaptation import load_backbone
from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.checkpoints.opening import open_alone, open_checkpoint
from ssl_audio.data.batch import Batch
from ssl_audio.data.labelled import LabelledShards
from ssl_audio.data.labels import Part
from ssl_audio.errors import CheckpointError, RecipeError
from ssl_audio.evaluation.predictions import Predictions, predict_part
from ssl_audio.model.backbone import Backbone
from ssl_audio.objectives.classification import Classification
from ssl_audio.objectives.objective import Objective


@dataclasses.dataclass(frozen=True, slots=True)
class TaskModel:
    """What answers for a task.

    Args:
        spec: Recipe of its backbone.
        backbone: Waveform to token states.
        objective: The task's head.
        data: The task's clips.
    """

    spec: dict[str, Any]
    backbone: Backbone
    objective: Objective
    data: LabelledShards

    def on(self, found: Checkpoint) -> "TaskModel":
        """The same head on the backbone of a checkpoint and its adapters, with this task's positions and statistics."""
        spec = copy.deepcopy(self.spec)
        spec["init_args"]["adapters"] = copy.deepcopy(found.spec["init_args"].get("adapters"))
        backbone = Checkpoint(found.path, {"model": {"backbone": spec}}, {}, 0, found.version).untrained()
        load_backbone(backbone, found)
        frontend = self.backbone.frontend
        backbone.frontend.set_statistics(*frontend.statistics)
        return dataclasses.replace(self, spec=spec, backbone=backbone.eval())

    def logits(self, batch: Batch) -> Float[Tensor, "clip label"]:
        """Of the clips of any task."""
        answer = self.objective.predict(self.backbone, self.backbone.spectrogram(batch.waveforms, batch.samples))
        if answer is None or answer.clips is None:
            raise RecipeError(f"{type(self.objective).__name__} gives no scores of clips; expected a Classification")
        return answer.clips

    def test(self) -> Predictions:
        """Of the test clips of the task."""
        parts = self.data.parts
        batches = self.data.every(parts.test)
        return predict_part(self.logits, batches, parts.test, parts.labels, several=self.data.several)

    def probabilities(self, data: LabelledShards) -> Float[np.ndarray, "clip label"]:
        """What it says of the test clips of any task."""
        with torch.inference_mode():
            found = [self.logits(batch).float().softmax(dim=1) for batch in data.every(data.parts.test)]
        return torch.cat(found).numpy()

    def features(
        self, data: LabelledShards, part: Part
    ) -> tuple[Float[np.ndarray, "clip channel"], Bool[np.ndarray, "clip label"]]:
        """What the head pools of the clips of any task, and their labels."""
        if not isinstance(self.objective, Classification):
            raise RecipeError(f"{type(self.objective).__name__} pools no clips; expected a Classification")
        rows = []
        with torch.inference_mode():
            for batch in data.every(part, replacing=True):
                spectrogram = self.backbone.spectrogram(batch.waveforms, batch.samples)
                rows.append(self.objective.pooled(self.backbone, spectrogram).float())
        return torch.cat(rows).numpy(), part.targets


def present(path: Path) -> Path:
    """The file of a task that was learnt.

    Raises:
        CheckpointError: if it is missing; the message says what to do.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path}: the file of a task that was learnt is missing; put it back, or remove {path.parent.parent} to "
            "learn the task again"
        )
    return path


def opened(path: Path, *, base: Path) -> Checkpoint:
    """The checkpoint of a task that was learnt.

    Args:
        path: Its file.
        base: What it stands on, if it holds adapters alone.

    Raises:
        CheckpointError: if it is missing; the message says what to do.
    """
    return open_checkpoint(present(path), base=base if open_alone(path).base is not None else None)


def model_of(found: Checkpoint, data: LabelledShards) -> TaskModel:
    """The model of a task's checkpoint."""
    backbone = found.backbone().eval()
    return TaskModel(found.spec, backbone, found.objective(backbone).eval(), data)
