"""Training of a backbone with an objective, as a LightningModule."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from jsonargparse.typing import PositiveFloat
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.checkpoints.checkpoint import describe
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.errors import CheckpointError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders.encoder import Encoder
from ssl_audio.model.tuning import Tuning, set_modes
from ssl_audio.objectives.augmentation import Augmentation
from ssl_audio.objectives.objective import Answer, Losses, Objective
from ssl_audio.objectives.returned import checked_answer, checked_losses
from ssl_audio.objectives.views import Views
from ssl_audio.training.engines import compile_blocks, recompute_activations, shard
from ssl_audio.training.gathering import gathered
from ssl_audio.training.optimisation import DecayOn, Schedule, WarmupCosine, graded_groups, spend_time

TUNING = Tuning()
AUGMENTATION = Augmentation()

Measure = Callable[[Any, Any], float]
"""From scores and targets of clips to one number, the higher the better."""


class Training(L.LightningModule):
    """Train a backbone with an objective: for pretraining and for fine-tuning.

    Args:
        backbone: Waveform to token states.
        objective: What is learnt, with its losses.
        views: How views of a clip differ, in training and validation; None leaves them as they are.
        augmentation: How training clips are varied.
        tuning: What of the backbone trains.
        optimizer: Made from groups of parameters.
        schedule: Moves the learning rate.
        decay_on: Which parameters weight decay is for.
        head_rate: Factor of the optimizer's learning rate for the parameters of the objective.
        layer_decay: Factor of a block's learning rate for every block above it.
        recompute: Recompute activations of the encoder's blocks in the backward pass instead of keeping them.
        compile: Compile the encoder's blocks.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        objective: Objective,
        views: Views | None = None,
        augmentation: Augmentation = AUGMENTATION,
        tuning: Tuning = TUNING,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        schedule: Schedule | None = None,
        decay_on: DecayOn = "weights",
        head_rate: PositiveFloat = 1.0,
        layer_decay: PositiveFloat = 1.0,
        recompute: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.objective = objective
        self.views = views
        self.augmentation = augmentation
        self.tuning = tuning
        self.optimizer = optimizer
        self.schedule = schedule or WarmupCosine()
        self.decay_on: DecayOn = decay_on
        # Plain numbers: they are saved in the checkpoint, which may hold no other classes.
        self.head_rate = float(head_rate)
        self.layer_decay = float(layer_decay)
        self.recipe: dict[str, Any] = {}
        self.task: dict[str, Any] | None = None
        self.measure: Measure | None = None
        self.frame_measure: Measure | None = None
        self._recompute = recompute
        self._compile = compile
        self._configured = False
        self._undecayed: set[str] = set()
        self._answers: list[tuple[np.ndarray, ...]] = []

    def attach(self, facts: Facts, *, measure: Measure | None = None, frame_measure: Measure | None = None) -> None:
        """Build the objective's own modules; called once, before training.

        Args:
            facts: What objectives may know of the data.
            measure: Validation score of answers, from scores and targets of clips, if the objective gives any.
            frame_measure: The same from numbers of clips and the probabilities of their frames, instead.
        """
        self.tuning.apply(self.backbone)  # teachers do not copy what is frozen
        self.objective.attach(self.backbone, facts)
        self.measure, self.frame_measure = measure, frame_measure
        if facts.labels:
            self.task = {
                "target": facts.target,
                "labels": list(facts.labels),
                "several": facts.several,
                "objective": self.objective.described(),
            }
        self._undecayed = {name for name, p in self.named_parameters() if getattr(p, "no_weight_decay", False)}
        if self._recompute:
            for encoder in self._encoders():
                recompute_activations(encoder)
        self.train(self.training)

    @property
    def words(self) -> str:
        """What trains, in words."""
        return self.tuning.words

    def _encoders(self) -> list[Encoder]:
        return [self.backbone.encoder, *self.objective.encoders]

    def train(self, mode: bool = True) -> "Training":
        """Training mode for what trains; what is frozen stays in evaluation mode."""
        super().train(mode)
        set_modes(self.backbone, mode)
        return self

    def configure_model(self) -> None:
        """Compile the blocks, and spread the weights over devices where the strategy does so."""
        if self._configured:
            return
        self._configured = True
        if self._compile:
            for encoder in self._encoders():
                compile_blocks(encoder, lengths_vary=getattr(self.trainer.datamodule, "lengths_vary", True))  # type: ignore[attr-defined]
        if self.device_mesh is not None:
            shard(self, self._encoders(), self.device_mesh, methods=("losses", "validated"))

    def inputs(self, batch: Batch) -> tuple[Batch, Spectrogram]:
        """The objective's inputs for a batch: its rows, and their augmented spectrograms."""
        with torch.no_grad():
            if self.training:
                batch = self.augmentation.shorten(batch)
                batch = self.augmentation.mix(batch, sample_rate=self.backbone.frontend.sample_rate)
                spectrogram = self.augmentation.spectrogram(self.backbone, batch)
            else:
                spectrogram = self.backbone.spectrogram(batch.waveforms, batch.samples)
            spectrogram = spectrogram.repeat(self.objective.views)
            batch = dataclasses.replace(batch.repeated(self.objective.views), clean=spectrogram)
            if self.views is not None:
                frontend = self.backbone.frontend
                vary = functools.partial(self.views.apply, seeds=batch.seeds, std=frontend.deviation)
                spectrogram = frontend.through_spectrum(spectrogram, vary)
            if self.training:
                spectrogram = self.augmentation.disturb(spectrogram, batch.seeds)
        return batch, spectrogram

    def losses(self, batch: Batch) -> Losses:
        """The objective's losses of a batch."""
        return checked_losses(self.objective, self.objective(self.backbone, *self.inputs(batch)))

    def validated(self, batch: Batch) -> tuple[Losses, Answer | None]:
        """The objective's losses of a batch, and its answer."""
        losses, answer = self.objective.validate(self.backbone, *self.inputs(batch))
        return checked_losses(self.objective, losses), answer

    def on_train_start(self) -> None:
        # A checkpoint restores the schedule's attributes, including its old length.
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.schedule.prepare(self.trainer.max_steps, epoch_steps=data.epoch_steps)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        spend_time(self.trainer, self.schedule)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses = self.losses(batch)
        shown = torch.stack([value.detach().float() for value in losses.values()])
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (self.trainer.global_step + 1) % every == 0:
            # What is logged is of the global batch, in one reduction.
            shown = self.trainer.strategy.reduce(shown, reduce_op="mean")
        self.log_dict(
            {f"train/{name}": value for name, value in zip(losses, shown, strict=True)}, batch_size=len(batch.keys)
        )
        return losses["loss"]

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0:
            self.objective.after_step(self.backbone, self.trainer.global_step)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        losses, answer = self.validated(batch)
        self.log_dict(
            {f"valid/{name}": value for name, value in losses.items()},
            batch_size=0 if batch.filler else len(batch.keys),
            sync_dist=True,
        )
        if answer is None or self.measure is None or batch.targets is None or batch.filler:
            return
        clips, labels = batch.targets.shape
        answer = checked_answer(self.objective, answer, clips=clips, labels=labels)
        assert answer.clips is not None
        assert batch.clip_numbers is not None
        seen = (batch.clip_numbers, answer.clips.float(), batch.targets)
        if self.frame_measure is not None and answer.frames is not None:
            seen = (*seen, answer.frames.float().sigmoid())  # type: ignore[assignment]
        self._answers.append(tuple(values.cpu().numpy() for values in seen))

    def on_validation_epoch_end(self) -> None:
        answers, self._answers = self._answers, []
        if self.trainer.sanity_checking:
            return
        metrics = self.trainer.callback_metrics
        score = self.objective.score
        if self.measure is not None:
            value = self._measured(answers)
            self.log("valid/score", value)
            self.schedule.observe(value)
        elif score is not None and f"valid/{score}" in metrics:
            self.schedule.observe(float(metrics[f"valid/{score}"]))
        elif "valid/loss" in metrics:
            self.schedule.observe(-float(metrics["valid/loss"]))

    def _measured(self, answers: list[tuple[np.ndarray, ...]]) -> float:
        """The measure over the clips of all ranks, in the order of the clips, so that it does not depend on ranks."""
        assert self.measure is not None
        every = list(zip(*gathered(answers), strict=True))
        numbers, scores, targets = (np.concatenate(parts) for parts in every[:3])
        if self.frame_measure is not None and len(every) > 3:
            return float(np.nan_to_num(self.frame_measure(numbers, joined_frames(every[3]))))
        order = np.argsort(numbers, kind="stable")
        return float(np.nan_to_num(self.measure(scores[order], targets[order] > 0.5)))

    def configure_optimizers(self) -> Any:
        # Sharding replaces the parameters, without their marks.
        for name, parameter in self.named_parameters():
            if name in self._undecayed:
                parameter.no_weight_decay = True  # type: ignore[attr-defined]
        groups = graded_groups(
            self.backbone,
            self.objective,
            decay_on=self.decay_on,
            head_rate=self.head_rate,
            backbone_rate=float(self.tuning.backbone_rate),
            adapter_rate=float(self.tuning.adapter_rate),
            layer_decay=self.layer_decay,
        )
        optimizer = self.optimizer([group for group in groups if group["params"]])
        for group in optimizer.param_groups:
            group["lr"] *= group["scale"]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """As Lightning does, which refuses fused optimizers: they unscale by themselves, but bf16 scales nothing."""
        plugin: Any = self.trainer.precision_plugin
        if getattr(plugin, "scaler", None) is not None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val and gradient_clip_algorithm == "value":
            plugin.clip_grad_by_value(optimizer, gradient_clip_val)
        elif gradient_clip_val:
            plugin.clip_grad_by_norm(optimizer, gradient_clip_val)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        data = type(self.trainer.datamodule).__name__  # type: ignore[attr-defined]
        if data not in checkpoint:
            raise CheckpointError(
                f"{self.trainer.ckpt_path}: does not say which clips were read ({data}); it was written by an earlier "
                "version in the middle of a fine-tuning, or for other data: begin a new run with --resume never"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ssl_audio"] = describe(self.recipe, task=self.task)


def joined_frames(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Scores of the frames of several batches, whose clips may be longer or shorter, with zeros behind."""
    most = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, most - part.shape[1]), (0, 0))) for part in parts])
