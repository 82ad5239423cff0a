"""Which parameters decay, and how the rate moves."""

from itertools import pairwise

import pytest
import torch

from ssl_audio.model.backbone import Backbone
from ssl_audio.training.optimisation import StaircasePlateau, WarmupCosine, parameter_groups


def test_biases_norms_positions_and_tokens_do_not_decay(tiny_backbone: Backbone):
    names = {id(parameter): name for name, parameter in tiny_backbone.named_parameters()}
    decayed, exempt = (
        {names[id(parameter)] for parameter in group["params"]} for group in parameter_groups(tiny_backbone)
    )
    assert decayed | exempt == set(names.values())
    assert not decayed & exempt
    assert {name for name in names.values() if "norm" in name or name.endswith("bias")} <= exempt
    assert {"positions.table", "class_tokens", "class_positions"} <= exempt
    assert "embedding.weight" in decayed
    assert "encoder.blocks.0.mlp.transform.expand.weight" in decayed
    tiny_backbone.embedding.weight.requires_grad_(False)
    groups = parameter_groups(tiny_backbone, decay_on="everything")
    assert len(groups) == 1
    assert len(groups[0]["params"]) == len(names) - 1


def test_cosine_rises_and_falls_by_steps_or_by_time():
    schedule = WarmupCosine(warmup_steps=9, final=0.1)
    schedule.prepare(109)
    rates = [schedule(step) for step in range(110)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(9)] + [1.0])
    assert rates[59] == pytest.approx(0.55)
    assert rates[109] == pytest.approx(0.1)
    assert all(later <= earlier for earlier, later in pairwise(rates[9:]))
    schedule.spend(1.0)
    assert schedule(20) == pytest.approx(0.1)


def test_staircase_and_plateau_as_published():
    """Rate 0 for 50 steps, stairs to 1000, halved when two validations in a row and one more bring nothing better."""
    schedule = StaircasePlateau()
    assert [schedule(step) for step in (0, 49, 50, 99, 500, 999, 1000, 5000)] == [
        0.0, 0.0, 0.05, 0.05, 0.5, 0.95, 1.0, 1.0,
    ]  # fmt: skip
    reference = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(reference, mode="max", factor=0.5, patience=2, threshold=0.0)
    for value in (0.1, 0.2, 0.2, 0.15, 0.19, 0.1, 0.3, 0.3, 0.2, 0.1, 0.0, 0.0, 0.0):
        schedule.observe(value)
        plateau.step(value)
        assert schedule(5000) == reference.param_groups[0]["lr"]
