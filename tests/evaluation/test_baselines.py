"""Frozen models in folders of Hugging Face as baselines of a comparison."""

from pathlib import Path

import pytest
import torch
from ward import shards_of

from ssl_audio.data.labelled import LabelledShards
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation import baselines


def test_a_frozen_model_is_measured_as_statistics_are(tmp_path, monkeypatch):
    data = LabelledShards(shards=[shards_of(tmp_path, noisy="none", clips=24)], crop_seconds=4.0, validation_split=None)
    seen = []

    def features(folder: Path, *, longest: float):
        seen.append((folder, longest))
        return lambda batch: torch.stack([row[:100].abs().mean().repeat(3) for row in batch.waveforms]), 16000

    monkeypatch.setattr(baselines, "frozen_features", features)
    found = baselines.linear_baseline(data, tmp_path / "model")
    by_statistics = baselines.linear_baseline(data, "mel")
    assert found.keys.tolist() == by_statistics.keys.tolist()
    assert found.scores.shape == by_statistics.scores.shape
    # Whoever pads pads to the longest clip, or to 1 s where all are shorter.
    parts = data.parts
    longest = max(float(part.index.seconds.max()) for part in (parts.train, parts.valid, parts.test))
    assert longest < 1.0
    assert seen == [(tmp_path / "model", 1.0)]


def test_mistakes_are_found_before_anything_is_trained(tmp_path):
    with pytest.raises(
        RecipeError, match=r"--baselines cepstr: is neither cepstra, mel, .* nor a folder with a config"
    ):
        baselines.check_baselines(["mel", Path("cepstr")])
    for name in ("a/model", "b/model"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    baselines.check_baselines(["cepstra", tmp_path / "a/model"])
    with pytest.raises(RecipeError, match="two have the name model"):
        baselines.check_baselines([tmp_path / "a/model", tmp_path / "b/model"])
