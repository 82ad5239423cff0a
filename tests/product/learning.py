"""Every method of continual learning on a minute model with a part exchanged: two tasks, learnt one after the other."""

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from product import trial
from product.parts import Part, names_of, path_of
from torch import Tensor

from ssl_audio.checkpoints.adaptation import load_backbone
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.data.batch import Batch
from ssl_audio.experiments.continual_methods import Adapters, Analytic, Method, Stage
from ssl_audio.objectives import Objective

TASKS = ("first", "second")
ADAPTERS = "lora_all"
"""A recipe with a place on every encoder."""


def methods() -> list[Method]:
    """One of every class: found, not listed."""
    found, waiting = [], [Method]
    while waiting:
        kind = waiting.pop()
        waiting += sorted(kind.__subclasses__(), key=lambda one: one.__name__, reverse=True)
        if kind is not Method and kind.__module__.startswith("ssl_audio."):
            found.append(kind(adapters=ADAPTERS) if kind in (Adapters, Analytic) else kind())  # type: ignore[call-arg]
    return found


def adapters_in(parts: dict[str, list[Part]]) -> Part:
    """The part that `ADAPTERS` names."""
    return next(part for part in parts["adapters"] if part.name == ADAPTERS)


class Learner:
    """What a stage of a method needs, with trainings of one step.

    Args:
        chosen: A part for every axis.
        adapters: The part of the recipe that `ADAPTERS` names.
        files: See `trial.workplace`.
    """

    def __init__(self, chosen: dict[str, Part], adapters: Part, files: Path) -> None:
        self.chosen, self.adapters, self.files = chosen, adapters, files
        self.count = itertools.count()
        self.said: dict[Path, Tensor] = {}
        self.base = files / "start.ckpt"
        torch.save(trial.Model.of(chosen, files).content(), self.base)

    def train(
        self, tasks: tuple[str, ...], *, checkpoint: Path, adapters: str | None = None, options: Any = None
    ) -> Path:
        """One step from a checkpoint; returns that of the task."""
        chosen, files = dict(self.chosen), self.files
        if adapters is not None:
            chosen["adapters"] = self.adapters
        objective = (options or {}).get("model.objective")
        if objective is not None:
            inner = {"class_path": path_of(names_of(Objective)["Classification"]), "init_args": {}}
            given = objective["init_args"]
            files = Path(tempfile.mkdtemp(dir=self.files))
            shutil.copy(*given["earlier"], files / "earlier.ckpt")
            shutil.copy(*given["clips"], files / "clips.safetensors")
            given = {**given, "earlier": ["EARLIER"], "clips": ["CLIPS"], "objective": inner}
            chosen["objective"] = Part("objective", "Rehearsal", {**objective, "init_args": given}, ())
        model = trial.Model.of(chosen, files)
        load_backbone(model.backbone, open_checkpoint(checkpoint))
        model.before.update({name: one.clone() for name, one in model.backbone.state_dict().items()})
        model.step()
        path = self.files / f"learnt{next(self.count)}.ckpt"
        torch.save(model.content(), path)
        with torch.inference_mode():
            spectrogram = model.backbone.spectrogram(*trial.clips_of(self.chosen))
            said = trial.answer_of(model.backbone, model.objective, spectrogram).clips
        assert said is not None
        self.said[path] = said.softmax(dim=1)
        return path

    def stage(self, tasks: tuple[str, ...], learnt: dict[str, Path], computed: dict[Any, Any]) -> Stage:
        """A stage whose tasks all have the same three clips in every part."""
        data = SimpleNamespace(parts=_PARTS, several=False, every=self._every)
        blank: Any = {task: SimpleNamespace(data=data) for task in tasks}
        return Stage(tasks=tasks, base=self.base, seed=0, train=self.train, blank=blank, folder=self.files,
                     learnt=learnt, computed=computed)  # fmt: skip

    def _every(self, part: Any, *, replacing: bool = False) -> Iterator[Batch]:
        waveforms, samples = trial.clips_of(self.chosen)
        rows = part.rows
        numbers = torch.arange(len(waveforms))
        yield Batch(waveforms[rows], None if samples is None else samples[rows], numbers[rows], numbers[rows] * 1000,
                    tuple("abc"[row] for row in rows), targets=torch.eye(len(trial.LABELS))[rows])  # fmt: skip


class _Clips:
    """Some of the three clips, as `Part` of labelled data has them."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows
        self.index = SimpleNamespace(key=[f"clip{row}" for row in rows])
        self.speakers = np.array([""] * len(rows))
        self.targets = np.eye(len(trial.LABELS), dtype=bool)[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, rows: np.ndarray) -> "_Clips":
        return _Clips([self.rows[row] for row in rows])


_ALL = _Clips([0, 1, 2])
_PARTS = SimpleNamespace(labels=list(trial.LABELS), train=_ALL, valid=_ALL, test=_ALL)


def attempt(method: Method, chosen: dict[str, Part], adapters: Part, files: Path) -> None:
    """Learn two tasks, and answer for both with the task known and unknown.

    Raises:
        BrokenError: if an answer is not finite, if the file of a task answers otherwise than the model that was
            trained, or if a method whose tasks do not depend on each other forgets one.
        SslAudioError: if the method and a part do not go together.
    """
    learner = Learner(chosen, adapters, files)
    learnt: dict[str, Path] = {}
    computed: dict[Any, Any] = {}
    first: np.ndarray | None = None
    for count in (1, 2):
        stage = learner.stage(TASKS[:count], learnt, computed)
        learnt[stage.task] = method.learn(stage)
        for task in stage.tasks:
            known = method.known(stage, task).scores
            scores = method.unknown(stage, task, list(stage.tasks))
            if not np.isfinite(known).all() or not np.isfinite(scores).all():
                raise trial.BrokenError("a score is not finite")
            if known.shape != (3, len(trial.LABELS)) or scores.shape != (3, count * len(trial.LABELS)):
                raise trial.BrokenError(f"scores of {known.shape} and {scores.shape}")
            if task == stage.task and method.tested and not np.array_equal(known, learner.said[learnt[task]].numpy()):
                raise trial.BrokenError("the file of a task answers otherwise than the model that was trained")
            if task == TASKS[0]:
                first = known if first is None else first
                computed = {} if count == 1 else computed  # ask again, not what was kept
                if count == 2 and not method.ordered and not np.array_equal(known, first):
                    raise trial.BrokenError("a task is forgotten, though no other changes its files")
        if method.stored_bytes(stage) <= 0:
            raise trial.BrokenError("nothing is stored")
