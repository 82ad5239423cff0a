"""Checkpoints that somebody tampered with: what can be wrong with one, drawn over everything that it holds."""

import copy
import functools
import resource
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

from ssl_audio.checkpoints.checkpoint import describe
from ssl_audio.checkpoints.options import plan
from ssl_audio.model.backbone import Backbone
from ssl_audio.objectives.heads import Head

_ROOM = 2**29
_ELSEWHERE = ("os.system", "this.s", "antigravity.fly", "torch.hub.load", "subprocess.Popen", "ssl_audio.cli.main.main")


@functools.cache
def _content(encoder: str) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    found = content(encoder)
    return found, list(places(found))


def content(encoder: str = "Transformer") -> dict[str, Any]:
    """A small fine-tuned checkpoint as this package writes them, made from numbers."""
    sizes: dict[str, Any] = {"width": 8, "depth": 2}
    options = {
        "frontend": {"class_path": "ssl_audio.audio.fbank.Fbank", "init_args": {"mean": -4.0, "std": 4.0}},
        "encoder": {
            "class_path": f"ssl_audio.model.encoders.{encoder}",
            "init_args": {**sizes, "heads": 2} if encoder == "Transformer" else sizes,
        },
        "patch": [16, 16],
        "stride": [16, 16],
        "position_frames": 32,
        "class_tokens": 1,
        "fixed_frames": None,
    }
    spec = {"class_path": "ssl_audio.model.backbone.Backbone", "init_args": options}
    torch.manual_seed(0)
    backbone = plan(spec, Backbone, "backbone").build()
    head = Head(8, labels=3, norm="batch")
    weights = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    weights |= {f"head.{name}": value for name, value in head.state_dict().items()}
    task = {"target": "label", "labels": ["a", "b", "c"], "several": False}
    task["head"] = {"pooling": "mean", "layers": False, "projection": None, "norm": "batch", "begin": "random"}
    recipe = {
        "name": "x",
        "model": {"backbone": spec, "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.1}}},
        "data": {"shards": ["shards/demo"], "crop_seconds": 1.0, "split": None},
        "trainer": {"max_steps": 2},
    }
    return {"state_dict": weights, "global_step": 2, "ssl_audio": describe(recipe, task=task)}


def places(tree: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value of nested dictionaries and lists lies."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in inner:
        yield (*place, name)
        yield from places(value, (*place, name))


def _deep(levels: int) -> list[Any]:
    tree: list[Any] = []
    for _ in range(levels):
        tree = [tree]
    return tree


def _endless() -> list[Any]:
    tree: list[Any] = []
    tree.append(tree)
    return tree


def _laughs() -> list[Any]:
    tree: list[Any] = ["ha"]
    for _ in range(30):
        tree = [tree, tree]
    return tree


def values(outside: Path) -> st.SearchStrategy[Any]:
    """What may stand where something else was expected."""
    names = [
        *_ELSEWHERE,
        f"pipe:touch {outside}/pipe",
        str(outside / "there.tar"),
        "/dev/zero",
        "local:///",
        "\x1b[2J\n",
    ]
    return st.one_of(
        st.sampled_from([None, True, False, 0, -1, 1, 3, 10**6, 10**9, 2**63, 10**400, 0.0, -1.0, 1e300]),
        st.sampled_from([float("nan"), float("inf"), "", "1", "mean", *names]),
        st.builds(lambda name: {"class_path": name, "init_args": {}}, st.sampled_from(names)),
        st.sampled_from([[], {}, [1], {"a": 1}, {1: 2}, (1, 2), ["a"] * 4]),
        st.builds(lambda make: make(), st.sampled_from([_endless, _laughs, lambda: _deep(500)])),
        tensors(),
    )


def tensors() -> st.SearchStrategy[Any]:
    """Tensors that no honest file holds in most places."""
    one = torch.ones(1)
    return st.sampled_from(
        [
            torch.zeros(()),
            torch.zeros(0),
            torch.zeros(2, 3),
            torch.full((8,), float("nan")),
            torch.tensor(-1.0),
            one.expand(10**9),
            one.expand(8),
            torch.ones(8, dtype=torch.int64),
            torch.ones(8, dtype=torch.complex64),
            torch.ones(8, dtype=torch.bool),
            torch.eye(8).to_sparse(),
            torch.ones(8, device="meta"),
        ]
    )


def _at(tree: Any, place: tuple[Any, ...]) -> Any:
    for name in place:
        tree = tree[name] if isinstance(tree, dict | list) else None
    return tree


@st.composite
def tampered(draw: Callable[..., Any], outside: Path) -> dict[str, Any]:
    """The content of a checkpoint with one to three changes."""
    whole, where = _content(draw(st.sampled_from(["Transformer", "BiMamba"])))
    found = copy.deepcopy(whole)
    said = [place for place in where if place[0] != "state_dict"]
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(draw(st.sampled_from([said, said, where]))))
        try:
            owner, name = _at(found, place[:-1]), place[-1]
            if not isinstance(owner, dict | list):
                continue
            owner[name]
        except (KeyError, TypeError, IndexError):  # an earlier change took it away
            continue
        kind = draw(st.sampled_from(["replace", "replace", "tensor", "remove", "add", "again"]))
        if kind == "replace":
            owner[name] = draw(values(outside))
        elif kind == "tensor":
            weights = found.get("state_dict")
            if isinstance(weights, dict) and weights:
                weights[draw(st.sampled_from(sorted(map(str, weights))))] = draw(tensors())
        elif kind == "remove":
            del owner[name]
        elif isinstance(owner, dict):
            new = f"{name}2" if kind == "add" else str(name).replace(".1.", ".999999.")
            owner[new] = owner[name] if kind == "again" else draw(values(outside))
    return found


@st.composite
def published(draw: Callable[..., Any], states: list[dict[str, Any]]) -> dict[str, Any]:
    """The tensors of a published checkpoint with one or two changes.

    Args:
        draw: Of hypothesis.
        states: State dicts of published layouts.
    """
    state = dict(draw(st.sampled_from(states)))
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(state)))
        value = state[name]
        kind = draw(st.sampled_from(["remove", "tensor", "cut", "rename", "add", "value", "flat", "row"]))
        if kind == "remove":
            del state[name]
        elif kind == "tensor":
            state[name] = draw(tensors())
        elif kind == "cut" and value.ndim:
            state[name] = value[: draw(st.integers(0, value.shape[0]))].clone()
        elif kind == "rename":
            state[name.replace(".0.", ".999999.").replace("1", "7")] = value
        elif kind == "add":
            state[f"{name}.x"] = value
        elif kind == "value":
            state[name] = torch.full(value.shape, draw(st.sampled_from([float("nan"), -1.0, 0.0, 1e9, 3.0])))
        elif kind in ("flat", "row"):
            state[name] = value.reshape(-1) if kind == "flat" else value[None].clone()
    return state


