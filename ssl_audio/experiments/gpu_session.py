"""Measuring on a GPU that is lent for minutes: parts in order of value, each with its own limit and its own files."""

import contextlib
import dataclasses
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import ssl_audio
from ssl_audio import __version__
from ssl_audio.data.json_values import read_json
from ssl_audio.errors import RecipeError, SslAudioError
from ssl_audio.experiments.display import TERMINAL, Display
from ssl_audio.experiments.gpu_parts import Part, parts
from ssl_audio.experiments.output_files import claimed, write_text

SESSION = "session.json"
PAGE = "gpu.md"
SHORTEST_SECONDS = 5.0
"""Parts that would have less time are left for the next session."""
GRACE_SECONDS = 10.0
"""Of a part that is asked to end, before it is killed."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a part.

    Args:
        state: `done`, `failed`, `out of time` or `missing`.
        seconds: That it took.
        reason: Why it is not done.
    """

    state: str
    seconds: float = 0.0
    reason: str = ""


def measure_gpu(
    out: Path,
    *,
    minutes: float,
    device: str,
    shards: Sequence[Path] = (),
    only: Sequence[str] = (),
    rehearsal: bool = False,
    display: Display = TERMINAL,
) -> dict[str, Outcome]:
    """Run the parts, each in a process of its own, and write what they found after each.

    A part may take its share of the time that is left, by the weights of the parts that are left. Parts that a
    session in this folder has done on the same kind of device are not repeated.

    Args:
        out: Folder of the session: `session.json`, `gpu.md`, and for each part its figures and what it printed.
        minutes: For all parts together.
        device: `cuda` or `cpu`.
        shards: Folders to pretrain from; by default the demo corpus, which is written first.
        only: Names of the only parts to run, again if they are done.
        rehearsal: The smallest sizes of everything, to try the code.
        display: Shows a line for each part.

    Returns:
        What became of each part.

    Raises:
        RecipeError: if a part of that name does not exist.
        SslAudioError: if the folder holds the session of another device, or cannot be written.
    """
    planned = parts(device=device, shards=[path.absolute() for path in shards], rehearsal=rehearsal)
    names = [part.name for part in planned]
    for name in only:
        if name not in names:
            raise RecipeError(f"--only: no part {name!r}; expected some of {', '.join(names)}")
    out = out.absolute()
    with claimed(out / SESSION):
        machine = machine_facts(device) | {"rehearsal": rehearsal}
        found = _read(out, machine)
        waiting = [part for part in planned if (part.name in only if only else _open(found.get(part.name)))]
        ends = time.monotonic() + minutes * 60
        while waiting:
            part = waiting.pop(0)
            left = ends - time.monotonic()
            limit = left * part.weight / (part.weight + sum(other.weight for other in waiting))
            if part.missing:
                outcome = Outcome(state="missing", reason=part.missing)
            elif limit < SHORTEST_SECONDS:
                display.line(
                    f"{part.name}: not started, {max(left, 0):.0f} s are left; give the same command again to resume"
                )
                break
            else:
                display.line(f"{part.name}: {part.title}, at most {limit:.0f} s")
                outcome = _run(part, out, limit, rehearsal=rehearsal)
            found[part.name] = outcome
            words = outcome.state + (f" ({outcome.reason})" if outcome.reason else "")
            display.line(f"{part.name}: {words}, {outcome.seconds:.0f} s")
            _write(out, machine, planned, found)
        _write(out, machine, planned, found)
    return found


def _open(outcome: Outcome | None) -> bool:
    return outcome is None or outcome.state != "done"


def machine_facts(device: str) -> dict[str, Any]:
    """What the figures depend on."""
    facts: dict[str, Any] = {
        "device": device,
        "ssl_audio": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processors": os.cpu_count(),
    }
    with contextlib.suppress(ImportError):
        import triton

        facts["triton"] = triton.__version__
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        facts |= {"card": card.name, "memory_gib": round(card.total_memory / 2**30, 1), "cuda": torch.version.cuda}
    return facts


