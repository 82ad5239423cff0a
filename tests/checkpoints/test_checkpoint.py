"""What a checkpoint says of itself."""

from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat

from ssl_audio.checkpoints.checkpoint import describe


def test_a_recipe_of_a_parser_s_own_numbers_is_loaded_without_unpickling_anything(tmp_path):
    recipe = {"data": {"fold": NonNegativeInt(2), "shards": [Path("a")], "rate": PositiveFloat(0.5)}, "on": True}
    torch.save(describe(recipe, task={"labels": ("a", "b"), "several": False}), tmp_path / "x.ckpt")
    found = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert found["recipe"] == {"data": {"fold": 2, "shards": ["a"], "rate": 0.5}, "on": True}
    assert type(found["recipe"]["data"]["fold"]) is int
    assert found["recipe"]["on"] is True
    assert found["task"] == {"labels": ["a", "b"], "several": False}
