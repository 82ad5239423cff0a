"""Adapter checkpoints: what trained, the base that it belongs to, and what becomes of the two together."""

import copy
import shutil

import pytest
import torch
from adapter_files import LORA, NECK, base_at, trained_at

import ssl_audio
from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.checkpoints.sizes import Hints
from ssl_audio.errors import CheckpointError, RecipeError


def same(found: Checkpoint, state: dict[str, torch.Tensor]) -> None:
    """The very weights, bit for bit, as the checkpoint has them and as its backbone does."""
    assert found.weights.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(found.weights[name], value), name
    for name, value in found.backbone().state_dict().items():
        assert torch.equal(value, state[f"backbone.{name}"]), name


@pytest.mark.parametrize(
    ("adapters", "train", "frames"),
    [
        ([LORA, NECK], ("adapters.", "encoder.norm."), 64),
        ([], (), 96),
    ],
)
def test_base_and_file_are_the_weights_that_were_saved(tmp_path, adapters, train, frames):
    runs = tmp_path / "runs"
    base = base_at(runs / "pretrain/a/0/checkpoints/last.ckpt")
    # As many others as a folder of runs has: not the same weights, an adapter file, and one that is damaged.
    base_at(runs / "pretrain/b/0/checkpoints/last.ckpt", seed=4)
    base_at(runs / "pretrain/c/0/checkpoints/last.ckpt", width=48)
    (runs / "pretrain/c/0/checkpoints/cut.ckpt").write_bytes(base.path.read_bytes()[:3000])
    path = runs / "finetune/x/0/checkpoints/best.ckpt"
    state = trained_at(path, base, adapters, train=train, frames=frames)
    assert path.stat().st_size < base.path.stat().st_size / 2
    found = open_checkpoint(path, runs=runs)
    same(found, state)
    assert found.base.path == base.path
    assert (found.step, found.task["labels"]) == (7, ["a", "b", "c"])
    same(open_checkpoint(path, base=base.path, runs=tmp_path / "none"), state)
    # The base is known by its content: not by its name, nor by the statistics of its data.
    alone = tmp_path / "elsewhere/adapter.ckpt"
    alone.parent.mkdir()
    shutil.copy(path, alone)
    moved = torch.load(base.path, weights_only=True)
    moved["state_dict"]["backbone.frontend.mean"] += 1
    torch.save(moved, alone.with_name("given.pth"))
    same(open_checkpoint(alone, runs=tmp_path / "none"), state)
    # A stage that began there: both files stand on the one base.
    second = trained_at(tmp_path / "elsewhere/second.ckpt", found, [NECK], frames=80, labels="de", seed=2)
    later = open_checkpoint(tmp_path / "elsewhere/second.ckpt", runs=runs)
    same(later, second)
    assert later.base.digest == found.base.digest


@pytest.mark.parametrize(("image", "hints"), [(False, Hints(heads=3)), (True, Hints(heads=3, colours="mean"))])
def test_a_published_base_is_opened_as_it_was(tmp_path, golden, image, hints):
    """What its tensors do not say stands in the adapter's file: without it, others would come out of them."""
    ssast = not image and golden("ssast_patch_mini.pt")["state_dict"]
    weights = ssast or golden("ast_mini.pt", full=True)["tiny224"]["source_vit_state_dict"]
    torch.save(weights, tmp_path / "published.pth")
    base = open_checkpoint(tmp_path / "published.pth", hints=hints)
    state = trained_at(tmp_path / "lora.ckpt", base, [LORA], frames=64, hints=hints)
    found = open_checkpoint(tmp_path / "lora.ckpt", runs=tmp_path / "none")
    same(found, state)
    assert found.base.kind == f"{base.kind} Transformer"


