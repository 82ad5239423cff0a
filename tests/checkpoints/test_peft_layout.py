"""LoRA in peft's file layout, both ways, and folded into plain weights."""

import json
import math
from pathlib import Path

import pytest
import torch
from adapter_files import NECK, base_at, spec_of, trained_at
from safetensors.torch import load_file, save_file

import ssl_audio
from ssl_audio.checkpoints.base import STATISTICS
from ssl_audio.checkpoints.checkpoint import Checkpoint, describe
from ssl_audio.checkpoints.merging import difference, merged
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.checkpoints.peft_writing import write_peft
from ssl_audio.errors import CheckpointError, RecipeError

SMALL_GOLDENS = Path(__file__).parents[1] / "golden"
MAMBA = {"class_path": "ssl_audio.model.encoders.BiMamba", "init_args": {"width": 16, "depth": 1}}


def low_rank(**options) -> dict:
    return {"class_path": "ssl_audio.model.adapters.LowRank", "init_args": options}


def base_of_sines(path: Path) -> Checkpoint:
    """A base whose every number is known without drawing any."""
    spec = spec_of(16)
    spec["init_args"]["encoder"]["init_args"] |= {"depth": 1, "heads": 2}
    recipe = {"model": {"backbone": spec}}
    state = Checkpoint(path, recipe, {}, 0, "").untrained().state_dict()
    for place, (name, value) in enumerate(state.items()):
        if name not in STATISTICS:
            sines = [math.sin(place + 0.7 * number) * 0.2 for number in range(value.numel())]
            value.copy_(torch.tensor(sines).reshape(value.shape))
    weights = {f"backbone.{name}": value for name, value in state.items()}
    torch.save({"state_dict": weights, "global_step": 0, "ssl_audio": describe(recipe)}, path)
    return open_checkpoint(path)


def sound() -> torch.Tensor:
    return torch.sin(torch.arange(9000) ** 1.5 * 1e-3)[None] * 0.3


def test_a_folder_that_peft_made_is_read_as_peft_reads_it(tmp_path):
    base = base_of_sines(tmp_path / "base.ckpt")
    found = open_checkpoint(SMALL_GOLDENS / "peft_adapter", base=base.path)
    expected = load_file(SMALL_GOLDENS / "peft_adapter/expected.safetensors")["states"]
    with torch.inference_mode():
        states = found.backbone()(sound()).states
        assert (states - base.backbone()(sound()).states).abs().max() > 0.1
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=0)
    encoder = ssl_audio.pretrained(base.path)
    encoder.load("theirs", SMALL_GOLDENS / "peft_adapter")
    encoder.use("theirs")
    assert torch.equal(
        encoder.embed(sound(), sample_rate=16000),
        ssl_audio.pretrained(SMALL_GOLDENS / "peft_adapter", base=base.path).embed(sound(), sample_rate=16000),
    )


@pytest.mark.parametrize(
    ("encoder", "adapters"),
    [
        (
            None,
            [
                low_rank(rank=2, targets=["qkv[query]"], alpha=3.0),
                low_rank(rank=3, targets=["qkv[value]", "out"], alpha=5.0),
            ],
        ),
        (
            None,
            [
                low_rank(rank=2, targets=["out"], magnitude=True),
                low_rank(rank=2, targets=["blocks.0.*.expand", "qkv[key]"]),
            ],
        ),
        (MAMBA, [low_rank(rank=2, targets=["into[x]", "project", "dt", "out"], scaling="root")]),
    ],
)
def test_low_rank_adapters_leave_merge_and_come_back(tmp_path, encoder, adapters):
    base = base_at(tmp_path / "base.ckpt", encoder=encoder)
    trained_at(tmp_path / "lora.ckpt", base, adapters, train=("adapters.", "encoder.norm."), frames=64)
    found = open_checkpoint(tmp_path / "lora.ckpt", base=base.path)
    write_peft(found, tmp_path / "peft")
    back = open_checkpoint(tmp_path / "peft")  # its base lies beside it
    assert difference(found.backbone(), back.backbone()) < 1e-6
    assert (back.task, back.step, back.base.digest) == (found.task, found.step, found.base.digest)
    whole, differs = merged(found)
    assert differs < 1e-6
    assert whole.base is None
    assert not whole.spec["init_args"].get("adapters")
    # What peft computes from such a folder, by its formula.
    config = json.loads((tmp_path / "peft/adapter_config.json").read_text())
    tensors = load_file(tmp_path / "peft/adapter_model.safetensors")
    assert (config["peft_type"], config["modules_to_save"]) == ("LORA", ["encoder.norm"])
    card = (tmp_path / "peft/README.md").read_text()
    assert ("`dt`" in card) == any(name.endswith(".dt") for name in config["target_modules"])
    for name in config["target_modules"]:
        pattern = name.replace(".", "\\.")
        rank = config["rank_pattern"].get(pattern, config["r"])
        alpha = config["alpha_pattern"].get(pattern, config["lora_alpha"])
        place = f"base_model.model.{name}"
        down, up = tensors[f"{place}.lora_A.weight"], tensors[f"{place}.lora_B.weight"]
        assert len(down) == rank
        weight = base.weights[f"backbone.{name}.weight"]
        weight = weight + alpha / (math.sqrt(rank) if config["use_rslora"] else rank) * up @ down
        if config["use_dora"]:
            weight = weight * (tensors[f"{place}.lora_magnitude_vector"] / weight.norm(dim=1))[:, None]
        torch.testing.assert_close(whole.weights[f"backbone.{name}.weight"], weight, atol=1e-6, rtol=1e-5)


