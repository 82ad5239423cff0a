"""Runs of `ssl-audio pretrain` and `finetune` in processes of their own, which can be killed at any moment."""

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CONTEXT = multiprocessing.get_context("forkserver")
# Whatever takes long to import is imported once, in the process that the others are forked from.
PRELOAD = ["ssl_audio.cli.pretrain", "ssl_audio.cli.finetune", "ssl_audio.training.checkpointing", "lightning.pytorch"]
ENCODERS = {
    "transformer": {
        "class_path": "ssl_audio.model.encoders.Transformer",
        "init_args": {"width": 32, "depth": 2, "heads": 2},
    },
    # Stochastic depth draws from torch's own generator.
    "bimamba": {
        "class_path": "ssl_audio.model.encoders.BiMamba",
        "init_args": {"width": 32, "depth": 2, "drop_path": 0.3},
    },
}


def words(shards: Path, encoder: str = "transformer", *options: str, steps: int = 12, ranks: int = 1) -> list[str]:
    """A small run with validation, a plateau schedule and a checkpoint every three steps."""
    return [
        "pretrain", f"--config={ROOT}/recipes/pretrain/demo.yaml", f"--data.shards=[{shards}]",
        f"--model.backbone.encoder={ENCODERS[encoder]}", "--probe=[]",
        "--model.objective.decoder.init_args={width: 16, depth: 1, heads: 1}",
        "--model.schedule=ssl_audio.training.optimisation.StaircasePlateau",
        "--model.schedule.init_args={warmup_steps: 2, stair_steps: 1, patience: 0}",
        "--data.global_clips=8", "--data.workers=0", "--data.validation_split=valid", "--trainer.limit_val_batches=1",
        "--trainer.val_check_interval=4", "--checkpoints.every_steps=3", "--trainer.precision=32-true",
        "--trainer.log_every_n_steps=1", f"--trainer.max_steps={steps}", "--trainer.accelerator=cpu",
        f"--trainer.devices={ranks}", *options,
    ]  # fmt: skip


def task_words(shards: Path, encoder: str = "transformer", *options: str, steps: int = 12, ranks: int = 1) -> list[str]:
    """A small fine-tuning with all that draws or remembers: mixing, averages of weights, validation, patience."""
    return [
        "finetune", f"--config={ROOT}/recipes/finetune/demo_event.yaml", f"--data.shards=[{shards}]",
        "--checkpoint=none", f"--model.backbone.encoder={ENCODERS[encoder]}",
        "--model.backbone.frontend=ssl_audio.audio.fbank.Fbank", "--adaptation.frames=128",
        "--data.crop_seconds=1.295", "--data.crop=random", "--data.global_clips=8", "--data.workers=0",
        "--model.augmentation.mixup=0.5", "--average_from_epoch=1", "--patience=50", "--checkpoints.every_steps=3",
        "--trainer.precision=32-true", "--trainer.log_every_n_steps=1", f"--trainer.max_steps={steps}",
        "--trainer.accelerator=cpu", f"--trainer.devices={ranks}", *options,
    ]  # fmt: skip


WORDS = {"pretrain": words, "finetune": task_words}


class Launched:
    """The processes of a run.

    Args:
        call: Words for `ssl-audio`.
        folder: Where it runs.
        ranks: How many processes.
        threads: Threads of each.
        environment: Variables beside those that torchrun would set.
        fault: Called in each process before the run begins; see `faults`.
    """

    def __init__(
        self,
        call: list[str],
        folder: Path,
        *,
        ranks: int = 1,
        threads: int = 1,
        environment: dict[str, str] | None = None,
        fault: Callable[[], None] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log"
        shared = {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
        shared |= environment or {}
        if ranks > 1:
            shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
            shared |= {"TORCHELASTIC_RUN_ID": "test", "LOCAL_WORLD_SIZE": str(ranks), "GROUP_RANK": "0"}
        self.processes: list[Any] = []
        begin_server()
        for rank in range(ranks):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}
            given = (call, shared | own, str(folder), str(self.log), threads, fault)
            process = CONTEXT.Process(target=_run, args=given)
            process.start()
            self.processes.append(process)

    def wait(self, seconds: float = 120.0) -> list[int | None]:
        """Exit codes; a process that is still there then is killed and has None."""
        end = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        self.kill()
        return codes

    def kill(self) -> None:
        """SIGKILL for all of them."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()

    def until(self, path: Path, *, seconds: float = 60.0) -> None:
        """Wait for a file."""
        end = time.monotonic() + seconds
        while not path.exists():
            assert time.monotonic() < end, self.log.read_text()[-2000:]
            assert any(process.is_alive() for process in self.processes), self.log.read_text()[-2000:]
            time.sleep(0.002)


def begin_server() -> None:
    """Begin the server that `CONTEXT` forks from, without the checks of shapes.

    One that the code under test began ends: each of these processes would import all of `PRELOAD` again.
    """
    server: Any = forkserver._forkserver  # type: ignore[attr-defined]
    if server._forkserver_pid is None or server._forkserver_pid != getattr(server, "of_these_tests", None):
        server._stop()
        CONTEXT.set_forkserver_preload(PRELOAD)
        server.ensure_running()
        server.of_these_tests = server._forkserver_pid


def _run(
    call: list[str],
    environment: dict[str, str],
    folder: str,
    log: str,
    threads: int,
    fault: Callable[[], None] | None,
) -> None:
    # The server that forked this process may have been started while its parent held signals back.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    os.environ.update(environment)
    os.chdir(folder)
    with open(log, "a") as file:  # noqa: PTH123
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # Workers begin as they do from the command line; as forked servers of their own they would import all again.
    multiprocessing.set_start_method("fork", force=True)
    import torch

    from ssl_audio.cli import main
    from ssl_audio.experiments import pretrain

    torch.set_num_threads(threads)
    # Pictures take longer than these runs.
    pretrain.assess = lambda this, module, data, summary, **_: this.save_summary(summary) or ""
    if fault is not None:
        fault()
    main(call)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def outcome(run: Path) -> tuple[dict[str, Any], list[tuple[int, dict[str, float]]], dict[str, Any]]:
    """Weights, metrics and optimizer states of a run."""
    import torch

    from ssl_audio.training.metrics_log import read_rows

    content = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    timed = ("watch/",)
    rows = [
        (step, {name: value for name, value in values.items() if not name.startswith(timed)})
        for step, values in read_rows(run / "metrics.csv")
    ]
    return content["state_dict"], [row for row in rows if row[1]], content["optimizer_states"]


def same(one: Any, other: Any) -> bool:
    """Bit for bit."""
    import torch

    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
