"""Recipes that are proposed for shards."""

import pytest
import yaml

from ssl_audio.experiments.proposal import Facts, recipe_for


@pytest.mark.parametrize(
    ("clips", "seconds", "longest", "frames", "crops"),
    [(33, 60.0, 2.0, 128, 2), (500, 100.0, 0.2, 32, 2), (90_000, 9e5, 10.0, 1008, 1), (2_000_000, 2e7, 40.0, 1024, 1)],
)
def test_crops_positions_batch_and_steps_fit_each_other(clips, seconds, longest, frames, crops):
    facts = Facts(clips=clips, seconds=seconds, longest=longest, sample_rate=16000, split=False, cores=2)
    recipe = yaml.safe_load(recipe_for(facts, ['shards/a "b: #c']))
    data, backbone = recipe["data"], recipe["model"]["backbone"]
    assert data["shards"] == ['shards/a "b: #c']
    assert data["split"] is None
    assert backbone["position_frames"] == frames
    assert 1 + round((data["crop_seconds"] - 0.025) / 0.010) == frames  # whole patches
    assert data["crops_per_clip"] == crops
    assert (recipe["model"]["objective"]["clip_weight"] > 0) == (crops == 2)
    assert data["batch_clips"] <= max(4, clips)
    assert data["workers"] == 1
    heard = recipe["trainer"]["max_steps"] * data["batch_clips"] * crops * data["crop_seconds"] / seconds
    assert heard >= 9.9
    assert recipe["model"]["schedule"]["init_args"]["warmup_steps"] <= recipe["trainer"]["max_steps"] / 4