def test_what_has_no_place_in_the_layout_or_in_a_weight_is_one_line(tmp_path):
    base, wide = base_at(tmp_path / "base.ckpt"), base_at(tmp_path / "other/wide.ckpt", width=48)
    trained_at(tmp_path / "neck.ckpt", base, [NECK])
    necked = open_checkpoint(tmp_path / "neck.ckpt")
    with pytest.raises(RecipeError, match="Bottleneck has no place in peft's LoRA layout; expected LowRank adapters"):
        write_peft(necked, tmp_path / "peft")
    with pytest.raises(RecipeError, match=r"neck.ckpt: Bottleneck cannot be merged into the base: "):
        merged(necked)
    with pytest.raises(RecipeError, match="has no base of its own"):
        write_peft(base, tmp_path / "peft")
    with pytest.raises(CheckpointError, match="has no adapters to merge"):
        merged(base)
    lora = low_rank(rank=2, targets=["out"])
    trained_at(tmp_path / "more.ckpt", base, [lora], train=("adapters.", "encoder.blocks.0.mixer.transform.out.bias"))
    with pytest.raises(RecipeError, match=r"out.bias trained too, and peft's layout has no place for it beside LoRA"):
        write_peft(open_checkpoint(tmp_path / "more.ckpt"), tmp_path / "peft")
    trained_at(tmp_path / "lora.ckpt", base, [lora])
    folder = tmp_path / "apart/peft"
    write_peft(open_checkpoint(tmp_path / "lora.ckpt"), folder)
    with pytest.raises(CheckpointError, match=r"wide.ckpt is another one \(sha256"):
        open_checkpoint(folder, base=wide.path)
    (folder / "ssl_audio.ckpt").unlink()
    with pytest.raises(CheckpointError, match="does not say what it was trained on; give that with --base FILE"):
        open_checkpoint(folder)
    with pytest.raises(
        CheckpointError,
        match=r"out is \(32, 2\) by \(2, 32\), and the weight of the base .* is \(48, 48\); it is an ad",
    ):
        open_checkpoint(folder, base=wide.path)
    config = json.loads((folder / "adapter_config.json").read_text())
    for change, message in (
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'; expected 'LORA'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"alpha_pattern": {"(a+)+": 1}}, "alpha_pattern '(a+)+'; expected names of modules"),
        ({"use_newlora": True}, "use_newlora is 'True'; expected plain LoRA"),
        ({"alpha_pattern": 5}, "expected names of modules"),
        ({"lora_alpha": -1}, "an alpha is '-1'"),
        ({"use_dora": True}, "a part is missing"),
    ):
        (folder / "adapter_config.json").write_text(json.dumps(config | change))
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(folder, base=base.path)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "adapter_model.safetensors")
    for name, message in (
        ("base_model.model.encoder.nothing.lora_A.weight", "has no projection of that name"),
        ("base_model.model.nothing.weight", "nothing.weight is .* no such place"),
        ("encoder.out.lora_A.weight", "is none of peft's names"),
    ):
        save_file(tensors | {name: torch.zeros(2, 32)}, folder / "adapter_model.safetensors")
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(folder, base=base.path)
