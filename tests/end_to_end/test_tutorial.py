"""The tutorial: every cell of the notebook, in order, smaller."""

import json
import shlex
from pathlib import Path

import matplotlib
import pytest
import yaml

ROOT = Path(__file__).parents[2]
SMALL = {"class_path": "ssl_audio.model.encoders.Transformer", "init_args": {"width": 32, "depth": 1, "heads": 2}}
PRETRAINING = {
    "probe": [],
    "data.workers": 0,
    "data.batch_clips": 4,
    "trainer.precision": "32-true",
    "model.backbone.encoder": SMALL,
}
# What stands in a cell, and what a test can afford.
SMALLER = {
    "max_steps=60": "max_steps=2",
    "steps=20": "steps=1",
    'options={"probe": []}': f"options={PRETRAINING}",
    'checkpoint=run.checkpoint,\n    shards=["shards/demo"],\n    beside_scratch=True,': (
        'checkpoint=run.checkpoint,\n    shards=["shards/demo"],\n'
        '    options={"data.workers": 0, "trainer.precision": "32-true"},'
    ),
}


@pytest.mark.usefixtures("unchecked")
def test_every_cell_of_the_tutorial_runs(tmp_path, demo_shards, monkeypatch, capsys):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    cells = json.loads((ROOT / "docs/tutorial.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    used, scope = set(), {"__name__": "tutorial"}
    for source in sources:
        if source.startswith("!ssl-audio shards write"):
            (tmp_path / "shards").mkdir()
            (tmp_path / "shards/demo").symlink_to(demo_shards)
            assert (
                shlex.split(source)[2:] == shlex.split("shards write --corpus demo --out shards/demo --size small")[1:]
            )
            continue
        for whole, part in SMALLER.items():
            used |= {whole} if whole in source else set()
            source = source.replace(whole, part)
        exec(source, scope)
    assert used == set(SMALLER)
    out = capsys.readouterr().out
    assert float(out.split("cosine")[1].split()[0]) == pytest.approx(1, abs=1e-5)
    assert "agrees" in out
    assert yaml.safe_load((scope["run"].folder / "recipe.yaml").read_text())["trainer"]["max_steps"] == 2
