"""Exports say what their checkpoints say, each clip alone and among longer ones, by the code that opens them."""

import importlib.util
import json
import re
import subprocess
import sys

import pytest
import torch

import ssl_audio
from ssl_audio.checkpoints.checkpoint import Checkpoint, describe
from ssl_audio.checkpoints.exporting import parity
from ssl_audio.checkpoints.exporting.folder import prepare
from ssl_audio.checkpoints.exporting.layouts import LAYOUTS
from ssl_audio.checkpoints.exporting.source import Source
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.checkpoints.schema import planned_objective
from ssl_audio.cli.main import main
from ssl_audio.errors import RecipeError

TRANSFORMER = ("Transformer", {"width": 32, "depth": 3, "heads": 4})
MAMBA = ("BiMamba", {"width": 32, "depth": 4})
PAIRED = ("BiMamba", {"width": 32, "depth": 4, "paired_flips": True, "second_final_norm": True})
CAUSAL = ("BiMamba", {"width": 32, "depth": 2, "forward_only": True})


def clips(**head) -> dict:
    return {"class_path": "ssl_audio.objectives.classification.Classification", "init_args": {"head": head}}


def events(**head) -> dict:
    return {"class_path": "ssl_audio.objectives.event_detection.EventDetection", "init_args": {"head": head}}


def written(path, encoder, task=None, *, fbank=None, **options) -> Checkpoint:
    """A checkpoint with random weights."""
    spec = {
        "class_path": "ssl_audio.model.backbone.Backbone",
        "init_args": {
            "frontend": {"class_path": "ssl_audio.audio.fbank.Fbank", "init_args": fbank or {}},
            "encoder": {"class_path": f"ssl_audio.model.encoders.{encoder[0]}", "init_args": encoder[1]},
            "position_frames": 128,
            **options,
        },
    }
    recipe = {"model": {"backbone": spec}}
    draws = torch.Generator().manual_seed(1)
    backbone = Checkpoint(path, recipe, {}, 0, "").untrained()
    for name, value in backbone.named_parameters():
        if not name.endswith("A_log"):
            value.data += torch.randn(value.shape, generator=draws) * 0.05
    weights = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    told = None
    if task is not None:
        told = {"target": "label", "labels": ["dog", "cat", "größer"], "several": False, "objective": task}
        planned, facts = planned_objective(path, told, recipe)
        objective = planned.build()
        objective.attach(backbone, facts)
        weights |= {f"objective.{name}": value for name, value in objective.state_dict().items()}
    torch.save({"state_dict": weights, "global_step": 7, "ssl_audio": describe(recipe, task=told)}, path)
    return open_checkpoint(path)


def exported(found: Checkpoint, layout: str, out, seconds=None) -> list[parity.Row]:
    package = LAYOUTS[layout].package
    if package is not None:
        pytest.importorskip(package)
    source = Source.of(found)
    made = LAYOUTS[layout].write(source, out, seconds)
    return parity.compare(source, made.run, parity.batches(source, made.lengths))


@pytest.mark.parametrize(
    ("encoder", "task", "options"),
    [
        (TRANSFORMER, clips(pooling="class", layers=True), {"class_tokens": 2}),
        (TRANSFORMER, clips(pooling="query", norm="none"), {"stride": [10, 10], "position_rule": "centre"}),
        (TRANSFORMER, clips(pooling="moments"), {"fixed_frames": 128, "fbank": {"pad_value": "published"}}),
        (TRANSFORMER, events(bands="apart", layers=True, width=16), {}),
        (MAMBA, clips(pooling="bands", norm="batch"), {"class_tokens": 1, "class_place": "middle"}),
        (MAMBA, clips(pooling="attentive", projection=20), {"patch": [128, 2]}),
        (MAMBA, clips(), {"position_factors": True, "position_rule": "repeat", "fbank": {"level_db": -26.0}}),
        (PAIRED, clips(pooling="class", layers=True), {"class_tokens": 1, "class_place": "middle"}),
        (CAUSAL, events(), {"class_tokens": 2}),
    ],
)
def test_a_folder_that_needs_torch_alone(tmp_path, encoder, task, options):
    found = written(tmp_path / "x.ckpt", encoder, task, **options)
    rows = exported(found, "torch", tmp_path / "out")
    assert {row.what for row in rows} >= {"embedding", "frames", "logits"}
    assert max(row.difference for row in rows) < 1e-4, [row.text() for row in rows]
    # A short clip beside a long one is what it is alone.
    assert min(row.cosine for row in rows) > 1 - 1e-5
    # Its weights are a checkpoint of ours.
    again = ssl_audio.pretrained(tmp_path / "out/model.safetensors")
    assert (again.labels, again.checkpoint.step) == (["dog", "cat", "größer"], 7)
    sound = torch.sin(torch.arange(20000) / 7)
    for one in (again.embed, again.predict):
        same = getattr(ssl_audio.pretrained(found.path), one.__name__)
        assert torch.equal(one(sound, sample_rate=16000), same(sound, sample_rate=16000))


