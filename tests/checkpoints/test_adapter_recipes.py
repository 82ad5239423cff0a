"""Every recipe of adapters: its file holds what trains and nothing else, and is exported or says why not."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from adapter_files import base_at

from ssl_audio.checkpoints.adaptation import load_backbone
from ssl_audio.checkpoints.adapters_only import complete, only_trained
from ssl_audio.checkpoints.base import Base
from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.checkpoints.merging import difference, merged
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.checkpoints.peft_writing import write_peft
from ssl_audio.errors import SslAudioError
from ssl_audio.model.tuning import Tuning, trained_tensors

RECIPES = sorted((Path(__file__).parents[2] / "recipes/adapters").glob("*.yaml"))
ENCODERS = {
    "Transformer": {"width": 32, "depth": 2, "heads": 4},
    "BiMamba": {"width": 16, "depth": 2},
}

HOMELESS = {
    "Transformer": {"mamba_lora", "state_offset"},
    "BiMamba": {"aat_m", "aat_ms", "conv_pass", "houlsby", "lora", "prefix", "prompt_deep", "prompt_shallow"},
}


def refusal(attempt: Callable[[], object]) -> str | None:
    """The one line in which something is refused; None if it is not."""
    reason = None
    try:
        attempt()
    except SslAudioError as error:
        reason = str(error)
    assert reason is None or "\n" not in reason
    return reason


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_recipe_is_saved_alone(tmp_path, encoder):
    described = {"class_path": f"ssl_audio.model.encoders.{encoder}", "init_args": ENCODERS[encoder]}
    base = base_at(tmp_path / "base.ckpt", encoder=described)
    seen, plain, layout = set(), set(), set()
    for file in RECIPES:
        recipe = yaml.safe_load(file.read_text())
        adapters = recipe.get("adapters") or []
        for adapter in adapters:
            if "reduction" in adapter["init_args"]:
                adapter["init_args"]["reduction"] = 8
        spec = {**base.spec, "init_args": {**base.spec["init_args"], "adapters": adapters}}
        whole = {"model": {"backbone": spec}}
        made = Checkpoint(file, whole, {}, 0, "")
        if refusal(made.untrained) is not None:
            continue  # no place on this encoder
        seen.add(file.stem)
        backbone = made.untrained(seed=1)
        load_backbone(backbone, base)
        tuning = recipe["model"]["tuning"]
        Tuning(**(tuning | {"last_blocks": min(1, tuning.get("last_blocks", 0))})).apply(backbone)
        trained = trained_tensors(backbone)
        with torch.no_grad():
            for name, value in backbone.state_dict().items():
                if name in trained and value.is_floating_point():
                    value.copy_(
                        value.abs() + 0.05 if name.endswith("running_var") else value + 0.05 * torch.randn_like(value)
                    )
        state = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
        content = only_trained(state, whole, base, trained=trained, rule="place")
        own = {name.removeprefix("backbone.") for name in content["state_dict"]}
        assert own == trained | {name for name in backbone.state_dict() if name.startswith("adapters.")}
        told = Base.read(file, content["ssl_audio"]["base"], trained=tuple(own))
        alone = Checkpoint(tmp_path / f"{file.stem}.ckpt", whole, content["state_dict"], 0, "", base=told)
        found = complete(alone, base)
        assert found.weights.keys() == state.keys()
        for name, value in found.backbone().state_dict().items():
            assert torch.equal(value, state[f"backbone.{name}"]), (file.stem, name)
        figures: list[float] = []
        reason = refusal(lambda found=found, figures=figures: figures.append(merged(found)[1]))
        if reason is None:
            plain.add(file.stem)
            assert figures[0] < 2e-6
        else:
            assert "cannot be merged" in reason or "has no adapters" in reason
        reason = refusal(partial(write_peft, found, tmp_path / file.stem))
        if reason is None:
            layout.add(file.stem)
            assert difference(open_checkpoint(tmp_path / file.stem).backbone(), found.backbone()) < 2e-6
        else:
            assert "LowRank" in reason
    lora = {"lora", "lora_all", "dora"} if encoder == "Transformer" else {"lora_all", "mamba_lora", "dora"}
    assert {file.stem for file in RECIPES} - seen == HOMELESS[encoder]
    assert plain == layout == lora & seen