@st.composite
def broken(draw: Callable[..., Any], whole: bytes) -> bytes:
    """The bytes of a checkpoint, cut, changed, or something else altogether."""
    kind = draw(st.sampled_from(["cut", "flip", "flip", "front", "other"]))
    if kind == "cut":
        return whole[: draw(st.integers(0, len(whole)))]
    if kind == "flip":
        changed = bytearray(whole)
        for _ in range(draw(st.integers(1, 20))):
            changed[draw(st.integers(0, len(whole) - 1))] = draw(st.integers(0, 255))
        return bytes(changed)
    if kind == "front":
        return draw(st.binary(max_size=40)) + whole
    return draw(
        st.sampled_from(
            [b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\n", b'{"error": 404}', b"\0" * 600]
        )
    )


def repacked(whole: Path, target: Path, compression: int = zipfile.ZIP_DEFLATED, **changed: bytes) -> None:
    """The same archive with compressed entries, or with others in their place (by the end of their names)."""
    with zipfile.ZipFile(whole) as before, zipfile.ZipFile(target, "w", compression) as after:
        for entry in before.infolist():
            name = entry.filename.rsplit("/", 1)[-1].replace(".", "_")
            after.writestr(entry.filename, changed.get(name, before.read(entry)))


_events: list[tuple[str, str]] | None = None
_hooked = False


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _events is None:
        return
    if event == "open" or event.startswith(("os.", "shutil.", "subprocess.", "socket.", "pathlib.", "tempfile.")):
        _events.append((event, " ".join(str(one) for one in arguments[:2])))


@contextmanager
def watched(*allowed: Path) -> Iterator[list[tuple[str, str]]]:
    """What is opened, started, removed or connected to meanwhile, except these files and the code of Python."""
    global _events, _hooked
    if not _hooked:
        sys.addaudithook(_note)
        _hooked = True
    seen: list[tuple[str, str]] = []
    _events = seen
    try:
        yield seen
    finally:
        _events = None
        code = (sys.prefix, sys.base_prefix, str(Path(__file__).parents[1]), "/proc", "/sys", "/dev/null")
        fine = (*map(str, allowed), *code)
        seen[:] = [(event, what) for event, what in seen if not what.startswith(fine)]


@contextmanager
def little_room() -> Iterator[None]:
    """No more than half a gigabyte may be asked for: more is refused by the kernel, and shows as an error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