@pytest.mark.parametrize(
    ("layout", "task", "options", "seconds"),
    [
        ("ast", None, {"class_tokens": 2}, None),
        ("ast", clips(pooling="class"), {"class_tokens": 2, "stride": [10, 10]}, 1.0),
        ("ast", None, {"class_tokens": 2, "fixed_frames": 128, "fbank": {"pad_value": "published"}}, None),
        ("timm", None, {}, None),
        ("timm", clips(norm="batch"), {"class_tokens": 1}, 1.0),
        ("timm", clips(pooling="class", norm="none"), {"class_tokens": 1, "patch": [128, 2]}, None),
    ],
)
def test_folders_of_transformers_and_timm(tmp_path, layout, task, options, seconds):
    found = written(tmp_path / "x.ckpt", TRANSFORMER, task, **options)
    rows = exported(found, layout, tmp_path / "out", seconds)
    assert max(row.difference for row in rows) < 1e-4, [row.text() for row in rows]
    assert min(row.cosine for row in rows) > 1 - 1e-5
    assert ("logits" in {row.what for row in rows}) == (task is not None)
    # Read back by our importer: the same vectors, bit for bit, of a clip that fills its columns.
    own, again = ssl_audio.pretrained(found.path), ssl_audio.pretrained(tmp_path / "out")
    full = torch.sin(torch.arange(again.grid.window) ** 1.5 * 1e-3) * 0.3
    assert torch.equal(again.embed(full, sample_rate=16000), own.embed(full, sample_rate=16000))
    if task is not None:
        assert again.labels == own.labels
        theirs, ours = (one.predict(full, sample_rate=16000) for one in (again, own))
        torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=0)


def test_the_verb_checks_describes_and_fails_without_deleting(tmp_path, capsys, monkeypatch):
    found = written(tmp_path / "x.ckpt", MAMBA, clips())
    words = ["export", "--checkpoint", str(found.path), "--format=huggingface"]
    main([*words, "--out", str(tmp_path / "out")])
    assert "opens with PyTorch alone" in capsys.readouterr().out
    told = json.loads((tmp_path / "out/parity.json").read_text())
    assert all(row["passed"] for row in told["rows"])
    assert "dog, cat, größer" in (tmp_path / "out/README.md").read_text()
    # Elsewhere, by the file that goes with it, in an interpreter that cannot import this package.
    code = """
import sys; sys.modules["ssl_audio"] = None
import torch, modeling_ssl_audio
model = modeling_ssl_audio.load(".")
waveforms = torch.sin(torch.arange(20000) / 7).repeat(2, 1)
print(model(waveforms, torch.tensor([20000, 9000]))["embedding"][1].tolist())"""
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "out", env={}, capture_output=True, text=True, check=True
    )
    expected = ssl_audio.pretrained(found.path).embed(torch.sin(torch.arange(9000) / 7), sample_rate=16000)
    torch.testing.assert_close(torch.tensor(json.loads(shown.stdout))[None], expected, atol=1e-4, rtol=0)
    monkeypatch.setattr(parity, "_apart", lambda ours, theirs: 1.0)
    with pytest.raises(SystemExit) as failed:
        main([*words, "--out", str(tmp_path / "bad")])
    assert failed.value.code == 1
    assert "does not say what its checkpoint says" in capsys.readouterr().err
    assert (tmp_path / "bad/model.safetensors").exists()


