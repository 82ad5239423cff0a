"""Whatever stands in a checkpoint: it opens, or one line says what is wrong with it, and nothing else happens."""

import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import broken, content, little_room, published, repacked, tampered, watched
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_audio import Hints, pretrained
from ssl_audio.checkpoints.classes import classes_of
from ssl_audio.cli.inspect import _checkpoint as checkpoint_text
from ssl_audio.errors import SslAudioError
from ssl_audio.model.adapters import Adapter
from ssl_audio.model.encoders import Transformer

WAVE = torch.sin(torch.arange(4000) / 9.0)


def opens(path: Path, *, heads: int | None = None) -> str | None:
    """Open a checkpoint and embed with it; returns the line that it is refused with.

    Raises:
        AssertionError: if anything else happens.
    """
    line = None
    with little_room():
        try:
            with watched(path) as seen:
                model = pretrained(path, hints=Hints(heads=heads))
                shown = checkpoint_text(model.checkpoint)
            assert shown.replace("\n", "").isprintable()
            if isinstance(model.backbone.encoder, Transformer):  # the other may compile its kernel first
                model.embed(WAVE, sample_rate=16000)
                if model.head is not None:
                    model.predict(WAVE, sample_rate=16000)
        except SslAudioError as error:
            line = str(error)
    assert not seen, seen
    if line is not None:
        assert "\n" not in line
        assert len(line) < 1500
        assert "allocate" not in line, line
    return line


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With a place outside that nothing may look into."""
    root = tmp_path_factory.mktemp("hostile")
    (root / "outside").mkdir()
    torch.save(content(), root / "whole.ckpt")
    return root


def test_a_whole_one_opens_and_the_watch_sees(folder):
    assert opens(folder / "whole.ckpt") is None
    with watched() as seen:
        (folder / "outside/x").write_text("x")
    assert seen


def changed(*place: str, value: Any) -> dict[str, Any]:
    """A checkpoint with something else in one place of its recipe (`spec`), its task or its weights."""
    found = content()
    options = found["ssl_audio"]["recipe"]["model"]["backbone"]["init_args"]
    *owners, last = place
    inner: Any = {"spec": options, "task": found["ssl_audio"]["task"], "weights": found["state_dict"]}
    for name in owners:
        inner = inner[name]
    inner[last] = value
    return found


ENCODER = ("spec", "encoder", "init_args")
FRONTEND = ("spec", "frontend", "init_args")


@pytest.mark.parametrize(
    ("place", "value", "line"),
    [
        ((*ENCODER, "depth"), 10**9, "describes 1000000000 blocks"),
        ((*ENCODER, "expansion"), 10**12, "weights do not fit its recipe"),
        ((*ENCODER, "width"), "8", "width is '8'; expected PositiveInt"),
        ((*ENCODER, "heads"), 3, "not divisible by heads=3"),
        ((*ENCODER, "heds"), 3, "Transformer has no option 'heds'"),
        ((*FRONTEND, "bins"), 10**8, "do not fit its recipe"),
        ((*FRONTEND, "frame_seconds"), 1e9, "expected at most 1"),
        ((*FRONTEND, "sample_rate"), 10**9, "expected 1000 to 384000 Hz"),
        ((*FRONTEND, "std"), 0.0, "it must be above 0"),
        ((*FRONTEND, "mean"), float("nan"), "finite number"),
        (("spec", "fixed_frames"), 10**9, "fixed_frames is 1000000000"),
        (("spec", "position_frames"), 10**9, "positions.table is"),
        (("spec", "encoder"), "this.s", "has no encoder in full"),
        (("spec", "encoder", "class_path"), "os.system", "names 'os.system'; expected classes of ssl_audio"),
        (("spec", "encoder", "class_path"), "ssl_audio.audio.fbank.Fbank", "BiMamba, Transformer"),
        (("spec", "encoder", "class_path"), "torch.nn.Linear", "names 'torch.nn.Linear'"),
        (("spec", "adapters"), [{"class_path": "this.s", "init_args": {}}], "names 'this.s'"),
        (("weights", "backbone.encoder.blocks.999999.mixer.norm.bias"), torch.zeros(8), "999999.* is unknown"),
        (("weights", "backbone.embedding.bias"), torch.zeros(1).expand(10**9), "repeats 4 bytes"),
        (("weights", "backbone.embedding.bias"), torch.zeros(8, dtype=torch.int32), "holds int32, expected floats"),
        (("weights", "backbone.embedding.bias"), torch.zeros(8, dtype=torch.complex64), "holds complex64"),
        (("weights", "backbone.frontend.std"), torch.tensor(-2.0), "a deviation above 0"),
        (("weights", "head.linear.bias"), torch.zeros(4), r"objective.head.linear.bias is \(4,\), expected \(3,\)"),
        (("task", "labels"), ["a"] * 1000, r"objective.head.linear.\w+ is \(3\b.*expected \(1000\b"),
        (("task", "head"), {"pooling": "max", "norm": "batch"}, "pooling is 'max'"),
    ],
)
def test_what_is_wrong_is_said(folder, place, value, line):
    torch.save(changed(*place, value=value), folder / "z.ckpt")
    said = opens(folder / "z.ckpt")
    assert re.search(line, said or ""), said
    assert "this" not in sys.modules


def test_files_that_are_something_else_or_hold_more_than_they_have_bytes(folder):
    whole, path = folder / "whole.ckpt", folder / "w.ckpt"
    for text, line in ((b"<!DOCTYPE html>", "HTML"), (b"version https://git-lfs.github.com/spec/v1", "LFS pointer")):
        path.write_bytes(text)
        assert line in str(opens(path))
    repacked(whole, path)
    assert "compressed entries" in str(opens(path))
    with zipfile.ZipFile(whole) as archive:
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    # Tuples within tuples as a key: to hash them takes the stack of the processor.
    deep = b"\x80\x02})" + b"\x85" * 10**6 + b"Ns."
    wide = b"\x80\x02}U\x01acbuiltins\nbytearray\n\x8a\x06" + (10**12).to_bytes(6, "little") + b"\x85Rs."
    for content_of, line in (
        (deep, "more than tensors and plain values"),
        (wide, "more than tensors and plain values"),
        (pickled.replace(b"FloatStorage", b"DoubleStorage"), "is described as"),
    ):
        repacked(whole, path, zipfile.ZIP_STORED, data_pkl=content_of)
        assert line in str(opens(path))
    torch.save({"a": torch.zeros(4)}, path, _use_new_zipfile_serialization=False)
    old = path.read_bytes()
    assert "of no known kind" in str(opens(path))
    path.write_bytes(old.replace(b"K\x04N", b"\x8a\x05" + (10**10).to_bytes(5, "little") + b"N", 1))
    assert "describes 40000000000 bytes" in str(opens(path))


def test_adapters_join_the_classes_by_their_base():
    names = classes_of(Adapter)
    assert names["ssl_audio.model.adapters.LowRank"] is names["ssl_audio.model.adapters.low_rank.LowRank"]
    assert all(issubclass(one, Adapter) for one in names.values())


def test_keys_that_are_no_text_are_one_line(folder):
    for at in (("task",), ("recipe", "data"), ("recipe", "model", "backbone", "init_args")):
        content = torch.load(folder / "whole.ckpt", weights_only=True)
        inner = content["ssl_audio"]
        for name in at[:-1]:
            inner = inner[name]
        inner[at[-1]] = {1: 2}
        torch.save(content, folder / "k.ckpt")
        assert "has the key '1', a int; expected text" in str(opens(folder / "k.ckpt"))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_changed_content(folder, data):
    try:
        torch.save(data.draw(tampered(folder / "outside")), folder / "x.ckpt")
    except RecursionError:  # what is too deep to write cannot be read either
        return
    opens(folder / "x.ckpt")
    assert not list((folder / "outside").glob("pipe"))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes(folder, data):
    (folder / "y.ckpt").write_bytes(data.draw(broken((folder / "whole.ckpt").read_bytes())))
    opens(folder / "y.ckpt")


@pytest.fixture(scope="module")
def states(golden) -> list[dict[str, Any]]:
    """State dicts of published layouts."""
    return [golden(f"{name}_mini.pt")["state_dict"] for name in ("ssamba_frame", "ssast_patch")]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_published_files(folder, states, data):
    torch.save(data.draw(published(states)), folder / "p.pth")
    opens(folder / "p.pth", heads=4)
