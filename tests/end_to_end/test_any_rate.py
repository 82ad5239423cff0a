"""From 48 kHz recordings to labels at rates other than 16 kHz; combinations that do not fit are one clear line."""

import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import soundfile

from ssl_audio.checkpoints.checkpoint import load_checkpoint
from ssl_audio.cli import main

ROOT = Path(__file__).parents[2]
PARTS, TONES = ["train", "valid", "test"], {"low": 9500, "high": 12500}
RATE = "--model.backbone.frontend.init_args.sample_rate"
SMALL = [
    "--model.backbone.encoder.init_args.width=16",
    "--model.backbone.encoder.init_args.depth=1",
    "--model.backbone.encoder.init_args.heads=2",
    "--data.split=null",
    "--data.crop_seconds=0.5",
    "--data.batch_clips=4",
    "--data.workers=0",
    "--trainer.precision=32-true",
    "--trainer.max_steps=2",
    "--probe=[]",
]


@pytest.fixture
def task(tmp_path, monkeypatch) -> Path:
    """Two tones above 8 kHz for each part, stereo at 48 kHz and one at 96 kHz."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    draws, rows = np.random.default_rng(0), ["path,label,split"]
    Path("recordings").mkdir()
    for number, (part, label) in enumerate(itertools.product(PARTS, TONES)):
        rate = 96000 if number == 0 else 48000
        tone = np.sin(2 * np.pi * TONES[label] * np.arange(rate) / rate)
        stereo = 0.3 * tone[:, None] + draws.normal(0, 0.02, (rate, 2))
        soundfile.write(f"recordings/{number}.wav", stereo, rate)
        rows.append(f"{number}.wav,{label},{part}")
    Path("recordings/meta.csv").write_text("\n".join(rows))
    return Path("recordings")


def write(task: Path, rate: int) -> str:
    out = f"shards/{rate}"
    words = [f"--root={task}", f"--out={out}", f"--sample_rate={rate}", "--processes=1"]
    main(["shards", "write", "--corpus=table", *words])
    return out


def pretrain(shards: str, *words: str) -> Path:
    name = f"from-{Path(shards).name}"
    recipe = str(ROOT / "recipes/pretrain/demo.yaml")
    main(["pretrain", "--config", recipe, f"--data.shards=[{shards}]", *SMALL, f"--name={name}", *words])
    return Path("runs/pretrain") / name / "0/checkpoints/last.ckpt"


def finetune(shards: str, checkpoint: Path, *words: str) -> Path:
    main(
        [
            "finetune", "--config", str(ROOT / "recipes/finetune/table.yaml"), f"--data.shards=[{shards}]",
            f"--checkpoint={checkpoint}", "--data.validation_split=valid", "--data.crop_seconds=1", "--data.workers=0",
            "--data.batch_clips=2", "--trainer.max_epochs=1", "--trainer.precision=32-true", "--name=task", *words,
        ]
    )  # fmt: skip
    return sorted(Path("runs/finetune/task").iterdir())[-1] / "checkpoints/best.ckpt"


def refused(capsys, call, *words) -> str:
    with pytest.raises(SystemExit) as caught:
        call(*words)
    assert caught.value.code in (1, 2)
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_32_khz_from_recordings_to_labels(task, capsys):
    wide, narrow = write(task, 32000), write(task, 16000)
    said = refused(capsys, pretrain, wide)
    assert "shards/32000: holds clips of 32000 Hz, but the frontend expects 16000 Hz" in said
    assert "frontend.init_args.sample_rate is 32000" in said
    assert "--data.resample true" in said
    checkpoint = pretrain(wide, f"{RATE}=32000")
    assert load_checkpoint(checkpoint).spec["init_args"]["frontend"]["init_args"]["sample_rate"] == 32000
    # The task is at the rate of the checkpoint, or is brought to it on purpose.
    assert "holds clips of 16000 Hz, but the frontend expects 32000 Hz" in refused(
        capsys, finetune, narrow, checkpoint, "--name=refused"
    )
    assert "was trained on sound of 32000 Hz, not 16000" in refused(
        capsys, finetune, wide, checkpoint, "--name=refused", f"{RATE}=16000"
    )
    best = finetune(wide, checkpoint)
    assert load_checkpoint(best).backbone().frontend.sample_rate == 32000
    main(["evaluate", f"--checkpoint={best}", f"--shards=[{wide}]", "--split=test"])
    assert json.loads(Path("evaluation/metrics.json").read_text())["clips"] == 2
    # Recordings and the shards of them are heard at the same rate, whatever theirs is.
    main(["embed", f"--checkpoint={best}", "--out=files.parquet", str(task)])
    main(["embed", f"--checkpoint={best}", "--out=clips.parquet", wide])
    files, clips = (parquet.read_table(f"{name}.parquet")["embedding"].to_pylist() for name in ("files", "clips"))
    np.testing.assert_allclose(files, clips, atol=0.02)
    main(["predict", f"--checkpoint={best}", "--out=labels.csv", str(task / "0.wav"), narrow])


def test_8_khz_pretrains_and_embeds_and_other_rates_are_resampled_on_purpose(task, capsys):
    narrow, wide = write(task, 8000), write(task, 32000)
    checkpoint = pretrain(narrow, f"{RATE}=8000", f"--probe=[{{shards: {narrow}, targets: [label]}}]")
    main(["embed", f"--checkpoint={checkpoint}", "--out=files.parquet", str(task)])
    assert parquet.read_table("files.parquet").num_rows == 6
    finetune(wide, checkpoint, "--data.resample=true")
    main(["inspect", wide])
    assert "1.0 s a clip, 32000 Hz" in capsys.readouterr().out
