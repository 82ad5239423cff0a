"""Supervised training of a head, and of the backbone under it, as a LightningModule."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from jsonargparse.typing import ClosedUnitInterval, PositiveFloat, PositiveInt
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from ssl_audio.checkpoints.checkpoint import describe
from ssl_audio.data.part_loading import LabelledBatch
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.tuning import Tuning, set_modes, trains
from ssl_audio.objectives.augmentation import Augmentation
from ssl_audio.objectives.pooling import Pooling
from ssl_audio.objectives.tasks import Head, Norm, classify
from ssl_audio.training.optimisation import DecayOn, Schedule, WarmupCosine, graded_groups, spend_time


@dataclasses.dataclass(frozen=True)
class HeadOptions:
    """What stands on the backbone.

    Args:
        pooling: One vector a clip: `mean` over its patches, their mean and deviation (`moments`), those of every band
            of patches side by side (`bands`), mean of its `class` tokens, or an `attentive` mean.
        layers: Sum the outputs of all blocks with learnt weights instead of taking the last.
        projection: Channels of a linear layer before pooling; null has none.
        norm: On the pooled vector: `layer` norm, `batch` norm without parameters, or `none`.
        kind: `linear` learns a linear layer; `knn` learns nothing: it asks the nearest training clips, and the backbone
            stays as it is.
        begin: `random` draws the linear layer's weights; `probe` fits them to the training clips as the backbone
            sees them before it is trained (a linear probe), so that the first gradients do not spoil the backbone.

    Source: arXiv 2202.10054 (linear probing, then fine-tuning).
    """

    pooling: Pooling = "mean"
    layers: bool = False
    projection: PositiveInt | None = None
    norm: Norm = "layer"
    kind: Literal["linear", "knn"] = "linear"
    begin: Literal["random", "probe"] = "random"


HEAD = HeadOptions()
TUNING = Tuning()
AUGMENTATION = Augmentation()


class Finetuning(L.LightningModule):
    """Train a backbone for a task.

    Args:
        backbone: Waveform to token states. Left out, it is the checkpoint's.
        tuning: What of the backbone trains.
        head: What stands on the backbone.
        augmentation: How training clips are varied.
        loss: `cross_entropy` for one label a clip, `binary` asks of each label by itself; `auto` takes the one that
            fits the task.
        label_smoothing: Share of the target that is spread over all labels.
        optimizer: Made from groups of parameters.
        schedule: Moves the learning rate.
        decay_on: Which parameters weight decay is for.
        head_rate: Factor of the optimizer's learning rate for the head.
        layer_decay: What a block's rate is multiplied with for every block above it.
    """

    head: Head

    def __init__(
        self,
        *,
        backbone: Backbone | None = None,
        tuning: Tuning = TUNING,
        head: HeadOptions = HEAD,
        augmentation: Augmentation = AUGMENTATION,
        loss: Literal["auto", "cross_entropy", "binary"] = "auto",
        label_smoothing: ClosedUnitInterval = 0.0,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        schedule: Schedule | None = None,
        decay_on: DecayOn = "weights",
        head_rate: PositiveFloat = 1.0,
        layer_decay: PositiveFloat = 1.0,
    ) -> None:
        super().__init__()
        if backbone is None:
            raise RecipeError("there is no backbone; give --checkpoint, or --model.backbone to start from scratch")
        self.backbone = backbone
        self.tuning = tuning
        self.options = head
        self.augmentation = augmentation
        self.loss = loss
        self.label_smoothing = label_smoothing
        self.optimizer = optimizer
        self.schedule = schedule or WarmupCosine()
        self.decay_on: DecayOn = decay_on
        # Plain numbers: they end up in the checkpoint, which holds no classes of others.
        self.head_rate = float(head_rate)
        self.layer_decay = float(layer_decay)
        self.recipe: dict[str, Any] = {}
        self.task: dict[str, Any] = {}
        self._seen: list[tuple[Tensor, Tensor]] = []

    @property
    def words(self) -> str:
        """What trains, for people."""
        return "nearest neighbours" if self.options.kind == "knn" else self.tuning.words

    @property
    def frozen(self) -> bool:
        """Whether the backbone stays as it is."""
        return not trains(self.backbone)

    def attach(self, labels: list[str], *, target: str, several: bool, measure: Callable[[Any, Any], float]) -> None:
        """Make the head for these labels; called once, before training.

        Args:
            labels: Names in the order of the logits.
            target: Kind of label.
            several: A clip may have several.
            measure: Of scores and targets, the higher the better; what validation chooses by.
        """
        if self.options.pooling == "class" and not len(self.backbone.class_tokens):
            raise RecipeError(
                "model.head.pooling is class, but this backbone has no class tokens; expected mean or attentive"
            )
        self.measure = measure
        self.head = Head(
            self.backbone.width,
            labels=len(labels),
            pooling=self.options.pooling,
            bands=self.backbone.bands,
            layers=len(self.backbone.encoder.blocks) if self.options.layers else None,
            projection=self.options.projection,
            norm=self.options.norm,
        )
        self.tuning.apply(self.backbone)
        if self.options.kind == "knn":
            self.backbone.requires_grad_(False)
        set_modes(self.backbone, self.training)
        self.several = several
        self.task = {
            "target": target,
            "labels": labels,
            "several": several,
            "head": dataclasses.asdict(self.options),
        }

    def train(self, mode: bool = True) -> "Finetuning":
        super().train(mode)
        set_modes(self.backbone, mode)
        return self

    def forward(self, batch: LabelledBatch) -> Float[Tensor, "clip label"]:
        """Logits of clips as they are."""
        clips = batch.batch
        spectrogram = self.backbone.spectrogram(clips.waveforms, clips.samples)
        return classify(self.backbone, self.head, spectrogram)

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> Tensor:
        clips = batch.batch
        with torch.no_grad():
            waveforms, targets = self.augmentation.mix(clips.waveforms, clips.samples, batch.targets, clips.seeds)
            spectrogram = self.backbone.spectrogram(waveforms, clips.samples)
            spectrogram = self.augmentation.disturb(spectrogram, clips.seeds)
        logits = classify(self.backbone, self.head, spectrogram, frozen=self.frozen).float()
        loss = self.loss_of(logits, targets)
        self.log("train/loss", loss.detach(), batch_size=len(batch))
        return loss

    def loss_of(self, logits: Float[Tensor, "clip label"], targets: Float[Tensor, "clip label"]) -> Float[Tensor, ""]:
        """The loss of a batch; targets may be mixed."""
        kind = self.loss if self.loss != "auto" else "binary" if self.several else "cross_entropy"
        if kind == "cross_entropy":
            if self.several:
                raise RecipeError("model.loss is cross_entropy, but clips may have several labels; expected binary")
            return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        smooth = self.label_smoothing
        return F.binary_cross_entropy_with_logits(logits, targets * (1 - smooth) + smooth / targets.shape[1])

    def validation_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        logits = self(batch).float()
        self.log("valid/loss", self.loss_of(logits, batch.targets), batch_size=len(batch))
        self._seen.append((logits.cpu(), batch.targets.cpu()))

    def on_validation_epoch_end(self) -> None:
        logits, targets = (torch.cat(parts).numpy() for parts in zip(*self._seen, strict=True))
        self._seen.clear()
        score = float(np.nan_to_num(self.measure(logits, targets > 0.5)))
        self.log("valid/score", score)
        self.schedule.observe(score)

    def on_train_start(self) -> None:
        batches = max(1, int(self.trainer.num_training_batches) // self.trainer.accumulate_grad_batches)
        self.schedule.prepare(self.trainer.max_steps, epoch_steps=batches)

    def on_train_batch_start(self, batch: LabelledBatch, batch_idx: int) -> None:
        spend_time(self.trainer, self.schedule)

    def configure_optimizers(self) -> Any:
        groups = graded_groups(
            self.backbone,
            self.head,
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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ssl_audio"] = describe(self.recipe, task=self.task)
