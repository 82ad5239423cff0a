"""Every verb from the outside: what it leaves behind, and one clear line for every mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from damage import damaged

from ssl_audio.checkpoints.checkpoint import load_checkpoint
from ssl_audio.cli import main
from ssl_audio.data.index import open_shards
from ssl_audio.errors import CheckpointError

ROOT = Path(__file__).parents[2]
SMALL = [
    "--model.backbone.encoder.init_args.width=32",
    "--model.backbone.encoder.init_args.depth=2",
    "--model.backbone.encoder.init_args.heads=2",
    "--model.objective.decoder.init_args.width=16",
    "--model.objective.decoder.init_args.depth=1",
    "--model.objective.decoder.init_args.heads=1",
    "--data.batch_clips=8",
    "--data.workers=0",
    "--trainer.log_every_n_steps=1",
    "--trainer.precision=32-true",
]


@pytest.fixture
def pretrain(tmp_path, demo_shards, monkeypatch):
    """Runs `ssl-audio pretrain` on the demo recipe, made small, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")

    def run(*words: str, probe: bool = False) -> None:
        probing = f"[{{shards: {demo_shards}, targets: [event, speaker]}}]" if probe else "[]"
        main(
            [
                "pretrain",
                "--config",
                str(ROOT / "recipes/pretrain/demo.yaml"),
                f"--data.shards=[{demo_shards}]",
                *SMALL,
                f"--probe={probing}",
                *words,
            ]
        )

    return run


