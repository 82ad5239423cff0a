"""Monitoring of a run: gradients, speed, waiting, utilisation of the device, memory."""

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from ssl_audio.audio.reading import FAR_OVER
from ssl_audio.data.batch import Batch
from ssl_audio.data.replacing import of_all_ranks
from ssl_audio.names import printable
from ssl_audio.scan.flops import FlopCounterMode
from ssl_audio.training.alerts import Alerts

Peak = Callable[[torch.device, bool], float | None]
"""Operations a second that a device can do, in bf16 or not; None if unknown."""


class Watching(Callback):
    """Logs `watch/...` with the other metrics, and keeps non-finite gradients out of the weights.

    Args:
        alerts: Checks the logged values.
        peak: Peak of the device, for the model FLOPs utilisation.
    """

    def __init__(self, alerts: Alerts, *, peak: Peak) -> None:
        self.alerts = alerts
        self.peak = peak
        self.flops_per_clip = 0.0
        self._peak: float | None = None
        self._started = 0.0
        self._waited = 0.0
        self._clips = 0
        self._aside = 0.0
        self._norms: dict[str, Tensor] = {}
        self._batch: Any = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # Ranks that start later may see another newest run; and what all of them see is said once.
        self.alerts.folder = Path(trainer.strategy.broadcast(str(self.alerts.folder)))
        self.alerts.speaks = trainer.is_global_zero
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        rank = f"rank {trainer.global_rank}, " if trainer.world_size > 1 else ""
        data.watch_stalls(
            self.alerts.limits.stall_seconds,
            lambda text: self.alerts.stalled(trainer.global_step, f"{rank}step {trainer.global_step}: {text}"),
        )

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.alerts.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.alerts.skipped = int(state_dict["skipped"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._peak = self.peak(trainer.strategy.root_device, "bf16" in str(trainer.precision))
        self._mark(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch = batch
        if not self.flops_per_clip:
            self.flops_per_clip = training_flops(pl_module, batch) / batch.clips
            self._mark(trainer)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        floors = gradients_by_floor(pl_module)
        self._norms = {name: norm_of(found) for name, found in floors.items() if found}
        if not self._norms:
            return
        total = torch.stack(list(self._norms.values())).norm()
        self._norms["all"] = total
        # DDP has made gradients equal on all ranks, so all of them decide the same.
        if not bool(torch.isfinite(total)) and getattr(trainer.precision_plugin, "scaler", None) is None:
            for parameter in pl_module.parameters():
                parameter.grad = None
            self.alerts.not_finite(trainer.global_step, suspects(self._batch))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._clips += batch.clips * trainer.world_size
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step % every or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        seconds = max(time.monotonic() - self._started - self._aside, 1e-9)
        speed = self._clips / seconds
        found: dict[str, Any] = {f"watch/gradient/{name}": norm for name, norm in self._norms.items()}
        found["watch/learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        found["watch/clips_per_second"] = speed
        waited = getattr(trainer.datamodule, "waited", 0.0)  # type: ignore[attr-defined]
        found["watch/data_wait_share"] = (waited - self._waited) / seconds
        found["watch/replaced"] = float(getattr(trainer.datamodule, "replaced_here", 0))  # type: ignore[attr-defined]
        found["watch/memory_gb"] = memory_bytes(trainer.strategy.root_device) / 2**30
        if self._peak:
            reached = speed / trainer.world_size * self.flops_per_clip
            self._peak = max(self._peak, reached)  # of a CPU it was measured, perhaps beside other work
            found["watch/flops_utilisation"] = reached / self._peak
        pl_module.log_dict({name: float(value) for name, value in found.items()}, batch_size=1)
        if loss is not None:
            self.alerts.see(step, loss=float(loss), clips_per_second=speed)
        self._mark(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._paused = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._aside += time.monotonic() - self._paused

    def _mark(self, trainer: L.Trainer) -> None:
        self._started, self._aside, self._clips = time.monotonic(), 0.0, 0
        self._waited = getattr(trainer.datamodule, "waited", 0.0)  # type: ignore[attr-defined]


def suspects(batch: Batch) -> str:
    """Which clips may have made gradients that are not finite: those of all ranks' last batches that are not
    finite, or silent. Every rank must ask.
    """
    odd: dict[str, str] = {}
    # NaN is more than any peak.
    for row, peak in enumerate(batch.waveforms.abs().amax(dim=1).tolist()):
        if not 0.0 < peak <= FAR_OVER:
            odd[batch.keys[int(batch.source[row])]] = f"peaks at {peak:g}" if peak else "is silent"
    if odd := of_all_ranks(odd):
        return "look at " + _few([f"{printable(key)}, which {why}" for key, why in odd.items()])
    return "no clip of its last batch is silent or beyond full scale: " + _few([printable(key) for key in batch.keys])


def _few(words: list[str], most: int = 3) -> str:
    return "; ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def gradients_by_floor(module: L.LightningModule) -> dict[str, list[Tensor]]:
    """Gradients of the embedding (positions and class tokens too), the encoder, the adapters and the heads."""
    floors: dict[str, list[Tensor]] = {"embedding": [], "encoder": [], "adapters": [], "heads": []}
    for name, parameter in module.named_parameters():
        if parameter.grad is None:
            continue
        within = name.removeprefix("backbone.")
        part = within.split(".")[0] if within in ("encoder", "adapters") or within != name else "heads"
        floors[part if part in floors else "embedding"].append(parameter.grad)
    return floors


def norm_of(gradients: list[Tensor]) -> Tensor:
    """Euclidean norm of all of them together; of sharded ones, over all shards."""
    norm = torch.stack(torch._foreach_norm(gradients)).norm()
    # Only a DTensor has it; to import its class takes half a second.
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def training_flops(module: L.LightningModule, batch: Any) -> float:
    """Operations of a training step on a batch, without the update: three times those of the forward pass."""
    losses: Any = getattr(module, "losses", None)
    if losses is None or not isinstance(module, nn.Module):
        return 0.0
    devices = [module.device] if module.device.type == "cuda" else []
    training = {inner: inner.training for inner in module.modules()}
    # Counting must change nothing, and ranks must not wait for each other in it.
    module.eval()
    with torch.random.fork_rng(devices=devices), torch.compiler.set_stance("force_eager"):
        counter = FlopCounterMode(display=False)
        with counter:
            losses(batch)
    for inner, mode in training.items():
        inner.training = mode
    return 3.0 * counter.get_total_flops()


def memory_bytes(device: torch.device) -> int:
    """Peak memory: of the GPU if there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
