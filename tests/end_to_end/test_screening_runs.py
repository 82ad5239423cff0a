"""Fine-tuning for screening: what is said and written; `tests/soak/shortcut.py` trains until noise is learnt."""

import json
import re

import numpy as np
import soundfile
from ward import FEW_TREES, RATE, shards_of

from ssl_audio.cli import main

BACKBONE = {
    "frontend": {"class_path": "ssl_audio.audio.mfcc.Mfcc", "init_args": {"coefficients": 20, "mels": 40}},
    "encoder": {
        "class_path": "ssl_audio.model.encoders.Transformer",
        "init_args": {"width": 32, "depth": 1, "heads": 2},
    },
    "patch": [20, 1],
    "position_frames": 60,
    "position_start": "sines",
    "position_fixed": True,
}


def screened(shards, capsys, name: str, *more: str) -> dict:
    main([
        "finetune", "--config", "screening", "--checkpoint", "none", f"--model.backbone={json.dumps(BACKBONE)}",
        f"--data.shards=[{shards}]", "--positive", "sick", "--folds", "[0]", "--data.crop_seconds", "0.4",
        "--data.window_hop_seconds", "0.1", "--data.workers", "0", "--data.batch_clips", "24", "--name", name,
        "--trainer.max_epochs", "2", "--trainer.check_val_every_n_epoch", "2", "--trainer.precision", "32-true",
        "--model.optimizer.init_args.lr", "3e-3", *more,
    ])  # fmt: skip
    return json.loads((shards.parent / f"runs/finetune/{name}/0/summary.json").read_text())


def test_screening_is_scored_as_recorded_and_with_noise_inserted(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr("ssl_audio.evaluation.audit.told._TREES", FEW_TREES)
    shards = shards_of(tmp_path, noisy="sick", clips=36)
    noise = tmp_path / "noise"
    noise.mkdir()
    for number in range(4):
        wave = 0.1 * np.random.default_rng(number).standard_normal(2 * RATE)
        soundfile.write(noise / f"{number}.wav", np.clip(wave, -1, 1).astype(np.float32), RATE)
    capsys.readouterr()
    naive = screened(shards, capsys, "naive")
    said = capsys.readouterr()
    assert re.search(r"training clips are from \d speakers", said.err)
    assert said.err.count("ssl-audio audit --shards") == 1
    found = naive["screening"]["scratch"]
    assert list(found) == ["files", "windows"]
    assert "screening for sick" in said.out
    # As much noise under the well as under the sick, and noise of other files in the test.
    main(["audit", "--shards", str(shards)])
    capsys.readouterr()
    insertion = {"folder": str(noise), "counts": {"well": 1}, "peaks": [0.01, 0.012]}
    balanced = screened(shards, capsys, "balanced", f"--data.noise={json.dumps(insertion)}")
    said = capsys.readouterr()
    assert "ssl-audio audit --shards" not in said.err
    found = balanced["screening"]["scratch"]
    assert list(found) == ["files", "files with noise", "windows", "windows with noise"]
    assert found["files"]["AUC"] != found["files with noise"]["AUC"]
