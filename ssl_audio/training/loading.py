"""Loading a checkpoint to resume from, with its values checked; no path that it contains is used."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ssl_audio.checkpoints.earlier import renamed
from ssl_audio.checkpoints.reading import read
from ssl_audio.errors import CheckpointError, SslAudioError

_FOLDER = "dirpath"
_PATHS = ("best_model_path", "last_model_path", "kth_best_model_path")
_SCORES = "best_k_models"
_VALUES = ("best_model_score", "kth_value", "current_score")
# States of training, and what each is a list or a dictionary of.
_LISTS = ("optimizer_states", "lr_schedulers")
_DICTIONARIES = ("state_dict", "loops", "callbacks", "AudioShards", "LabelledShards")
_COUNTS = ("epoch", "global_step", "clips", "seconds", "processed")
_AS_LARGE = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")


def load_training(path: Path, folder: Path | None, *, mmap: bool = False) -> dict[str, Any]:
    """A checkpoint to resume training from.

    Args:
        path: The file.
        folder: Folder of the run's checkpoints; None without a run.
        mmap: Leave the tensors in the file until they are used.

    Raises:
        CheckpointError: if it cannot be read, or its states of training are something else.
    """
    found = read(path, mmap=mmap)
    shards = [found.get(name) for name in ("AudioShards", "LabelledShards")]
    counted = [found, *(one for one in shards if isinstance(one, dict))]
    wrong = [name for name in _LISTS if not _are_dictionaries(found.get(name, []))]
    wrong += [name for name in _DICTIONARIES if not isinstance(found.get(name, {}), dict)]
    wrong += [name for one in counted for name in _COUNTS if not _is_count(one.get(name, 0))]
    wrong += [] if "state_dict" in found else ["state_dict"]
    if not wrong and not _are_dictionaries(list(found.get("callbacks", {}).values())):
        wrong = ["callbacks"]
    if wrong:
        raise CheckpointError(
            f"{path}: training cannot resume from its {wrong[0]}; the file is damaged, or was not written in training"
        )
    found["state_dict"] = renamed(found["state_dict"])
    for name, state in found.get("callbacks", {}).items():
        odd = [one for one in _VALUES if not isinstance(state.get(one), Tensor | None)]
        if odd:
            raise CheckpointError(f"{path}: {odd[0]} of {str(name)[:60]} is no score; the file is damaged")
        _forget_paths(state, beside=path, folder=folder)
    return found


def _are_dictionaries(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _forget_paths(state: dict[str, Any], *, beside: Path, folder: Path | None) -> None:
    """Keep of the paths that a callback saved only those of files in the run's own folder.

    A checkpoint of another run, which was named on the command line, may say which file beside it was the best: that
    is only read.
    """
    if not {_FOLDER, _SCORES, *_PATHS} & set(state):
        return
    home = Path(os.path.realpath(beside.parent))
    own = folder is not None and home == Path(os.path.realpath(folder))
    state[_FOLDER] = str(home)
    for name in _PATHS:
        if name in state:
            state[name] = _within(home, state[name]) if own or name == _PATHS[0] else ""
    if _SCORES in state:
        scores = state[_SCORES] if isinstance(state[_SCORES], dict) and own else {}
        kept = {_within(home, path): score for path, score in scores.items() if isinstance(score, Tensor)}
        state[_SCORES] = {path: score for path, score in kept.items() if path}


def _within(home: Path, path: Any) -> str:
    """The path of the file of that name in a folder; empty if there is none."""
    name = os.path.basename(path) if isinstance(path, str) and "\0" not in path else ""  # noqa: PTH119
    return str(home / name) if name not in ("", ".", "..") and (home / name).is_file() else ""


class _Started(Callback):
    """Records that everything was loaded, and finds mistakes that would only show in the first step."""

    def __init__(self) -> None:
        self.started = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for optimizer in trainer.optimizers:
            for parameter, state in optimizer.state.items():
                for name in _AS_LARGE:
                    found = state.get(name) if isinstance(state, Mapping) else None
                    if isinstance(found, Tensor) and found.shape != parameter.shape:
                        raise ValueError(f"{name} is {tuple(found.shape)}, its parameter {tuple(parameter.shape)}")
        self.started = True


@contextmanager
def resuming(trainer: L.Trainer, path: Path | None) -> Iterator[None]:
    """Report any failure while a checkpoint is loaded into a training as one line about the checkpoint.

    Raises:
        CheckpointError: if loading fails.
    """
    started = _Started()
    trainer.callbacks.append(started)  # type: ignore[attr-defined]
    try:
        yield
    except SslAudioError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if path is None or started.started:
            raise
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: cannot be resumed from ({type(error).__name__}: {reason}); it is damaged or of another version: "
            "take an earlier one, or begin a new run with --resume never"
        ) from error
