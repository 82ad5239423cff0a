"""Parts of monitoring that need floors above training: probes, pictures, and the peak of the device."""

import dataclasses
from typing import Any

import lightning as L
import numpy as np
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt
from lightning.pytorch.loggers import Logger
from torch import Tensor

from ssl_audio.data.batch import Batch
from ssl_audio.data.index import open_shards
from ssl_audio.evaluation.benchmark import product_rate
from ssl_audio.evaluation.embedding import Embedder, embed_clips
from ssl_audio.evaluation.gpu_bounds import data_sheet_flops
from ssl_audio.evaluation.probe import score_neighbours, tasks_of
from ssl_audio.experiments.assessment import Probing, draw_picture
from ssl_audio.model.backbone import Backbone
from ssl_audio.tokens import pool_moments
from ssl_audio.training.alerts import Limits
from ssl_audio.training.module import Training
from ssl_audio.training.panels import Look, rank_me
from ssl_audio.training.run import Run
from ssl_audio.training.wandb import send_picture

_CLIPS = 256


@dataclasses.dataclass(frozen=True)
class WatchOptions:
    """What is logged besides losses, and when to alert.

    Args:
        panel_steps: Steps from one panel to the next (spectrograms, rank of the embeddings, neighbours on the shards
            of `probe`); 0 draws none.
        panel_share: Largest share of the training time for panels; a panel that would exceed it is skipped.
        limits: When to alert.
    """

    panel_steps: NonNegativeInt = 2000
    panel_share: ClosedUnitInterval = 0.01
    limits: Limits = dataclasses.field(default_factory=Limits)


def device_peak(device: torch.device, bf16: bool) -> float | None:
    """Operations per second: of a GPU from its data sheet, of a CPU measured now with a matrix product."""
    if device.type == "cpu":
        # A short measurement: every training waits for it, and `Watching` raises it to what a step reaches.
        precision = torch.bfloat16 if bf16 else torch.float32
        return product_rate(precision, width=384, tokens=256, device=device, repeats=5)
    if device.type != "cuda" or not bf16:
        return None
    return data_sheet_flops(torch.cuda.get_device_name(device))


def looker(this: Run, data: Any, probing: list[Probing], loggers: list[Logger]) -> Look:
    """A panel: RankMe of some clips, neighbours on labelled ones, and what the model makes of hidden patches."""

    def look(module: L.LightningModule, step: int) -> dict[str, float]:
        assert isinstance(module, Training)
        window = data.crop_seconds or 10.0
        embedder, rate = {"now": _moments(module.backbone)}, module.backbone.frontend.sample_rate
        index = data.training_index
        some = index.select(np.linspace(0, len(index) - 1, min(_CLIPS, len(index))).astype(np.int64))
        vectors = embed_clips(some, embedder, sample_rate=rate, max_seconds=window)["now"]
        found = {"rank_me": rank_me(torch.from_numpy(vectors))}
        for wanted in probing:
            labelled = open_shards([wanted.shards])
            tasks = tasks_of(labelled, wanted.targets, protocol=wanted.protocol)
            used = np.unique(np.concatenate([task.clips for task in tasks.values()]))
            clips = labelled.select(used)
            features = embed_clips(clips, embedder, sample_rate=rate, max_seconds=window)["now"]
            for target, task in tasks.items():
                nearest = score_neighbours(features[np.searchsorted(used, task.clips)], task)
                found[f"neighbours/{target if len(probing) == 1 else f'{wanted.shards.name} {target}'}"] = nearest
        picture = draw_picture(module, index, window)
        if picture is not None:
            this.write(f"panel-{step:08d}.png", picture[1])
            send_picture(loggers, this.folder / f"panel-{step:08d}.png", step)
        return found

    return look


def _moments(backbone: Backbone) -> Embedder:
    """Mean and standard deviation of the token states of clips that are one window long, on the backbone's device."""

    def embed(batch: Batch) -> Tensor:
        here = batch.to(backbone.embedding.weight.device)
        with torch.autocast(here.waveforms.device.type, torch.bfloat16, enabled=here.waveforms.is_cuda):
            return pool_moments(backbone(here.waveforms, here.samples)).cpu()

    return embed