def fails(capsys, words: list[str], *, code: int) -> str:
    """The one line that a failing call leaves on standard error."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    printed = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code == code, printed
    assert printed[-1].startswith("ssl-audio: ")
    assert "Traceback" not in "".join(printed)
    return printed[-1]


def test_pretraining_leaves_a_whole_run_behind(drawn, pretrain, capsys, tmp_path, demo_shards):
    pretrain("--trainer.max_steps=6", "--name=first", probe=True)
    folder = tmp_path / "runs/pretrain/first/0"
    files = {path.name for path in folder.iterdir()}
    assert {
        "recipe.yaml", "summary.json", "metrics.csv", "report.html", "reconstruction.png", "curves.png", "checkpoints",
    } <= files  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 6
    assert set(summary["scores"]) == {"event", "speaker"}
    assert set(summary["scores"]["event"]) == {"pretrained", "untrained", "mel", "cepstra"}
    assert all(0 <= value["linear"] <= 1 for row in summary["scores"].values() for value in row.values())
    assert len(summary["data"]["demo"]) == 64
    report = (folder / "report.html").read_text()
    assert report.count("data:image/png;base64,") == 4
    assert "http" not in report.split("<details>")[0]
    assert "frozen linear probe" in capsys.readouterr().out
    # The checkpoint holds the trained backbone and rebuilds it alone.
    found = load_checkpoint(folder / "checkpoints/last.ckpt")
    assert found.step == 6
    backbone, fresh = found.backbone(), found.untrained()
    assert not torch.equal(backbone.embedding.weight, fresh.embedding.weight)
    assert backbone(torch.randn(1, 16000)).states.shape[2] == 32
    # A finished run is followed by the next number.
    pretrain("--trainer.max_steps=1", "--name=first")
    assert (tmp_path / "runs/pretrain/first/1/summary.json").exists()
    main(["inspect", str(folder)])
    last = str(folder / "checkpoints/last.ckpt")
    main(["inspect", last])
    main(
        ["probe", "--shards", f"[{demo_shards}]", "--checkpoint", last, "--targets", "[event]", "--out", "scores.json"]
    )
    assert (
        json.loads(Path("scores.json").read_text())["event"]["pretrained"] == summary["scores"]["event"]["pretrained"]
    )
    shown = capsys.readouterr().out
    assert "finished" in shown
    assert "Transformer(width=32, depth=2, heads=2" in shown


def test_a_stopped_run_goes_on_with_the_next_batch(pretrain, tmp_path, monkeypatch):
    """Four steps, a crash and four more are eight steps: the same weights and the same losses."""

    pretrain("--trainer.max_steps=8", "--name=whole", "--model.schedule.init_args.warmup_steps=2")
    from ssl_audio.training.module import Training

    original = Training.training_step

    def crash(self, batch, batch_idx):
        if self.global_step == 5:
            raise RuntimeError("power cut")
        return original(self, batch, batch_idx)

    monkeypatch.setattr(Training, "training_step", crash)
    common = [
        "--trainer.max_steps=8",
        "--name=cut",
        "--checkpoints.every_steps=4",
        "--model.schedule.init_args.warmup_steps=2",
    ]
    with pytest.raises(RuntimeError, match="power cut"):
        pretrain(*common)
    monkeypatch.setattr(Training, "training_step", original)
    pretrain(*common)
    runs = tmp_path / "runs/pretrain"
    assert not (runs / "cut/1").exists()
    whole, cut = (load_checkpoint(runs / name / "0/checkpoints/last.ckpt") for name in ("whole", "cut"))
    assert whole.step == cut.step == 8
    for name, value in whole.weights.items():
        assert torch.equal(value, cut.weights[name]), name

    def losses(name):
        from ssl_audio.training.metrics_log import read_rows

        return {
            step: row["train/loss"] for step, row in read_rows(runs / name / "0/metrics.csv") if "train/loss" in row
        }

    assert losses("whole") == losses("cut")


def test_a_longer_run_goes_on_from_a_finished_one_but_not_with_another_model(pretrain, tmp_path, capsys):
    pretrain("--trainer.max_steps=3", "--name=a")
    last = tmp_path / "runs/pretrain/a/0/checkpoints/last.ckpt"
    pretrain("--trainer.max_steps=5", "--name=a", f"--resume={last}")
    assert load_checkpoint(tmp_path / "runs/pretrain/a/1/checkpoints/last.ckpt").step == 5
    with pytest.raises(SystemExit) as caught:
        pretrain("--trainer.max_steps=5", "--name=a", f"--resume={last}", "--model.objective.direction=published")
    assert caught.value.code == 2
    assert "is of another model (objective" in capsys.readouterr().err
    content = torch.load(last, weights_only=False)
    next(value for name, value in content["state_dict"].items() if name.startswith("objective.")).fill_(torch.nan)
    torch.save(content, last)
    with pytest.raises(SystemExit) as caught:
        pretrain("--trainer.max_steps=7", "--name=a", f"--resume={last}")
    assert caught.value.code == 1
    assert "holds numbers that are not finite" in capsys.readouterr().err


def test_a_run_resumed_twice_with_other_batches_counts_the_clips_it_has_seen(pretrain, tmp_path, demo_shards):
    state = {}
    for number, (steps, clips) in enumerate(((2, 8), (4, 4), (6, 16))):
        resume = [] if not number else [f"--resume={tmp_path}/runs/pretrain/a/{number - 1}/checkpoints/last.ckpt"]
        pretrain(f"--trainer.max_steps={steps}", "--name=a", f"--data.batch_clips={clips}", *resume)
        last = tmp_path / f"runs/pretrain/a/{number}/checkpoints/last.ckpt"
        state[steps] = torch.load(last, weights_only=True)["AudioShards"]["clips"]
    assert state == {2: 16, 4: 16 + 8, 6: 16 + 8 + 32}
    summary = json.loads((tmp_path / "runs/pretrain/a/2/summary.json").read_text())
    assert summary["replaced"] == {}


def test_bad_clips_and_a_finite_validation_are_reported(pretrain, tmp_path, demo_shards, capsys):
    folder = tmp_path / "damaged"
    damaged(demo_shards, folder, range(0, len(open_shards([demo_shards])), 7))
    options = [f"--data.shards=[{folder}]", "--data.validation_split=valid", "--trainer.val_check_interval=3"]
    pretrain("--trainer.max_steps=3", "--name=bad", "--data.max_replaced=0.5", *options)
    summary = json.loads((tmp_path / "runs/pretrain/bad/0/summary.json").read_text())
    assert summary["replaced"]
    assert all("cannot be decoded" in reason for reason in summary["replaced"].values())
    assert "valid/loss" in summary["final"]
    assert "clips could not be decoded and were replaced" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        pretrain("--trainer.max_steps=30", "--name=worse", "--data.max_replaced=0.001", *options)
    assert "clips cannot be decoded, more than the 0.10% allowed" in capsys.readouterr().err


def test_a_checkpoint_names_only_classes_we_trust(pretrain, tmp_path):
    pretrain("--trainer.max_steps=1", "--name=x")
    path = tmp_path / "runs/pretrain/x/0/checkpoints/last.ckpt"
    content = torch.load(path, weights_only=True)
    content["ssl_audio"]["recipe"]["model"]["backbone"]["init_args"]["encoder"]["class_path"] = "os.system"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"names 'os.system'; expected classes of ssl_audio"):
        load_checkpoint(path).backbone()
    content["ssl_audio"]["recipe"]["model"]["backbone"]["init_args"]["encoder"] = "this.s"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="has no encoder in full"):
        load_checkpoint(path).backbone()
    assert "this" not in sys.modules
    torch.save({"state_dict": {}, "evil": Path("x")}, path)
    with pytest.raises(CheckpointError, match="more than tensors and plain values"):
        load_checkpoint(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="damaged or no checkpoint"):
        load_checkpoint(path)
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="not written by ssl-audio"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["--model.objectiv.direction=paper"], 2, r"objectiv.*(did you mean|not)"),
        (["--model.objective.direction=upwards"], 2, r"direction.*upwards"),
        (["--data.batch_clips=many"], 2, r"batch_clips"),
        (["--data.batch_clips=0"], 2, r"batch_clips"),
        (["--model.backbone.encoder=Transfromer"], 2, r"Transfromer"),
        (["--model.backbone.encoder.init_args.heads=5"], 2, r"width=32 is not divisible by heads=5"),
        (
            ["--model.objective.masking.init_args.hidden=400"],
            2,
            r"hide 400 of a clip's 64 patches; expected 1 to 63",
        ),
        (["--data.crop_seconds=0.1"], 2, r"0.1 gives 8 frames, fewer than the 16 of one patch"),
        (["--data.crops_per_clip=1"], 2, r"each clip has one view; set data.crops_per_clip"),
        (["--data.shards=[nowhere]"], 1, r"nowhere: no such folder of shards; write it with"),
        (["--data.split=dev"], 1, r"split 'dev'; they have test, train, valid"),
        (["--trainer.max_steps=-1"], 2, r"max_steps is not set"),
        (["--resume=gone.ckpt"], 1, r"gone.ckpt: no such checkpoint"),
        (["--trainer.accelerator=gpu"], 2, r"trainer: .*(?i:gpu)"),
        (["--data.batch_seconds=20", "--data.weights=[1]"], 2, r"batch_seconds excludes data.weights"),
        (["--data.weights=[1, 2]"], 2, r"2 weights for 1 corpora"),
        (
            ["--data.balance=tone", "--data.cover=false"],
            1,
            r"no clip has a label of kind 'tone'; these shards have emotion, event, keyword",
        ),
        (
            ["--model.backbone.frontend.init_args.sample_rate=32000"],
            1,
            r"holds clips of 16000 Hz, but the frontend expects 32000 Hz; .*--data.resample true",
        ),
        (["--probe=[{shards: nowhere, targets: [event]}]"], 1, r"nowhere: no such folder"),
        (["--runs=/proc/nowhere"], 1, r"cannot write /proc/nowhere"),
    ],
)
def test_mistakes_in_pretraining_are_one_line(pretrain, capsys, demo_shards, words, code, expected):
    probing = ["--probe=[]", f"--data.shards=[{demo_shards}]", *SMALL, "--trainer.max_steps=1"]
    call = ["pretrain", "--config", str(ROOT / "recipes/pretrain/demo.yaml"), *probing, *words]
    line = fails(capsys, call, code=code)
    import re

    assert re.search(expected, line), line


def test_other_mistakes_are_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "did you mean 'pretrain'" in fails(capsys, ["pretrian"], code=2)
    nowhere = fails(capsys, ["pretrain", "--config", "demi"], code=2)
    assert "no such recipe; did you mean 'demo'? recipes of recipes/pretrain: altered_frames, causal, " in nowhere
    assert "--corpus is missing" in fails(capsys, ["shards", "write", "--out", "x"], code=2)
    main(["shards", "write", "--help"])
    assert "corpora  audioset, audioset_strong, demo, desed, esc50" in capsys.readouterr().out
    assert "did you mean 'folder'" in fails(capsys, ["shards", "write", "--corpus", "foldr", "--out", "x"], code=2)
    assert "no action 'wirte'; did you mean 'write'" in fails(capsys, ["shards", "wirte"], code=2)
    (tmp_path / "empty").mkdir()
    empty = ["shards", "write", "--corpus", "folder", "--root", "empty", "--out", "x"]
    assert "no audio below it" in fails(capsys, empty, code=1)
    assert "no .tar files" in fails(capsys, ["stats", "[empty]"], code=1)
    assert "neither a run" in fails(capsys, ["inspect", "empty"], code=1)
    assert "nothing there" in fails(capsys, ["inspect", "gone"], code=1)
    assert "no benchmark" in fails(capsys, ["bench", "stepp"], code=2)
    writing = ["shards", "write", "--corpus", "esc50", "--root", "empty", "--out", "x"]
    assert "not laid out as ESC-50; expected meta/esc50.csv, audio" in fails(capsys, writing, code=1)
    assert "--part 5/2: expected i/n" in fails(capsys, [*writing, "--part", "5/2"], code=2)
    assert "encoding" in fails(capsys, [*writing, "--encoding", "mp3"], code=2)
    assert "nothing to merge" in fails(capsys, ["shards", "merge", "x"], code=1)
    (tmp_path / "broken.yaml").write_text("model: [")
    fails(capsys, ["pretrain", "--config", "broken.yaml"], code=2)


def test_shards_from_a_folder_to_statistics(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audio").mkdir()
    draws = np.random.default_rng(0)
    for number, rate in enumerate((16000, 44100, 8000)):
        waveform = draws.uniform(-0.3, 0.3, (rate, 2 if number == 1 else 1))
        soundfile.write(tmp_path / "audio" / f"{number}.{'mp3' if number == 1 else 'wav'}", waveform, rate)
    main(
        [
            "shards",
            "write",
            "--corpus",
            "folder",
            "--root",
            "audio",
            "--out",
            "shards/mine",
            "--processes",
            "1",
        ]
    )
    main(["shards", "verify", "shards/mine"])
    main(["shards", "show", "shards/mine"])
    main(["inspect", "shards/mine"])
    shown = capsys.readouterr().out
    assert "3 shards" not in shown
    assert "1 shards, 3 clips of 16000 Hz, all whole and unchanged" in shown
    main(["stats", "[shards/mine]"])
    mean, std, rate = (float(line.split(": ")[1]) for line in capsys.readouterr().out.splitlines())
    assert rate == 16000
    manifest = json.loads((tmp_path / "shards/mine/manifest.json").read_text())
    # The manifest's statistics were taken before rounding to 16 bits.
    assert mean == pytest.approx(manifest["log_mel"]["mean"], abs=0.05)
    assert std == pytest.approx(manifest["log_mel"]["std"], abs=0.05)


def test_bench_step_prints_ratios(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")  # workers of xdist set 80
    out = tmp_path / "bench.json"
    main(["bench", "step", "--size", "mini", "--clips", "1", "--rounds", "1", "--out", str(out)])
    figures = json.loads(out.read_text())
    assert set(figures) == {"reference", "published", "published-bf16", "default", "dropped"}
    assert figures["reference"]["times_reference"] == 1.0
    assert 0 < figures["default"]["gflop"] < figures["reference"]["gflop"]
    assert "times reference" in capsys.readouterr().out


def test_help_imports_neither_torch_nor_lightning():
    code = (
        "import sys; from ssl_audio.cli import main; main(['--help']);"
        "assert not {'torch', 'lightning', 'numpy'} & set(sys.modules), 'heavy imports'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert "pretrain" in done.stdout
