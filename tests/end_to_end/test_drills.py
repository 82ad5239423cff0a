"""What happens in a week on a cluster, each with its outcome."""

import errno
import functools
import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from faults import hang_and_slow_down, poison, small_disk
from killing import Launched, free_port, words

from ssl_audio.errors import CheckpointError
from ssl_audio.training.alerts import FILE, Alerts, Limits, read_alerts
from ssl_audio.training.checkpoint_files import AtomicCheckpointIO
from ssl_audio.training.metrics_log import read_rows
from ssl_audio.training.resuming import newest_whole

STEP = "runs/pretrain/run/0/checkpoints/step-{:08d}.ckpt"
RUN = "runs/pretrain/run/0"


def text_of(launched: Launched) -> str:
    return launched.log.read_text()


def workers_of(launched: Launched) -> list[int]:
    pid = launched.processes[0].pid
    return [int(worker) for worker in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": torch.zeros(3)}, path)
    before = path.read_bytes()

    def full(content, file):
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"No space left on device\); the checkpoints before it are whole"):
        AtomicCheckpointIO().save_checkpoint({"a": torch.ones(3)}, path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_truncated_checkpoint_a_change_and_a_signal(demo_shards, tmp_path):
    """One run that meets most of what can happen to it, in turn."""
    shards, folder = tmp_path / "demo", tmp_path / "work"
    shutil.copytree(demo_shards, shards)
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/requeued\n')
    scontrol.chmod(0o755)
    call = words(shards, "transformer", "--name=run", "--data.workers=1", steps=400)
    slurm = {"SLURM_JOB_ID": "71", "PATH": f"{scontrol.parent}:{os.environ['PATH']}"}
    alone = Launched(call, folder)
    alone.until(folder / STEP.format(3))
    second = Launched(call, folder)
    assert second.wait() == [1], text_of(second)
    busy = rf"another process \(pid {alone.processes[0].pid} on .*\) is writing runs/pretrain/run/0; wait until"
    assert re.search(busy, text_of(second))
    # As a terminal does: to all processes of the group.
    for pid in [*workers_of(alone), alone.processes[0].pid]:
        os.kill(pid, signal.SIGINT)
    assert alone.wait() == [130], text_of(alone)
    printed = [line for line in text_of(alone).splitlines() if line.startswith("ssl-audio: interrupted")]
    assert re.fullmatch(r"ssl-audio: interrupted; step \d+ is saved in .*last.ckpt; give the same .* resume", *printed)
    assert "Traceback" not in text_of(alone)
    saved = torch.load(folder / "runs/pretrain/run/0/checkpoints/last.ckpt", weights_only=True)["global_step"]

    told = Launched(call, folder, environment=slurm)
    told.until(folder / STEP.format(saved + 3 - saved % 3))
    # To the workers as well, as SLURM does.
    for pid in [*workers_of(told), told.processes[0].pid]:
        os.kill(pid, signal.SIGTERM)
    assert told.wait() == [75], text_of(told)
    assert re.search(
        r"told to stop by the machine; step \d+ is saved in .*last.ckpt; job 71 was requeued", text_of(told)
    )
    assert (tmp_path / "requeued").read_text() == "requeue 71\n"

    last = folder / "runs/pretrain/run/0/checkpoints/last.ckpt"
    whole = last.read_bytes()
    # Without workers, for they share memory in files.
    full = Launched([*call, "--data.workers=0"], folder, fault=functools.partial(small_disk, len(whole) // 2))
    assert full.wait() == [1], text_of(full)
    assert re.search(r"cannot write .*step-\d+.ckpt .*; the checkpoints before it are whole", text_of(full))
    assert last.read_bytes() == whole
    assert not list(last.parent.glob(".*"))
    aside = last.with_name("aside")
    aside.write_bytes(whole[: len(whole) // 2])
    aside.replace(last)
    found, damaged = newest_whole(last.parent)
    assert found is not None
    assert found.name.startswith("step-")
    assert "damaged" in damaged[0]

    other = Launched([*call, "--model.objective.temperature=0.2"], folder)
    assert other.wait() == [2]
    assert "is of another model (objective.init_args.temperature was 0.1, is 0.2)" in text_of(other)
    assert "damaged or no checkpoint" in text_of(other)
    manifest = json.loads((shards / "manifest.json").read_text())
    (shards / "manifest.json").write_text(json.dumps({**manifest, "licence": "another"}))
    changed = Launched(call, folder)
    assert changed.wait() == [1]
    assert "its manifest is not the one that the checkpoint was trained on" in text_of(changed)
    for path in last.parent.glob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="and no other in"):
        newest_whole(last.parent)


def test_one_dead_rank_ends_the_others_within_a_minute(demo_shards, tmp_path):
    launched = Launched(words(demo_shards, "transformer", "--name=run", steps=4000, ranks=2), tmp_path, ranks=2)
    launched.until(tmp_path / STEP.format(3))
    launched.processes[1].kill()
    codes = launched.wait(60.0)
    assert codes[0] not in (None, 0), text_of(launched)
    assert "ssl-audio: another rank has died" in text_of(launched)


def test_a_dead_worker_ends_the_run_with_the_clip_it_was_at(demo_shards, tmp_path):
    call = words(demo_shards, "transformer", "--name=run", "--data.workers=1", steps=4000)
    launched = Launched(call, tmp_path)
    launched.until(tmp_path / STEP.format(3))
    for worker in workers_of(launched):
        os.kill(worker, signal.SIGKILL)
    assert launched.wait(60.0) == [1], text_of(launched)
    assert "ssl-audio: a worker died" in text_of(launched)


def test_gradients_that_are_not_finite_are_left_out_until_there_are_too_many(demo_shards, tmp_path):
    call = words(demo_shards, "transformer", "--name=run", "--watch.limits.skipped_steps=2", steps=40)
    launched = Launched(call, tmp_path, fault=functools.partial(poison, (4, 7, 8)))
    assert launched.wait() == [1], text_of(launched)
    assert "3 steps had gradients that are not finite, more than the 2 of watch.limits.skip" in text_of(launched)
    run = tmp_path / "runs/pretrain/run/0"
    assert [alert["step"] for alert in read_alerts(run)] == [4, 7, 8]
    kept = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert kept["global_step"] == 8
    assert all(value.isfinite().all() for value in kept["state_dict"].values())
    # Going on does not give the budget anew.
    again = Launched(call, tmp_path, fault=functools.partial(poison, (10,)))
    assert again.wait() == [1], text_of(again)
    assert [alert["step"] for alert in read_alerts(run)] == [4, 7, 8, 10]


def test_a_worker_that_hangs_and_steps_that_slow_down_are_told(demo_shards, tmp_path):
    call = words(
        demo_shards, "transformer", "--name=run", "--data.workers=2", "--watch.limits.stall_seconds=0.5",
        f"--probe=[{{shards: {demo_shards}, targets: [keyword]}}]",
        "--watch.panel_steps=14", steps=16,
    )  # fmt: skip
    launched = Launched(call, tmp_path, fault=functools.partial(hang_and_slow_down, RUN, 9, 6.0))
    assert launched.wait() == [0], text_of(launched)
    run = tmp_path / RUN
    told = {alert["title"]: alert["text"] for alert in read_alerts(run)}
    assert set(told) == {"stalled", "slow"}
    assert re.search(r"no batch for \d+ s: worker [01] \(process \d+\) at .*/shard-\d+.tar:", told["stalled"])
    assert re.search(r"step \d+: .* clips/s, and were .* at best", told["slow"])
    panels = [values for _, values in read_rows(run / "metrics.csv") if "panel/rank_me" in values]
    assert len(panels) == 1
    assert 1 < panels[0]["panel/rank_me"] <= 64
    assert 0 <= panels[0]["panel/neighbours/keyword"] <= 1
    assert (run / "panel-00000014.png").stat().st_size > 100_000


def test_a_loss_that_rises_is_told_once(tmp_path):
    sent = []
    alerts = Alerts(tmp_path, Limits(), send=lambda title, text: sent.append(title))
    for step in range(40):
        alerts.see(step, loss=1.0 if step < 20 else 5.0, clips_per_second=100.0)
    assert sent == ["divergence"]
    # A kill in the middle of a line costs that line.
    with (tmp_path / FILE).open("a") as file:
        file.write('{"time": 1, "st')
    alerts.failed_look(41, "no clip")
    assert [alert["title"] for alert in read_alerts(tmp_path)] == ["divergence", "panel"]


def test_a_run_goes_on_without_weights_and_biases(demo_shards, tmp_path):
    nowhere = {
        "WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40, "WANDB_INIT_TIMEOUT": "1",
        "WANDB_BASE_URL": f"http://127.0.0.1:{free_port()}",
    }  # fmt: skip
    launched = Launched(words(demo_shards, "transformer", "--name=run", steps=3), tmp_path, environment=nowhere)
    assert launched.wait() == [0], text_of(launched)
    assert "cannot be reached" in text_of(launched)
