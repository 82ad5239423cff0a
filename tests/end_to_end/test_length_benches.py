"""The benchmarks of lengths, packing and merging run, and say what they measured."""

import json

import pytest
import torch

from ssl_audio.cli import main
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation import small_models
from ssl_audio.evaluation.packing_benchmark import librispeech_like, measure
from ssl_audio.model.encoders import Transformer


@pytest.fixture
def quick(monkeypatch):
    """Encoders that hardly cost anything."""

    def small(name: str) -> Transformer:
        return Transformer(width=16, depth=2, heads=1)

    for module in ("lengths_benchmark", "merging_benchmark"):
        monkeypatch.setattr(f"ssl_audio.evaluation.{module}.small_encoder", small)


def test_lengths_and_merging_are_measured_on_labelled_clips(quick, demo_shards, tmp_path, capsys):
    out = tmp_path / "out.json"
    common = ["--target=event", "--encoders=[transformer]", "--seeds=2", "--steps=2", f"--out={out}"]
    main(["bench", "lengths", str(demo_shards), "--tested=[0.3,0.6]", "--trained=[0.3]", *common])
    found = json.loads(out.read_text())["transformer"]
    assert set(found) == {"0.3 s", "elastic", "elastic - 0.3 s"}
    assert all(low <= mean <= high for each in found.values() for mean, low, high in each.values())
    main(["bench", "lengths", str(demo_shards), "--vary=shift", "--tested=[10,40]", "--trained=[10]", *common])
    assert set(json.loads(out.read_text())["transformer"]["elastic"]) == {"10", "40"}
    picture = tmp_path / "merging.png"
    merging = ["bench", "merging", f"--shards={demo_shards}", "--r=[0,3]", "--seconds=0.5", "--steps_again=1"]
    main([*merging, "--rounds=1", f"--picture={picture}", *common])
    found = json.loads(out.read_text())["transformer"]["labels"]
    # Each way of training is compared with itself at r=0: more steps alone are no merit of merging.
    assert found["as trained"]["0"]["against r=0"] == found["trained again"]["0"]["against r=0"] == [0.0, 0.0, 0.0]
    assert found["trained again"]["3"]["clips/s"] > 0
    assert picture.exists()
    assert "trained again" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["bench", "merging", "--r=[3]"])
    assert "expected 0 among them" in capsys.readouterr().err


def test_packed_batches_waste_less_and_give_the_same():
    found = measure(
        "transformer",
        (librispeech_like(6) / 4).tolist(),
        width=64,
        batch_clips=6,
        room=512,
        training=True,
        rounds=1,
        device=torch.device("cpu"),
    )
    assert found["balanced"].waste < found["decreasing"].waste + 1e-9 < found["padded"].waste
    assert all(way.difference < 1e-4 and way.gradients < 1e-4 for way in found.values())
    assert all(way.clips_per_cpu_second > 0 for way in found.values())
    with pytest.raises(RecipeError, match="no encoder 'mamba'"):
        small_models.small_encoder("mamba")
