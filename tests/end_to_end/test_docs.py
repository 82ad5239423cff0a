"""The commands in the documentation, run in order as they stand there."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ssl_audio.cli import main

ROOT = Path(__file__).parents[2]
# What is added to a command so that a test can afford it.
SMALLER = {
    "pretrain": (
        "--model.backbone.encoder.init_args.width=32 --model.backbone.encoder.init_args.depth=1 "
        "--model.backbone.encoder.init_args.heads=2 --data.batch_clips=4 --data.workers=0 --trainer.max_steps=1 "
        "--trainer.precision=32-true --probe=[]"
    )
}


DEMO = ["shards", "write", "--corpus", "demo", "--size", "small", "--out", "shards/demo"]


@pytest.mark.parametrize("page", ["data.md", "cluster.md", "scale.md"])
def test_every_command_of_the_page_runs(page, tmp_path, demo_shards, monkeypatch, capsys):
    """The demo corpus, which takes longer to synthesise than all the rest, is there already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "recordings").mkdir()
    (tmp_path / "shards").mkdir()
    draws = np.random.default_rng(0)
    for number in range(6):
        soundfile.write(f"recordings/{number}.wav", draws.uniform(-0.3, 0.3, 30000), 16000)
    Path("list.txt").write_text("".join(f"recordings/{number}.wav\n" for number in range(6)))
    blocks = re.findall(r"^```\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("ssl-audio ")]
    assert commands
    for command in commands:
        words = shlex.split(command)[1:]
        if words == DEMO:
            Path("shards/demo").symlink_to(demo_shards)
            continue
        main(words + shlex.split(SMALLER.get(words[0], "")))
    if page == "data.md":
        assert "all whole and unchanged" in capsys.readouterr().out
        assert Path("shards/mine.png").exists()
    if page == "scale.md":
        whole, *others = (Path(f"{name}.parquet").read_bytes() for name in ("vectors", "ahead", "shared"))
        assert others == [whole, whole]
    assert list(Path("runs/pretrain").glob("*/0/summary.json"))


def test_the_picture_of_shards_is_drawn(drawn, demo_shards, tmp_path):
    main(["shards", "show", str(demo_shards), f"--out={tmp_path / 'demo.png'}"])
    assert (tmp_path / "demo.png").stat().st_size > 10_000


def test_the_glossary_is_in_order_and_names_files_that_exist():
    rows = re.findall(r"^\| (.*?) \| .* \| (.*?) \|$", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)[1:]
    words = [word for word, _ in rows]
    assert words == sorted(words)
    for _, files in rows:
        for file in re.findall("`(.*?)`", files):
            assert (ROOT / file if file.startswith("recipes") else ROOT / "ssl_audio" / file).is_file(), file
