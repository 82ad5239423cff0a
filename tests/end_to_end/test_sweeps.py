"""Words of a sweep's agent, as Weights & Biases makes them, are a run of ours."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ssl_audio.experiments.pretrain import PretrainBuilder
from ssl_audio.training.resuming import flatten

ROOT = Path(__file__).parents[2]


def first_of(described: dict[str, Any]) -> Any:
    """A value that the sweep may draw."""
    return described["values"][0] if "values" in described else described["min"]


@pytest.mark.parametrize("path", sorted((ROOT / "recipes/sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_agent_calls_what_we_understand(path, monkeypatch, tmp_path):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args  # takes seconds to import

    monkeypatch.chdir(ROOT)
    sweep = yaml.safe_load(path.read_text())
    drawn = {name: {"value": first_of(described)} for name, described in sweep["parameters"].items()}
    # As `wandb.wandb_agent.Agent._command_run` puts them together.
    known = create_sweep_command_args({"args": drawn}) | {"program": [sweep["program"]], "env": ["/usr/bin/env"]}
    words = []
    for word in create_sweep_command(sweep["command"]):
        words += known[word[2:-1]] if str(word).startswith("${") else [str(word)]
    assert words[:2] == [".venv/bin/ssl-audio", "pretrain"]
    cli = PretrainBuilder([*words[2:], f"--runs={tmp_path}", "--trainer.logger=false"])
    found = {name.replace("init_args.", ""): value for name, value in flatten(cli.recipe).items()}
    for name, value in drawn.items():
        assert found[name.replace("init_args.", "")] == value["value"]
    assert found["data.validation_split"], "the score that a sweep follows needs a validation split"