def _run(part: Part, out: Path, limit: float, *, rehearsal: bool) -> Outcome:
    """Run a part in a group of processes that ends with its limit."""
    log = out / f"{part.name}.txt"
    training = max(1, round(limit * 0.6))
    filled = {
        "json": out / f"{part.name}.json",
        "runs": out / "runs",
        "minutes": f"{training / 60:.4f}",
        "time": f"00:{training // 3600:02d}:{training % 3600 // 60:02d}:{training % 60:02d}",
        "demo": out / "demo",
    }
    started = time.monotonic()
    root = str(Path(ssl_audio.__file__).parents[1])
    inherited = os.environ.get("PYTHONPATH")
    environment = os.environ | {
        "PYTHONPATH": f"{root}{os.pathsep}{inherited}" if inherited else root,
        "PYTHONUNBUFFERED": "1",
        "WANDB_MODE": "disabled",
        "SSL_AUDIO_REHEARSAL": "1" if rehearsal else "0",
    }
    code: int | None = 0
    if any("{demo}" in word for word in part.words) and not (out / "demo" / "manifest.json").exists():
        write = [sys.executable, "-m", "ssl_audio", "shards", "write", "--corpus=demo", "--size=small"]
        code = _within([*write, f"--out={out / 'demo'}"], log, environment, limit)
    if code == 0:
        rest = limit - (time.monotonic() - started)
        code = _within([word.format(**filled) for word in part.words], log, environment, rest)
    seconds = time.monotonic() - started
    if code is None:
        return Outcome(state="out of time", seconds=seconds, reason=f"stopped after {limit:.0f} s")
    if code != 0:
        return Outcome(state="failed", seconds=seconds, reason=f"exit code {code}: {_last_line(log)}")
    return Outcome(state="done", seconds=seconds)


def _within(words: list[str], log: Path, environment: dict[str, str], limit: float) -> int | None:
    """The exit code of a command whose output goes to a file; None if it was stopped at the limit."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait(timeout=max(limit, 0.1))
        except subprocess.TimeoutExpired:
            return None
        finally:
            for kind in (signal.SIGTERM, signal.SIGKILL):
                # What it left running too, such as workers.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, kind)
                if process.poll() is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(timeout=GRACE_SECONDS)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it printed nothing"


def _read(out: Path, machine: dict[str, Any]) -> dict[str, Outcome]:
    path = out / SESSION
    if not path.exists():
        return {}
    try:
        stored = read_json(path.read_bytes())
        earlier = {name: stored["machine"].get(name) for name in ("device", "card", "rehearsal")}
        found = {
            str(name): Outcome(
                state=str(values["state"]), seconds=float(values["seconds"]), reason=str(values["reason"])
            )
            for name, values in stored["parts"].items()
        }
    except (TypeError, KeyError, AttributeError, ValueError, OSError) as error:
        raise SslAudioError(f"{path}: not a session of `bench gpu` ({error}); give another --out") from error
    now = {name: machine.get(name) for name in earlier}
    if earlier != now:
        raise SslAudioError(f"{out} holds a session of {earlier}, this would be one of {now}; give another --out")
    return found


def _write(out: Path, machine: dict[str, Any], planned: Sequence[Part], found: dict[str, Outcome]) -> None:
    states = {name: dataclasses.asdict(outcome) for name, outcome in found.items()}
    figures: dict[str, Any] = {}
    for part in planned:
        with contextlib.suppress(ValueError, OSError):  # not written yet
            figures[part.name] = read_json((out / f"{part.name}.json").read_bytes())
    stored = {"machine": machine, "parts": states, "figures": figures}
    write_text(out / SESSION, json.dumps(stored, indent=1) + "\n")
    write_text(out / PAGE, _page(out, machine, planned, found))


def _page(out: Path, machine: dict[str, Any], planned: Sequence[Part], found: dict[str, Outcome]) -> str:
    """What each part printed, under its title."""
    facts = ", ".join(f"{name} {value}" for name, value in machine.items() if value not in (False, None))
    lines = ["# Measured on a GPU" if machine["device"] == "cuda" else "# Rehearsal without a GPU", "", f"{facts}.", ""]
    for part in planned:
        outcome = found.get(part.name)
        state = "not reached" if outcome is None else outcome.state
        reason = f": {outcome.reason}" if outcome is not None and outcome.reason else ""
        took = f", {outcome.seconds:.0f} s" if outcome is not None and outcome.seconds else ""
        lines += [f"## {part.name}", "", f"{part.title[0].upper()}{part.title[1:]} ({state}{took}){reason}.", ""]
        log = out / f"{part.name}.txt"
        if log.exists() and outcome is not None:
            text = log.read_text(encoding="utf-8", errors="replace").replace(str(out), "OUT").rstrip()
            # Of progress that overwrites its line, what stayed.
            kept = [line.rsplit("\r", 1)[-1].rstrip() for line in text.splitlines()]
            lines += ["```", *[line.replace("```", "'''") for line in kept[-80:]], "```", ""]
    return "\n".join(lines)
