"""Two processes never write the same thing at once, and the lock of a dead one does not hold."""

import dataclasses
import json
import os
import re
import signal
import threading
from pathlib import Path

import pytest

from ssl_audio import locking
from ssl_audio.data.corpora import Demo
from ssl_audio.data.writing import _alone, merge_shards, write_part
from ssl_audio.locking import BusyError, Lock


@pytest.fixture
def child(tmp_path):
    """A process that holds a lock until it is told to end; gives its pid and what ends it."""
    there, end = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        with Lock(tmp_path / "out"):
            os.write(there[1], b".")
            os.read(end[0], 1)
        os._exit(0)
    os.read(there[0], 1)
    yield pid, lambda: os.write(end[1], b".")
    for descriptor in (*there, *end):
        os.close(descriptor)


def test_the_second_is_told_who_is_first_and_the_dead_do_not_hold(child, tmp_path, caplog):
    pid, _ = child
    with pytest.raises(BusyError, match=rf"another process \(pid {pid} on .*\) is writing {tmp_path}/out; wait until"):
        Lock(tmp_path / "out").__enter__()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert (tmp_path / ".out.lock").exists()
    with Lock(tmp_path / "out"), pytest.raises(BusyError, match=r"this process is writing .*out already"):
        Lock(tmp_path / "out").__enter__()
    assert list(tmp_path.iterdir()) == []
    assert caplog.text == ""


def test_a_thing_has_one_lock_by_whatever_name(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("a")
    monkeypatch.chdir(tmp_path / "a")
    with Lock(Path()):
        for name in ("../b", "../b/../a", tmp_path / "a"):
            with pytest.raises(BusyError):
                Lock(Path(name)).__enter__()
    with Lock(tmp_path / ("ä" * 120)), Lock(tmp_path / ("ä" * 119 + "a")):
        pass


def test_waiting_is_said(child, tmp_path, monkeypatch, caplog):
    pid, end = child
    monkeypatch.setattr(locking.time, "sleep", lambda seconds: end())
    with Lock(tmp_path / "out", waiting=True):
        assert re.search(
            rf"another process \(pid {pid} on .*\) is writing .*out; waiting until it is done", caplog.text
        )
    os.waitpid(pid, 0)


@pytest.mark.parametrize("kernel", [True, False, None])
def test_locks_of_other_machines_hold_as_long_as_they_count(kernel, tmp_path, monkeypatch, caplog):
    # The kernel gives the lock (it does not reach other machines), refuses it (a server has not noticed), or has none.
    monkeypatch.setattr(locking, "_try_kernel", lambda file: kernel)
    path = tmp_path / ".out.lock"
    other = locking.Holder("far", "another machine", 7, "token")
    now = [0.0]
    monkeypatch.setattr(locking.time, "monotonic", lambda: now[0])

    def write(beat):
        path.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(other, beat=beat))))

    def alive(seconds):
        now[0] += 1
        write(int(now[0]))

    def dead(seconds):
        now[0] += 1

    write(0)
    monkeypatch.setattr(locking.time, "sleep", alive)
    with pytest.raises(BusyError, match=r"another process \(pid 7 on far\)"):
        Lock(tmp_path / "out").__enter__()
    monkeypatch.setattr(locking.time, "sleep", dead)
    with Lock(tmp_path / "out"):
        assert now[0] > locking.PATIENCE_SECONDS
    assert "another process (pid 7 on far) is writing" in caplog.text
    assert "waiting until it shows life, for 45 s at most" in caplog.text
    assert not path.exists()


def test_a_holder_counts_and_says_when_it_was_taken_for_dead(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(locking, "BEAT_SECONDS", 0.001)
    path, changed = tmp_path / ".out.lock", threading.Event()
    write = locking._write

    def written(file, holder):
        write(file, holder)
        if holder.beat > 2:
            changed.set()

    monkeypatch.setattr(locking, "_write", written)
    with Lock(tmp_path / "out") as lock:
        assert changed.wait(10)
        other = locking.Holder("far", "another machine", 7, "token")
        lock._released.set()
        lock._beating.join()
        path.write_text(json.dumps(dataclasses.asdict(other)).ljust(locking._SIZE))
        lock._released.clear()
        lock._beat()
        assert "has been taken over by another process (pid 7 on far)" in caplog.text
    assert path.exists()


def test_two_that_find_it_free_at_once_do_not_both_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(locking, "_try_kernel", lambda file: None)
    other = locking.Holder("far", "another machine", 7, "token")
    content = json.dumps(dataclasses.asdict(other)).ljust(locking._SIZE)
    monkeypatch.setattr(locking.time, "sleep", lambda seconds: (tmp_path / ".out.lock").write_text(content))
    with pytest.raises(BusyError, match=r"another process \(pid 7 on far\)"):
        Lock(tmp_path / "out").__enter__()


def test_parts_of_a_writing_exclude_themselves_and_the_whole(tmp_path):
    corpus, out = Demo("small"), tmp_path / "shards"
    with _alone(out, part=1, parts=2), _alone(out, part=2, parts=2):
        for part, parts in ((1, 2), (1, 1)):
            with pytest.raises(BusyError, match=r"shards(.part-1-of-2)? already"):
                write_part(corpus, out, name="demo", part=part, parts=parts)
        with pytest.raises(BusyError, match="already"):
            merge_shards(out)
    with _alone(out), pytest.raises(BusyError, match=r"writing .*shards already"):
        write_part(corpus, out, name="demo", part=1, parts=2)
    assert list(tmp_path.iterdir()) == []
