"""The folder of a run."""

import dataclasses
import json
import math
import platform
import re
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from ssl_audio import __version__
from ssl_audio.data.json_values import read_json
from ssl_audio.data.manifest import manifest_digest
from ssl_audio.errors import RecipeError, SslAudioError
from ssl_audio.names import printable
from ssl_audio.storing import store
from ssl_audio.training.resuming import newest_whole

RECIPE = "recipe.yaml"
SUMMARY = "summary.json"
METRICS = "metrics.csv"
START = "start.json"
"""What was found when the run was started, and what it must keep to: its weights, the decided number of steps."""


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """`runs/<verb>/<name>/<number>/`.

    Args:
        folder: Where it is.
        resume: The checkpoint to resume from, or None to start.
        damaged: Why newer checkpoints cannot be resumed from.
    """

    folder: Path
    resume: Path | None = None
    damaged: tuple[str, ...] = ()

    @property
    def checkpoints(self) -> Path:
        """Folder of its checkpoints."""
        return self.folder / "checkpoints"

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.checkpoints / "last.ckpt"

    @property
    def started(self) -> bool:
        """Whether anything was computed that resuming would keep: a checkpoint or a result."""
        return any(True for name in ("last.ckpt", "step-*.ckpt", "outcome.json") for _ in self.folder.rglob(name))

    def save_recipe(self, recipe: dict[str, Any]) -> None:
        """Write the whole recipe, so that the run can be repeated from its folder alone."""
        self.write(RECIPE, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))

    def save_summary(self, summary: dict[str, Any]) -> None:
        """Write the summary; a run that has one is finished."""
        self.write(SUMMARY, json_text(summary))

    def summary(self) -> dict[str, Any] | None:
        """The summary, if the run is finished.

        Raises:
            SslAudioError: if it is damaged.
        """
        return self.read(SUMMARY)

    def note_start(self, facts: dict[str, Any]) -> None:
        """Add what was found at the start, beside what is noted already."""
        self.write(START, json_text({**(self.read(START) or {}), **facts}))

    def read(self, name: str) -> dict[str, Any] | None:
        """What a JSON file of the run says; None where it is missing.

        Raises:
            SslAudioError: if it cannot be read, or holds something other than values by name.
        """
        path = self.folder / name
        try:
            found = read_json(path.read_bytes())
            if not isinstance(found, dict):
                raise TypeError(f"holds a {type(found).__name__}")
        except FileNotFoundError:
            return None
        except (OSError, TypeError, ValueError) as error:
            raise SslAudioError(
                f"{path}: is no {path.stem} of a run ({type(error).__name__}); expected what the verbs write: remove "
                "the run, or begin another with --name"
            ) from error
        return found

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file of the run, whole or not at all.

        Raises:
            SslAudioError: if the folder cannot be written to.
        """
        try:
            store(self.folder / name, content)
        except OSError as error:
            raise SslAudioError(
                f"cannot write {self.folder / name} ({error.strerror}); free disk space or choose another path "
                "with --runs"
            ) from error


def json_text(value: Any) -> str:
    """JSON that every reader accepts: NaN and infinity become null."""
    return json.dumps(_finite(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_name(name: str) -> str:
    """The name of a run, if it can be that of a folder.

    Raises:
        RecipeError: if it cannot.
    """
    if not name or name in (".", "..") or re.search(r"[/\\\0]", name):
        raise RecipeError(f"name {printable(name)[:100]!r}: expected the name of a folder, without slashes")
    return name


def run_folder(root: Path, verb: str, name: str, *, resume: str = "auto") -> Path:
    """The folder of the run to resume, or of the next number.

    Args:
        root: Folder of all runs.
        verb: `pretrain`, `finetune`.
        name: Name of the run.
        resume: `auto` resumes the newest run of the name if it is unfinished; anything else starts a new one.
    """
    runs = numbered(root / verb / name)
    if resume == "auto" and runs and runs[-1].summary() is None:
        return runs[-1].folder
    return root / verb / name / str(int(runs[-1].folder.name) + 1 if runs else 0)


def open_run(folder: Path, *, resume: str = "auto") -> Run:
    """A run, and the checkpoint that it resumes from.

    Args:
        folder: Its folder.
        resume: `auto` resumes from the newest whole checkpoint in it, if there is one; `never` starts; a path resumes
            from that checkpoint.

    Raises:
        SslAudioError: if the checkpoint to resume from is not there.
        CheckpointError: if the run has checkpoints and none is whole.
    """
    run = Run(folder)
    if resume == "never":
        return run
    if resume != "auto":
        if not Path(resume).is_file():
            raise SslAudioError(f"--resume {resume}: no such checkpoint; expected auto, never or a checkpoint file")
        return dataclasses.replace(run, resume=Path(resume))
    found, damaged = newest_whole(run.checkpoints)
    return dataclasses.replace(run, resume=found, damaged=tuple(damaged))


def numbered(folder: Path) -> list[Run]:
    """The runs of a name, oldest first."""
    if not folder.is_dir():
        return []
    return [
        Run(path)
        for path in sorted(
            (path for path in folder.iterdir() if path.is_dir() and path.name.isdecimal()),
            key=lambda path: int(path.name),
        )
    ]


def circumstances(shards: Sequence[Path | str], device: torch.device) -> dict[str, Any]:
    """What a result depends on besides the recipe: data, code, versions and machine."""
    return {
        "version": __version__,
        "commit": _commit(),
        "data": {Path(source).name: manifest_digest(source) for source in shards},
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in ("torch", "lightning", "numpy", "soundfile")},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
    }


def _commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def _processor() -> str:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return str(capabilities.get("cpu_name") or platform.processor() or platform.machine())
