"""From a pretrained checkpoint to an adapter, and what every verb makes of its file."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from adapter_files import LORA, base_at

from ssl_audio.checkpoints.checkpoint import load_checkpoint
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.cli import main

ROOT = Path(__file__).parents[2]


def test_an_adapter_from_training_to_merged_weights(tmp_path, demo_shards, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    base = base_at(Path("runs/pretrain/small/0/checkpoints/last.ckpt"))
    common = [
        "finetune", "--config", str(ROOT / "recipes/finetune/demo_event.yaml"), f"--data.shards=[{demo_shards}]",
        "--data.crop_seconds=1.295", "--adaptation.frames=128", "--data.workers=0", "--data.batch_clips=8",
        "--trainer.max_epochs=-1", "--trainer.max_steps=2", "--trainer.precision=32-true", "--average_from_epoch=null",
        "--beside_scratch=false",
    ]  # fmt: skip
    first = [f"--adapters=[{json.dumps(LORA)}]", "--model.tuning.train=[adapters.*]", "--statistics=training"]
    main([*common, "--name=lora", *first])
    best = Path("runs/finetune/lora/0/checkpoints/best.ckpt")
    assert best.stat().st_size < base.path.stat().st_size
    found, whole = open_checkpoint(best), load_checkpoint(best.with_name("last.ckpt"))
    assert found.base.path == base.path
    assert {name.split(".")[0] for name in found.base.trained} == {"adapters", "frontend"}
    for name, value in whole.weights.items():
        assert torch.equal(found.weights[name], value), name
    for name, value in base.part("backbone").items():
        assert torch.equal(found.weights[f"backbone.{name}"], value) or name.startswith("frontend."), name

    def evaluate(checkpoint: Path) -> tuple[dict, np.ndarray]:
        out = Path("out") / checkpoint.stem
        words = ["--shards", f"[{demo_shards}]", "--split", "test", "--out", str(out)]
        main(["evaluate", "--checkpoint", str(checkpoint), *words])
        scores = np.array(pq.read_table(out / "predictions.parquet")["scores"].to_pylist())
        return json.loads((out / "metrics.json").read_text()) | {"checkpoint": ""}, scores

    tested, scores = evaluate(best)
    soundfile.write("a.wav", np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    main(["predict", "--checkpoint", str(best), "--out", "labels.json", "a.wav"])
    assert json.loads(Path("labels.json").read_text())[0]["labels"][0] in found.task["labels"]

    capsys.readouterr()
    main(["inspect", str(best)])
    shown = capsys.readouterr().out
    assert re.search(r"trained +512 parameters: adapters.0 \(8 tensors\)", shown)
    assert re.search(r"base +runs/pretrain/small/0/checkpoints/last.ckpt \(ssl_audio Transformer, sha256", shown)
    main(["export", "--checkpoint", str(best), "--out", "whole.ckpt", "--merge"])
    assert (
        float(re.search(r"without adapters; outputs differ by (\S+) of the largest", capsys.readouterr().out)[1]) < 1e-6
    )
    again, other = evaluate(Path("whole.ckpt"))
    assert again == tested
    np.testing.assert_allclose(other, scores, atol=1e-6)
    main(["export", "--checkpoint", str(best), "--out", "peft", "--format=peft"])
    assert "LoRA of 2 projections" in capsys.readouterr().out
    assert open_checkpoint(Path("peft")).task == found.task
    # Another stage begins at the adapter, and stands on the same base.
    main([*common, "--name=later", f"--checkpoint={best}", "--model.tuning.train=[encoder.norm.*]"])
    later = open_checkpoint(Path("runs/finetune/later/0/checkpoints/best.ckpt"))
    assert later.base.digest == found.base.digest
    for name in (name for name in found.base.trained if name.startswith("adapters.")):
        assert torch.equal(later.weights[f"backbone.{name}"], found.weights[f"backbone.{name}"])
    # What the constructor of an adapter refuses is one line too.
    wrong = json.dumps([{**LORA, "init_args": {**LORA["init_args"], "targets": ["qvk"]}}])
    with pytest.raises(SystemExit) as refused:
        main([*common, "--name=wrong", f"--checkpoint={best}", f"--adapters={wrong}"])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert refused.value.code == 2
    assert last.startswith("ssl-audio: LowRank: no projection of Transformer is named 'qvk'")
    # Away from its base it is one line, with what to give.
    base.path.rename("base.ckpt")
    for words in (["export", "--out=x.ckpt"], ["embed", "--out=x.npz", "a.wav"]):
        with pytest.raises(SystemExit):
            main([words[0], "--checkpoint", str(best), *words[1:]])
        assert "give it with --base FILE" in capsys.readouterr().err.strip().splitlines()[-1]
    main(["inspect", str(best)])
    assert "not found here; give it with --base FILE" in capsys.readouterr().out
    main(["embed", "--checkpoint", str(best), "--base=base.ckpt", "--out=x.npz", "a.wav"])
