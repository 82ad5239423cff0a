"""Self-supervised pretraining as a LightningModule."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.checkpoints.checkpoint import describe
from ssl_audio.data.batch import Batch
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders.encoder import Encoder
from ssl_audio.objectives.masked_patches import Losses, MaskedPatches
from ssl_audio.objectives.views import Views
from ssl_audio.training.engines import compile_blocks, recompute_activations, shard
from ssl_audio.training.optimisation import DecayOn, Schedule, WarmupCosine, parameter_groups, spend_time


class Pretraining(L.LightningModule):
    """Train a backbone on unlabelled audio.

    Args:
        backbone: Waveform to token states.
        objective: What is hidden, asked and counted.
        views: How views of a clip differ; None leaves them as they are.
        optimizer: Made from groups of parameters.
        schedule: Moves the learning rate.
        decay_on: Which parameters weight decay is for.
        recompute: Compute activations of the encoder's blocks again going back instead of keeping them.
        compile: Compile the encoder's blocks.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        objective: MaskedPatches,
        views: Views | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        schedule: Schedule | None = None,
        decay_on: DecayOn = "weights",
        recompute: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.objective = objective
        self.views = views
        self.optimizer = optimizer
        self.schedule = schedule or WarmupCosine()
        self.decay_on: DecayOn = decay_on
        self.recipe: dict[str, Any] = {}
        objective.attach(backbone)
        self._compile = compile
        self._configured = False
        self._undecayed = {name for name, p in self.named_parameters() if getattr(p, "no_weight_decay", False)}
        if recompute:
            for encoder in self._encoders():
                recompute_activations(encoder)

    def _encoders(self) -> list[Encoder]:
        decoder = self.objective.decoder
        return [self.backbone.encoder] if decoder is None else [self.backbone.encoder, decoder]

    def configure_model(self) -> None:
        """Compile the blocks, and spread the weights over devices where the strategy does so."""
        if self._configured:
            return
        self._configured = True
        if self._compile:
            for encoder in self._encoders():
                compile_blocks(encoder, lengths_vary=getattr(self.trainer.datamodule, "lengths_vary", True))  # type: ignore[attr-defined]
        if self.device_mesh is not None:
            shard(self, self._encoders(), self.device_mesh, method="losses")

    def losses(self, batch: Batch) -> Losses:
        """The objective's losses of a batch."""
        spectrogram, seeds, source = self.view(batch)
        return self.objective(self.backbone, spectrogram, seeds, source)

    def view(self, batch: Batch) -> tuple[Spectrogram, torch.Tensor, torch.Tensor]:
        """Spectrogram, seed and source of each view."""
        times = self.objective.masks_per_clip
        with torch.no_grad():
            spectrogram = self.backbone.spectrogram(batch.waveforms, batch.samples).repeat(times)
            number = torch.arange(len(batch) * times, device=batch.seeds.device) % times
            seeds = batch.seeds.repeat_interleave(times) + number
            if self.views is not None:
                std = self.backbone.frontend.deviation
                spectrogram = self.views.apply(spectrogram, seeds, std=std)
        return spectrogram, seeds, batch.source.repeat_interleave(times)

    def on_train_start(self) -> None:
        # A checkpoint brings the schedule's attributes back, its old length included.
        self.schedule.prepare(self.trainer.max_steps)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        spend_time(self.trainer, self.schedule)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
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

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        losses = self.losses(batch)
        self.log_dict(
            {f"valid/{name}": value for name, value in losses.items()},
            batch_size=0 if batch.filler else len(batch.keys),
            sync_dist=True,
        )

    def on_validation_epoch_end(self) -> None:
        metrics = self.trainer.callback_metrics
        if self.trainer.sanity_checking:
            return
        if "valid/pretext_accuracy" in metrics:
            self.schedule.observe(float(metrics["valid/pretext_accuracy"]))
        elif "valid/loss" in metrics:
            self.schedule.observe(-float(metrics["valid/loss"]))

    def configure_optimizers(self) -> Any:
        # Sharding makes other parameters of them, without the marks of the old.
        for name, parameter in self.named_parameters():
            if name in self._undecayed:
                parameter.no_weight_decay = True  # type: ignore[attr-defined]
        optimizer = self.optimizer(parameter_groups(self, decay_on=self.decay_on))
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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ssl_audio"] = describe(self.recipe)
