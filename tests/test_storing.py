"""Everything under a final name is whole or absent."""

import ast
import errno
import os
import signal
from pathlib import Path

import pytest
import torch

import ssl_audio
from ssl_audio.data.columns import save_columns
from ssl_audio.data.columns_of_clips import columns_of
from ssl_audio.data.manifest import Manifest
from ssl_audio.data.writing import _writing_tar
from ssl_audio.experiments.output_files import write_bytes
from ssl_audio.storing import link, store, sweep, writing
from ssl_audio.training.checkpoint_files import AtomicCheckpointIO
from ssl_audio.training.metrics_log import MetricsLog
from ssl_audio.training.run import Run

MANIFEST = Manifest(
    corpus="a", licence="none", clips=0, seconds=0.0, splits={}, labels={}, speakers=0, log_mel={}, shards=[]
)


def _tar(path: Path) -> None:
    with _writing_tar(path, "flac") as tar:
        tar.writer.write({"__key__": "a", "flac": b"sound"})
        tar.clips = 1


def _metrics(path: Path) -> None:
    log = MetricsLog(path, steps=None)
    log.log_metrics({"loss": 1.0}, step=1)
    log.save()


WRITERS = {
    "store": lambda path: store(path, "text"),
    "option": lambda path: write_bytes(path, b"bytes"),
    "run": lambda path: Run(path.parent).write(path.name, "text"),
    "checkpoint": lambda path: AtomicCheckpointIO().save_checkpoint({"a": torch.ones(2)}, path),
    "index": lambda path: save_columns(columns_of([("a.tar", 1, [])]), path),
    "manifest.json": lambda path: MANIFEST.save(path.parent),
    "tar": _tar,
    "metrics": _metrics,
    "link": lambda path: link(Path(__file__), path),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_never_replaces_a_good_file(kind, tmp_path, monkeypatch):
    path = tmp_path / kind
    path.write_bytes(b"step\n0\n")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        # What is not brought to the disk before it gets its name is not whole after a power cut.
        patched.setattr(os, "fsync", full)
        with pytest.raises(Exception, match="No space left"):
            WRITERS[kind](path)
    assert path.read_bytes() == b"step\n0\n"
    assert list(tmp_path.iterdir()) == [path]
    WRITERS[kind](path)
    assert path.read_bytes() != b"step\n0\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_leaves_what_was_there_and_a_hidden_rest_that_is_swept(tmp_path):
    path = tmp_path / "a"
    store(path, "before")
    child = os.fork()
    if not child:
        with writing(path) as file:
            file.write(b"half of it")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert path.read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 2
    sweep(tmp_path, "other")
    assert len(list(tmp_path.iterdir())) == 2
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_links_are_followed_and_pipes_are_written_to(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / "there" / "b")
    store(tmp_path / "a", "through")
    assert (tmp_path / "a").is_symlink()
    assert (tmp_path / "there" / "b").read_text() == "through"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    store(tmp_path / "pipe", "piped")
    assert os.read(reader, 9) == b"piped"
    os.close(reader)
    with pytest.raises(IsADirectoryError):
        store(tmp_path / "there", "text")


# Besides the one function: locks, logs that grow row by row, a switch of the kernel, and sounds of a benchmark.
_ELSEWHERE = (
    "storing.py", "locking.py", "evaluation/journal.py", "training/metrics_log.py", "training/alerts.py",
    "evaluation/memory.py", "evaluation/loader_benchmark.py", "experiments/gpu_session.py",
)  # fmt: skip
_INTO_MEMORY_OR_ASIDE = ("buffer", "file", "hidden", "text")


def _writes(call: ast.Call) -> bool:
    """Whether a call may write to a file by its name."""
    if not isinstance(call.func, ast.Attribute):
        return False
    of, name = getattr(call.func.value, "id", ""), call.func.attr
    if name == "open":
        modes = [word.value for word in call.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
        # A member of an archive lies in a file that is open.
        return of not in ("hidden", "archive") and any(
            set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in modes
        )
    if (of, name) in {("torch", "save"), ("pq", "write_table")}:
        return getattr(call.args[1], "id", "") not in _INTO_MEMORY_OR_ASIDE
    if (of, name) in {("np", "savez"), ("np", "save"), ("figure", "savefig"), ("sf", "write"), ("soundfile", "write")}:
        return getattr(call.args[0], "id", "") not in _INTO_MEMORY_OR_ASIDE
    return name in ("write_text", "write_bytes", "to_csv", "tofile", "copyfile")


def test_nothing_is_written_but_through_the_one_function():
    root = Path(ssl_audio.__file__).parent
    found = [
        f"{path.relative_to(root)}:{node.lineno}"
        for path in sorted(root.rglob("*.py"))
        if str(path.relative_to(root)) not in _ELSEWHERE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and _writes(node)
    ]
    assert found == []
