"""Methods of continual learning: what is trained for each task of a sequence, and what then answers for all of them."""

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse.typing import PositiveFloat, PositiveInt

from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.checkpoints.rehearsal import rows_per_label, save_clips
from ssl_audio.data.labelled import LabelledShards
from ssl_audio.data.labels import Part
from ssl_audio.evaluation.analytic import AnalyticClassifier
from ssl_audio.evaluation.predictions import Predictions
from ssl_audio.experiments.continual_models import TaskModel, model_of, opened
from ssl_audio.experiments.values import OptionValue

Train = Callable[..., Path]
"""Trains a task and gives its tested checkpoint: from the tasks so far, and `checkpoint`, `adapters` and `options`."""
Scores = np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A task that is learnt after others.

    Args:
        tasks: The tasks so far, in their order; the last is the one that is learnt.
        base: Checkpoint that every method begins at.
        seed: Of everything random.
        train: See `Train`.
        blank: Of each task, its data and head on the base, before it is learnt.
        folder: Where a method may keep files of its own.
        learnt: Checkpoints of the tasks so far; without the last until it was learnt.
        computed: What was computed of them already, by names of the method's own.
    """

    tasks: tuple[str, ...]
    base: Path
    seed: int
    train: Train
    blank: dict[str, TaskModel]
    folder: Path
    learnt: dict[str, Path] = dataclasses.field(default_factory=dict)
    computed: dict[Any, Any] = dataclasses.field(default_factory=dict)

    @property
    def task(self) -> str:
        """What is learnt."""
        return self.tasks[-1]

    @property
    def past(self) -> tuple[str, ...]:
        """The tasks before."""
        return self.tasks[:-1]

    def data(self, task: str) -> LabelledShards:
        """The clips of a task."""
        return self.blank[task].data

    def open(self, task: str) -> Checkpoint:
        """The checkpoint of a task."""
        return opened(self.learnt[task], base=self.base)

    def once(self, name: Any, compute: Callable[[], Any]) -> Any:
        """What was computed under a name, computed at first use."""
        if name not in self.computed:
            self.computed[name] = compute()
        return self.computed[name]


class Method(ABC):
    """How the tasks of a sequence are learnt.

    Args:
        options: Options of `finetune` by name, for all of its trainings.

    Attributes:
        ordered: What is known of a task depends on which tasks were learnt before and after it; otherwise its files
            stay as they are, and it is as well known at the end as it was when it had been learnt.
        tested: The training of a task has tested what answers for it right after it was learnt.
        rehearsed: Clips of each earlier task that are learnt again in every step.
        adapters: Recipe of `recipes/adapters` that its trainings use.
    """

    ordered: bool = False
    tested: bool = True
    rehearsed: int = 0
    adapters: str | None = None

    def __init__(self, *, options: dict[str, OptionValue] | None = None) -> None:
        self.options: dict[str, Any] = dict(options or {})

    @abstractmethod
    def learn(self, stage: Stage) -> Path:
        """Train for the last task of a stage; returns its checkpoint."""

    def known(self, stage: Stage, task: str) -> Predictions:
        """What is said of the test clips of a task, of which it is known that they are of this task."""
        return self.model(stage, task).test()

    def unknown(self, stage: Stage, task: str, among: list[str]) -> Scores:
        """Scores of the test clips of a task for the labels of all these tasks, one after the other: the most confident
        of them answers, whatever its task.
        """

        def of(one: str) -> Scores:
            name = ("unknown", self.identity(stage, one), task)
            return stage.once(name, lambda: self.model(stage, one).probabilities(stage.data(task)))

        return np.concatenate([of(one) for one in among], axis=1)

    def model(self, stage: Stage, task: str) -> TaskModel:
        """What answers for a task that was learnt."""
        identity = self.identity(stage, task)
        return stage.once(("model", identity), lambda: model_of(stage.open(task), stage.data(task)))

    def identity(self, stage: Stage, task: str) -> Any:
        """What tells the model of a task from others."""
        return task

    def backbone(self, stage: Stage) -> Checkpoint | None:
        """What a task after this stage begins at; None is the base."""
        return None

    def stored_bytes(self, stage: Stage) -> int:
        """What is kept for a task besides the base, in the mean over the tasks of a stage."""
        return sum(path.stat().st_size for path in stage.learnt.values()) // len(stage.learnt)

    def described(self) -> dict[str, Any]:
        """Class and options."""
        kind, names = type(self), inspect.signature(type(self)).parameters
        path = f"{kind.__module__}.{kind.__qualname__}"
        return {"class_path": path, "init_args": {name: getattr(self, name) for name in names}}


class Adapters(Method):
    """A set of adapters, a head and positions for each task, on a base that never changes.

    Args:
        adapters: Recipe of `recipes/adapters`; `linear` learns the head alone.
        options: See `Method`.

    Source: arXiv 2302.14314 (with `conv_pass`).
    """

    def __init__(self, *, adapters: str, options: dict[str, OptionValue] | None = None) -> None:
        super().__init__(options=options)
        self.adapters: str = adapters

    def learn(self, stage: Stage) -> Path:
        return stage.train((stage.task,), checkpoint=stage.base, adapters=self.adapters)


class Separate(Method):
    """A whole model for each task, each from the base: what can be reached, at the price of as many models."""

    def learn(self, stage: Stage) -> Path:
        return stage.train((stage.task,), checkpoint=stage.base)


class Sequential(Method):
    """One backbone, trained whole on one task after the other; each task keeps the head that it was learnt with."""

    ordered = True

    def learn(self, stage: Stage) -> Path:
        return stage.train(stage.tasks, checkpoint=stage.learnt[stage.past[-1]] if stage.past else stage.base)

    def model(self, stage: Stage, task: str) -> TaskModel:
        def on_the_last() -> TaskModel:
            own = super(Sequential, self).model(stage, task)
            return own if task == stage.task else own.on(stage.open(stage.task))

        return stage.once(("model", self.identity(stage, task), stage.tasks), on_the_last)

    def identity(self, stage: Stage, task: str) -> Any:
        return task, stage.tasks

    def backbone(self, stage: Stage) -> Checkpoint | None:
        return stage.open(stage.task)

    def stored_bytes(self, stage: Stage) -> int:
        """Of the one model, shared by the tasks."""
        return max(path.stat().st_size for path in stage.learnt.values()) // len(stage.learnt)


class Replay(Sequential):
    """As `Sequential`, with clips of the earlier tasks beside those of each new one.

    Args:
        clips_per_label: Clips kept of each label of a task.
        batch_clips: Clips of each earlier task in every step.
        weight: Of the mean loss of the earlier tasks.
        options: See `Method`.
    """

    def __init__(
        self,
        *,
        clips_per_label: PositiveInt = 5,
        batch_clips: PositiveInt = 8,
        weight: PositiveFloat = 1.0,
        options: dict[str, OptionValue] | None = None,
    ) -> None:
        super().__init__(options=options)
        self.clips_per_label = int(clips_per_label)
        self.batch_clips = self.rehearsed = int(batch_clips)
        self.weight = float(weight)

    def learn(self, stage: Stage) -> Path:
        if not stage.past:
            return super().learn(stage)
        heads = [stage.learnt[task] for task in stage.past]
        options = {
            "earlier": [str(path) for path in heads],
            "clips": [str(self._memory(stage, task)) for task in stage.past],
            "batch_clips": self.batch_clips,
            "weight": self.weight,
        }
        objective = {"class_path": "ssl_audio.checkpoints.rehearsal.Rehearsal", "init_args": options}
        return stage.train(stage.tasks, checkpoint=heads[-1], options={"model.objective": objective})

    def _memory(self, stage: Stage, task: str) -> Path:
        """The kept clips of a task, written when they are first needed."""
        path = stage.folder / f"{task}_{stage.seed}_{self.clips_per_label}.safetensors"
        if not path.exists():
            data = stage.data(task)
            part = data.parts.train
            rows = rows_per_label(part.targets, self.clips_per_label, seed=stage.seed)
            save_clips(path, list(data.every(part.select(rows), replacing=True)))
        return path

    def stored_bytes(self, stage: Stage) -> int:
        """Of the one model and the kept clips."""
        kept = sum(self._memory(stage, task).stat().st_size for task in stage.tasks)
        return super().stored_bytes(stage) + kept // len(stage.tasks)


class Analytic(Method):
    """Ridge regression on the features of a backbone that adapts to the first task and then stays as it is.

    One classifier for the labels of all tasks, updated in closed form, answers where the task is not known; else
    one of the task alone.

    Args:
        adapters: Recipe of `recipes/adapters` for the first task; `full` trains everything, `linear` nothing.
        expansion: Random features; see `AnalyticClassifier`.
        options: See `Method`.

    Source: arXiv 2602.03355 (PACE: first-session adaptation and an analytic classifier, for audio); arXiv 2303.13199
        (first-session adaptation); arXiv 2205.14922 (analytic classifier).
    Differs: PACE limits which layers adapt and aligns subspaces later; here the recipe of the adapters decides.
    """

    ordered, tested = True, False

    def __init__(
        self,
        *,
        adapters: str = "conv_pass",
        expansion: PositiveInt | None = None,
        options: dict[str, OptionValue] | None = None,
    ) -> None:
        super().__init__(options=options)
        self.adapters: str = adapters
        self.expansion = None if expansion is None else int(expansion)

    def learn(self, stage: Stage) -> Path:
        if stage.past:
            return stage.learnt[stage.past[0]]
        return stage.train(stage.tasks, checkpoint=stage.base, adapters=self.adapters)

    def known(self, stage: Stage, task: str) -> Predictions:
        found = self._classifier(stage, [task])
        return predictions_of(stage.data(task), found.scores(self._features(stage, task, "test")[0]))

    def unknown(self, stage: Stage, task: str, among: list[str]) -> Scores:
        return self._classifier(stage, among).scores(self._features(stage, task, "test")[0])

    def backbone(self, stage: Stage) -> Checkpoint | None:
        return stage.open(stage.tasks[0])

    def stored_bytes(self, stage: Stage) -> int:
        """Of the adapted backbone's file and the sums of the classifier."""
        found = self._classifier(stage, list(stage.tasks))
        return (stage.learnt[stage.tasks[0]].stat().st_size + found.bytes) // len(stage.tasks)

    def _classifier(self, stage: Stage, tasks: list[str]) -> AnalyticClassifier:
        """What has learnt these tasks, in their order."""

        def learnt() -> AnalyticClassifier:
            found = AnalyticClassifier(expansion=self.expansion, seed=stage.seed)
            for number, task in enumerate(tasks):
                found.learn(*self._features(stage, task, "train"))
                if number == 0:
                    found.choose(*self._features(stage, task, "valid"))
            return found

        return stage.once(("classifier", stage.tasks[0], tuple(tasks)), learnt)

    def _features(self, stage: Stage, task: str, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Of the clips of a task, by the backbone of the first one."""
        data = stage.data(task)
        clips: Part = getattr(data.parts, part)
        first = stage.tasks[0]
        return stage.once(
            ("features", first, task, part), lambda: super(Analytic, self).model(stage, first).features(data, clips)
        )


def probe(model: TaskModel, *, seed: int) -> Predictions:
    """What a ridge classifier on the features of a model says of the task's test clips: what its backbone knows of the
    task.
    """
    parts = model.data.parts
    found = AnalyticClassifier(seed=seed).learn(*model.features(model.data, parts.train))
    found.choose(*model.features(model.data, parts.valid))
    return predictions_of(model.data, found.scores(model.features(model.data, parts.test)[0]))


def predictions_of(data: LabelledShards, scores: np.ndarray) -> Predictions:
    """Scores of the test clips of a task, beside what they are."""
    part = data.parts.test
    return Predictions(
        labels=data.parts.labels,
        several=data.several,
        keys=np.array([str(key) for key in part.index.key]),
        scores=scores.astype(np.float32),
        targets=part.targets,
        speakers=part.speakers,
    )
