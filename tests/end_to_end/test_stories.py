"""The pages of docs/stories from their first command to their last, on drawn tones and an encoder of one block."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ssl_audio.cli import main

ROOT = Path(__file__).parents[2]
RATE = 16000
_FINETUNE = "--data.workers=0 --data.batch_clips=4 --trainer.precision=32-true "
_SHORT = "--data.crop_seconds=1.295 --adaptation.frames=128 --trainer.max_steps=2"
# What is added to a command so that a test can afford it.
SMALLER = {
    "pretrain": (
        "--model.backbone.encoder.init_args.width=32 --model.backbone.encoder.init_args.depth=1 "
        "--model.backbone.encoder.init_args.heads=2 --data.batch_clips=4 --data.workers=0 --trainer.max_steps=1 "
        "--trainer.precision=32-true --probe=[]"
    ),
    "finetune": _FINETUNE + _SHORT,
    "finetune sed/table": _FINETUNE + "--trainer.max_epochs=1 --trainer.check_val_every_n_epoch=1 "
    "--data.crop_seconds=1.295 --adaptation.frames=128",
    "stream": "--window_seconds=1.295",
}


def told(page: str, kind: str = "") -> list[str]:
    """The blocks of code of a page."""
    text = (ROOT / "docs/stories" / page).read_text()
    assert len(text.splitlines()) <= 90
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


DONE: set[str] = set()
"""Commands that were run in this module's folder: pages begin with the same."""


def run_commands(page: str, monkeypatch) -> None:
    """Every command of a page that no page before it had; what is piped into one comes from `night.raw`."""
    lines = [line for block in told(page) for line in block.replace("\\\n", " ").splitlines()]
    commands = [line for line in lines if "ssl-audio " in line]
    assert commands
    for command in commands:
        if command in DONE:
            continue
        DONE.add(command)
        before, _, words = command.rpartition("ssl-audio ")
        verb, *rest = shlex.split(words)
        if ">" in rest:
            rest = rest[: rest.index(">")]
        smaller = SMALLER.get(f"{verb} {rest[1]}", SMALLER.get(verb, ""))
        if not before:
            main([verb, *rest, *shlex.split(smaller)])
            continue
        assert before.endswith("| ")
        with Path("night.raw").open("rb") as pipe, monkeypatch.context() as patched:
            patched.setattr(sys, "stdin", pipe)
            main([verb, *rest, *shlex.split(smaller)])


def tone(hertz: float, seconds: float) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Folders as the pages name them: recordings without labels, two labels with eight clips each, marked events."""
    tmp_path = tmp_path_factory.mktemp("stories")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    draws = np.random.default_rng(0)
    (tmp_path / "recordings").mkdir()
    for number in range(4):
        soundfile.write(tmp_path / f"recordings/{number}.wav", draws.uniform(-0.3, 0.3, 30000), RATE)
    for folder in ("labelled", "sounds", "digits", "emotions"):
        (tmp_path / folder).mkdir()
        rows = ["path,label,split"]
        for number in range(16):
            split = "test" if number < 4 else "train"
            wave = tone((400, 3000)[number % 2], 2.0) + 0.01 * draws.standard_normal(2 * RATE)
            soundfile.write(tmp_path / f"{folder}/{number}.wav", wave, RATE)
            rows.append(f"{number}.wav,{folder}_{('low', 'high')[number % 2]},{split}")
        (tmp_path / folder / "meta.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "events").mkdir()
    rows, events = ["path,split"], ["filename\tonset\toffset\tevent_label"]
    for number in range(12):
        wave = 0.02 * draws.standard_normal(2 * RATE)
        wave[8000:17600] += tone((400, 3000)[number % 2], 0.6)
        soundfile.write(tmp_path / f"events/{number}.wav", wave, RATE)
        rows.append(f"{number}.wav,{'train' if number < 8 else 'valid' if number < 10 else 'test'}")
        events.append(f"{number}.wav\t0.5\t1.1\t{('low', 'high')[number % 2]}")
    (tmp_path / "events/meta.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "events/events.tsv").write_text("\n".join(events) + "\n")
    DONE.clear()
    return tmp_path


@pytest.fixture
def here(folder, monkeypatch) -> None:
    """The same folder for all pages."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WANDB_MODE", "disabled")


@pytest.mark.usefixtures("here")
def test_few_labels(monkeypatch):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    run_commands("few_labels.md", monkeypatch)
    (script,) = told("few_labels.md", "python")
    assert len(script.splitlines()) <= 25
    assert script.count("41200, 20480") == 1
    # Windows of the test's encoder are half as long; and nothing of this package or PyTorch can be imported.
    hidden = "import sys\n\nsys.modules['ssl_audio'] = sys.modules['torch'] = None\n"
    Path("classify.py").write_text(hidden + script.replace("41200, 20480", "20720, 10240"))
    words = [sys.executable, "classify.py", "labelled/0.wav", "labelled/1.wav"]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = {row["path"]: row for row in json.loads(Path("labels.json").read_text())}
    assert [line.split()[0] for line in printed] == words[2:]
    for line in printed:
        path, *answers = line.split()
        shares = dict(zip(rows[path]["labels"], rows[path]["probabilities"], strict=True))
        assert {label: float(share) for label, share in (one.split("=") for one in answers)} == pytest.approx(
            shares, abs=2e-4
        )


@pytest.mark.usefixtures("here")
def test_long_recordings(monkeypatch, capfd):
    night = np.concatenate([soundfile.read(f"events/{number}.wav", dtype="float32")[0] for number in range(6)])
    soundfile.write("night.wav", night, RATE)
    (32767 * night).astype("<i2").tofile("night.raw")
    run_commands("long_recordings.md", monkeypatch)
    table = [line.split("\t") for line in Path("night.tsv").read_text().splitlines()]
    assert table[0] == ["filename", "onset", "offset", "event_label", "confidence"]
    assert Path("night.png").exists()
    said = capfd.readouterr()
    assert "night.png: timelines of all" in said.out
    assert "onset,offset,label,confidence" in said.out
    assert "stream: overlapping windows" in said.err


@pytest.mark.usefixtures("here")
def test_one_encoder_many_tasks(monkeypatch):
    run_commands("one_encoder_many_tasks.md", monkeypatch)
    soundfile.write("sound.wav", tone(440, 1.5), RATE)
    (code,) = told("one_encoder_many_tasks.md", "python")
    assert code.count('"trainer.max_steps": 60}') == 1
    small = '"data.workers": 0, "data.batch_clips": 4, "trainer.precision": "32-true", "trainer.max_steps": 2}'
    scope: dict = {}
    exec(code.replace('"trainer.max_steps": 60}', small), scope)
    assert set(scope["answers"]) == {"sounds", "digits", "emotions"}
    encoder = scope["encoder"]
    assert encoder.labels == ["emotions_high", "emotions_low"]
    # One set of frozen weights for all of them.
    kept = []
    for task in (None, "sounds", "digits", "emotions"):
        encoder.use(task)
        frozen = dict(encoder.backbone.named_parameters())
        kept.append(next(value.data_ptr() for name, value in frozen.items() if name.endswith("qkv.weight")))
    assert len(set(kept)) == 1
