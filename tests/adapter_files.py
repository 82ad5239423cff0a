"""A small base, and adapter checkpoints on it as fine-tuning leaves them."""

import copy
from pathlib import Path

import torch

from ssl_audio.checkpoints.adaptation import Adaptation, load_backbone
from ssl_audio.checkpoints.adapters_only import only_trained
from ssl_audio.checkpoints.checkpoint import Checkpoint, describe
from ssl_audio.checkpoints.opening import base_behind, open_checkpoint
from ssl_audio.checkpoints.sizes import NO_HINTS, Hints
from ssl_audio.objectives import Classification
from ssl_audio.objectives.heads import Head

LORA = {
    "class_path": "ssl_audio.model.adapters.LowRank",
    "init_args": {"rank": 2, "targets": ["qkv[query]", "qkv[value]"]},
}
NECK = {"class_path": "ssl_audio.model.adapters.Bottleneck", "init_args": {"hidden": 4}}


def spec_of(width: int = 32, **options) -> dict:
    return {
        "class_path": "ssl_audio.model.backbone.Backbone",
        "init_args": {
            "frontend": {"class_path": "ssl_audio.audio.fbank.Fbank", "init_args": {}},
            "encoder": {
                "class_path": "ssl_audio.model.encoders.Transformer",
                "init_args": {"width": width, "depth": 2, "heads": 4},
            },
            "position_frames": 128,
            **options,
        },
    }


def base_at(path: Path, *, seed: int = 0, width: int = 32, encoder: dict | None = None) -> Checkpoint:
    """A whole checkpoint as pretraining leaves it."""
    spec = spec_of(width)
    spec["init_args"]["encoder"] = encoder or spec["init_args"]["encoder"]
    recipe = {"model": {"backbone": spec}}
    fresh = Checkpoint(path, recipe, {}, 0, "").untrained(seed=seed)
    weights = {f"backbone.{name}": value for name, value in fresh.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": weights, "global_step": 3, "ssl_audio": describe(recipe)}, path)
    return open_checkpoint(path)


def trained_at(
    path: Path,
    source: Checkpoint,
    adapters: list[dict],
    *,
    train: tuple[str, ...] = ("adapters.",),
    frames: int | None = None,
    labels: str = "abc",
    seed: int = 1,
    hints: Hints = NO_HINTS,
) -> dict[str, torch.Tensor]:
    """Write an adapter checkpoint whose trained tensors are random; returns all weights."""
    spec = Adaptation(frames=frames, mean=-5.0).spec(source)
    spec["init_args"]["adapters"] = [*(spec["init_args"].get("adapters") or []), *adapters]
    recipe = {"model": {"backbone": spec}}
    backbone = Checkpoint(path, recipe, {}, 0, "").untrained(seed=seed)
    load_backbone(backbone, source)
    torch.manual_seed(seed)
    head = Head(backbone.width, labels=len(labels))
    trained = [name for name in backbone.state_dict() if name.startswith(train)]
    with torch.no_grad():
        for name, value in backbone.state_dict().items():
            if name in trained:
                value.normal_(std=0.1)
    state = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    state |= {f"objective.head.{name}": value for name, value in head.state_dict().items()}
    task = {"target": "event", "labels": list(labels), "several": False, "objective": Classification().described()}
    content = only_trained(
        state, recipe, base_behind(source), trained=trained, rule="place", hints=hints, task=task, step=7
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return copy.deepcopy(state)
