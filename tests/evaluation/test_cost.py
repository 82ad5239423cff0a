"""What a fine-tuning costs, counted from its checkpoint."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from ssl_audio.checkpoints.checkpoint import Checkpoint, describe, load_checkpoint
from ssl_audio.evaluation import cost
from ssl_audio.objectives.heads import Head

SPEC = {
    "class_path": "ssl_audio.model.backbone.Backbone",
    "init_args": {
        "frontend": {"class_path": "ssl_audio.audio.fbank.Fbank", "init_args": {}},
        "encoder": {
            "class_path": "ssl_audio.model.encoders.Transformer",
            "init_args": {"width": 32, "depth": 2, "heads": 2},
        },
        "position_frames": 128,
    },
}


@pytest.fixture
def finetuned(tmp_path):
    """A checkpoint of 4 labels, of which so much was trained."""

    def save(*train: str) -> Checkpoint:
        recipe = {"model": {"backbone": SPEC, "tuning": {"train": list(train)}}}
        backbone = Checkpoint(tmp_path, recipe, {}, 0, "").untrained()
        head = Head(32, labels=4, pooling="mean", norm="layer")
        weights = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
        weights |= {f"head.{name}": value for name, value in head.state_dict().items()}
        task = {"target": "label", "labels": list("abcd"), "several": False}
        task["head"] = {"pooling": "mean", "norm": "layer"}
        path = tmp_path / f"{len(train)}.ckpt"
        torch.save({"state_dict": weights, "global_step": 0, "ssl_audio": describe(recipe, task=task)}, path)
        return load_checkpoint(path)

    return save


def test_a_frozen_backbone_is_not_gone_back_through(finetuned, monkeypatch):
    # Memory is of another process, which `compare` asks in its own test.
    monkeypatch.setattr(cost.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="1"))
    # As many frames as positions: what is added to the patches is then the table itself.
    full, linear = (cost.cost_of(finetuned(*train), clips=2, seconds=1.295) for train in (("*",), ()))
    assert full.parameters == linear.parameters
    # The way back is two products for one, and attention's computes its scores once more; the head is small.
    assert 3 < full.training_flops / linear.training_flops < 4
    assert all(value > 0 for value in dataclasses.astuple(linear))
