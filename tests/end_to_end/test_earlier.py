"""Files that earlier versions wrote: they open, answer the same, and go on. See tests/golden/README.md."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import ssl_audio
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.cli import main
from ssl_audio.training.metrics_log import read_rows

GOLDEN = Path(__file__).parents[1] / "golden/earlier"
RECIPES = Path(__file__).parents[2] / "recipes"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


def test_a_finetuned_checkpoint_answers_as_it_did():
    waveform = torch.linspace(0, 6000, 10480).sin() * 0.1
    found = ssl_audio.pretrained(GOLDEN / "finetune.ckpt").predict(waveform, sample_rate=16000)[0]
    torch.testing.assert_close(found, torch.tensor(EXPECTED["probabilities"]), atol=1e-5, rtol=0)


def test_a_pretraining_goes_on_where_it_was(tmp_path, demo_shards, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    folder = tmp_path / "runs/pretrain/old/0/checkpoints"
    folder.mkdir(parents=True)
    shutil.copy(GOLDEN / "pretrain.ckpt", folder / "last.ckpt")
    encoder = {"class_path": "ssl_audio.model.encoders.Transformer", "init_args": {"width": 16, "depth": 1, "heads": 2}}
    words = [
        "pretrain", "--config", str(RECIPES / "pretrain/demo.yaml"), f"--data.shards=[{demo_shards}]",
        "--data.batch_clips=4", "--data.workers=0", "--probe=[]", f"--model.backbone.encoder={json.dumps(encoder)}",
        "--model.objective.decoder=null", "--model.objective.sketch_weight=0", "--name=old", "--trainer.max_steps=4",
        "--trainer.precision=32-true", "--model.backbone.position_frames=64", "--model.backbone.patch=[32,16]",
        "--data.crop_seconds=0.655", "--trainer.log_every_n_steps=1",
    ]  # fmt: skip
    main(words)
    assert "resuming runs/pretrain/old/0" in capsys.readouterr().err
    losses = dict(read_rows(tmp_path / "runs/pretrain/old/0/metrics.csv"))
    for step in (2, 3):
        assert losses[step]["train/loss"] == pytest.approx(EXPECTED["losses"][str(step)], rel=1e-3)
    ended = open_checkpoint(folder / "last.ckpt")
    for name, norm in EXPECTED["norms"].items():
        assert float(ended.weights[name].float().norm()) == pytest.approx(norm, rel=1e-3, abs=1e-5), name