def test_nothing_of_others_is_replaced_and_mistakes_come_before_the_work(tmp_path, capsys):
    found = written(tmp_path / "x.ckpt", CAUSAL)
    words = ["export", "--checkpoint", str(found.path), "--format=huggingface"]
    # What an earlier export left goes; what is no export stays, and the checkpoint itself.
    prepare(tmp_path / "out", found.path)
    (tmp_path / "out/model_int8.onnx").touch()
    prepare(tmp_path / "out", found.path)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["parity.json"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for out, more, line in (
        ("mine", [], "holds notes.txt and is no earlier export"),
        ("link", [], "would replace .*x.ckpt, which it is made of"),
        ("link/x.ckpt", ["--format=ssl_audio"], "would replace .*x.ckpt, which it is made of"),
        ("new", ["--shards=[nowhere]"], "--shards nowhere: has no manifest.json"),
        ("new", ["--audio=[none.wav]"], "none.wav: cannot be read"),
        ("new", ["--seconds=inf"], "seconds: expected a finite number, found inf"),
        ("new", ["--format=onxn"], "--format: expected one of .*, found onxn; did you mean 'onnx'"),
    ):
        with pytest.raises(SystemExit):
            main([*words, f"--out={tmp_path / out}", *more])
        assert re.search(line, capsys.readouterr().err)
    assert not (tmp_path / "new").exists()


def test_what_has_no_place_is_refused_in_one_line(tmp_path, monkeypatch):
    chunked = written(tmp_path / "c.ckpt", ("BiMamba", {"width": 32, "depth": 2, "chunk": 4}))
    with pytest.raises(RecipeError, match=r"not torch: its encoder works in chunks"):
        ssl_audio.export(chunked.path, tmp_path / "out", say=str)
    relu = ("Transformer", {"width": 32, "depth": 1, "heads": 2, "activation": "relu"})
    fixed = ("BiMamba", {"width": 32, "depth": 2})
    for encoder, options, reason in (
        (relu, {}, "its activation is relu, not gelu"),
        (fixed, {"position_fixed": True}, "its positions are FixedPositions"),
    ):
        other = written(tmp_path / "o.ckpt", encoder, **options)
        with pytest.raises(RecipeError, match=f"not torch: {reason}"):
            ssl_audio.export(other.path, tmp_path / "out", say=str)
    deep = written(tmp_path / "d.ckpt", MAMBA, events(rnn_layers=1, rnn_width=8))
    with pytest.raises(RecipeError, match=r"recurrent layers.*--head false"):
        ssl_audio.export(deep.path, tmp_path / "out", say=str)
    assert ssl_audio.export(deep.path, tmp_path / "out", head=False, say=str).opens == "PyTorch alone"
    one = written(tmp_path / "o.ckpt", TRANSFORMER, class_tokens=1)
    with pytest.raises(RecipeError, match=r"not ast: it has 1 class tokens, not two in front"):
        ssl_audio.export(one.path, tmp_path / "out", layout="ast", say=str)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "timm" else find(name))
    with pytest.raises(RecipeError, match=r"pip install 'ssl_audio\[timm\]'"):
        ssl_audio.export(one.path, tmp_path / "out", say=str)


def test_safetensors_hold_a_whole_checkpoint(tmp_path, capsys):
    found = written(tmp_path / "x.ckpt", MAMBA, clips())
    main(["export", "--checkpoint", str(found.path), "--format=safetensors", f"--out={tmp_path / 'x.safetensors'}"])
    again = open_checkpoint(tmp_path / "x.safetensors")
    assert (again.recipe, again.task, again.step) == (found.recipe, found.task, found.step)
    assert all(torch.equal(value, found.weights[name]) for name, value in again.weights.items())
    with pytest.raises(SystemExit):
        main(["export", "--checkpoint", str(found.path), "--format=safetensors", "--out=x.ckpt"])
    assert "expected a name that ends in .safetensors" in capsys.readouterr().err