def test_a_wrong_or_missing_base_is_one_line(tmp_path):
    base, other = base_at(tmp_path / "base/a.ckpt"), base_at(tmp_path / "other/b.ckpt", seed=1)
    wide = base_at(tmp_path / "other/wide.ckpt", width=48)
    path = tmp_path / "adapters/lora.ckpt"
    trained_at(path, base, [LORA])
    runs = tmp_path / "none"
    for wrong in (other, wide):
        message = r"lora.ckpt: was trained on the base a.ckpt \(ssl_audio Transformer, sha256 \w{12}\); "
        with pytest.raises(CheckpointError, match=rf"{message}.*{wrong.path.name} is another one \(sha256 \w{{12}}\)"):
            open_checkpoint(path, base=wrong.path)
    with pytest.raises(CheckpointError, match=r"base a.ckpt \(ssl_audio Tr.*no checkpoint below .*give it with --base"):
        open_checkpoint(path, runs=runs)
    with pytest.raises(CheckpointError, match=r"a.ckpt: is whole and needs no base"):
        open_checkpoint(base.path, base=other.path)
    # Whatever the file says of it, a base is what its content is, and has a place for what the file holds.
    content = torch.load(path, weights_only=True)
    for damage, message in (
        ({"digest": "0" * 64}, "is another one"),
        ({"rule": "any"}, "by the rule 'any'"),
        ({"name": 5}, "nothing readable of its base"),
        ({"hints": {"heads": "many"}}, "hints of a published base are none"),
    ):
        changed = copy.deepcopy(content)
        changed["ssl_audio"]["base"] |= damage
        torch.save(changed, tmp_path / "changed.ckpt")
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(tmp_path / "changed.ckpt", base=base.path)
    name = "backbone.adapters.0.parts.blocks/0/mixer/transform/qkv[query].down"
    assert name in content["state_dict"]
    for value, message in (
        (torch.zeros(2, 48), r"is \(2, 48\), .* has one of \(2, 32\) there"),
        (None, "lacks adapters"),
    ):
        changed = copy.deepcopy(content)
        changed["state_dict"].pop(name)
        changed["state_dict"] |= {} if value is None else {name: value}
        torch.save(changed, tmp_path / "changed.ckpt")
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(tmp_path / "changed.ckpt", base=base.path)
    # Terabytes that no tensor stands for are never asked for.
    changed = copy.deepcopy(content)
    huge = {"class_path": "ssl_audio.model.adapters.Prompts", "init_args": {"count": 10**12}}
    changed["ssl_audio"]["recipe"]["model"]["backbone"]["init_args"]["adapters"].append(huge)
    torch.save(changed, tmp_path / "changed.ckpt")
    with pytest.raises(CheckpointError, match=r"lacks adapters\.1\.prompts, and so does its base"):
        open_checkpoint(tmp_path / "changed.ckpt", base=base.path)


def test_adapters_on_one_base_are_switched_without_a_second_base(tmp_path):
    base = base_at(tmp_path / "base/a.ckpt")
    files = {name: tmp_path / f"{name}.ckpt" for name in ("sounds", "words")}
    trained_at(files["sounds"], base, [LORA], frames=64)
    trained_at(files["words"], base, [NECK], train=("adapters.", "encoder.norm."), labels="xy", seed=5)
    waveform = torch.randn(9000, generator=torch.Generator().manual_seed(0)) * 0.1
    encoder = ssl_audio.pretrained(base.path)
    frozen, before = encoder.backbone, encoder.embed(waveform, sample_rate=16000)
    found = {}
    for name, path in files.items():
        alone = ssl_audio.pretrained(path, base=base.path)
        encoder.load(name, path)
        encoder.use(name)
        assert torch.equal(encoder.embed(waveform, sample_rate=16000), alone.embed(waveform, sample_rate=16000))
        assert torch.equal(encoder.predict(waveform, sample_rate=16000), alone.predict(waveform, sample_rate=16000))
        assert (encoder.labels, encoder.digest, encoder.grid) == (alone.labels, alone.digest, alone.grid)
        assert float(encoder.backbone.frontend.mean) == -5.0
        found[name] = encoder.embed(waveform, sample_rate=16000)
        shared = dict(frozen.named_parameters())
        for key, value in encoder.backbone.named_parameters():
            own = key.startswith(("adapters.", "encoder.norm.")[: 1 if name == "sounds" else 2])
            own = own or (name == "sounds" and key == "positions.table")
            assert own or value.untyped_storage().data_ptr() == shared[key].untyped_storage().data_ptr(), key
    for name in ("sounds", "words"):
        encoder.use(name)
        assert torch.equal(encoder.embed(waveform, sample_rate=16000), found[name])
    encoder.use(None)
    assert torch.equal(encoder.embed(waveform, sample_rate=16000), before)
    assert (encoder.labels, encoder.head) == ([], None)
    # Begun at one of them, the others are on the same base all the same.
    other = ssl_audio.pretrained(files["words"], base=base.path)
    other.load("sounds", files["sounds"])
    other.use("sounds")
    assert torch.equal(other.embed(waveform, sample_rate=16000), found["sounds"])
    with pytest.raises(RecipeError, match="no adapter 'word' was loaded; loaded: sounds, words"):
        encoder.use("word")
    with pytest.raises(CheckpointError, match=r"is whole; expected an adapter checkpoint of .*a.ckpt"):
        encoder.load("base", base.path)
    with pytest.raises(CheckpointError, match="is another one"):
        ssl_audio.pretrained(base_at(tmp_path / "base/b.ckpt", seed=3).path).load("sounds", files["sounds"])
