"""Continual learning: tasks one after the other by several methods, and tables of what is known of each after each."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssl_audio.checkpoints.base import shortened, tensors_digest
from ssl_audio.checkpoints.checkpoint import describe
from ssl_audio.checkpoints.newest import chosen_checkpoint
from ssl_audio.checkpoints.opening import open_alone, open_checkpoint
from ssl_audio.checkpoints.sizes import Hints
from ssl_audio.data.labelled import LabelledShards
from ssl_audio.data.manifest import manifest_digest
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.cost import arithmetic_of
from ssl_audio.evaluation.predictions import Predictions, read_predictions
from ssl_audio.experiments.adapter_recipes import adapter_file, refusal_of
from ssl_audio.experiments.budget import Budget
from ssl_audio.experiments.continual_methods import Method, Stage, probe
from ssl_audio.experiments.continual_models import TaskModel, present
from ssl_audio.experiments.continual_plan import DEVICES, Continual, check_resumed, keep_plan, plain
from ssl_audio.experiments.continual_report import Learnt, Spent, write_continual
from ssl_audio.experiments.display import TERMINAL, Display
from ssl_audio.experiments.fallback import with_demo
from ssl_audio.experiments.finetune import BEST, PREDICTIONS, finetune
from ssl_audio.experiments.finetune_builder import FinetuneBuilder
from ssl_audio.experiments.finished import Finished
from ssl_audio.experiments.output_files import claimed, write_bytes
from ssl_audio.experiments.pretrain import PretrainBuilder, pretrain
from ssl_audio.experiments.running import quiet_training
from ssl_audio.experiments.values import NO_OPTIONS, words_of
from ssl_audio.objectives.classification import Classification
from ssl_audio.training.checkpoint_files import AtomicCheckpointIO
from ssl_audio.training.run import SUMMARY, Run, json_text

_BASE, _PRETRAINING = "base.json", "pretraining.json"
_ONE_DEVICE = {DEVICES: 1}  # where a recipe leaves it to the machine


def continual(plan: Continual, *, display: Display = TERMINAL) -> Finished:
    """Learn the tasks in every order by every method, test after every task, and write tables, pictures and a report.

    The same call resumes: each training is a run that resumes by itself, and what was tested is not tested again.

    Args:
        plan: What is learnt, in which order and how.
        display: Shows messages and progress.

    Raises:
        SslAudioError: if tasks, checkpoint or machine do not allow it, or another process is writing it.
    """
    plan.check()
    with claimed(plan.folder), quiet_training():
        return _Experiment(plan, display).run()


class _Experiment:
    """One call of `continual`."""

    def __init__(self, plan: Continual, display: Display) -> None:
        self.plan = plan
        self.display = display
        self.folder = plan.folder
        self._blank: dict[tuple[str, int], TaskModel] = {}
        self._folds: dict[str, int] = {}
        self.adapters: dict[str, Path] = {}
        self._answers: dict[Path, Predictions] = {}

    def run(self) -> Finished:
        plan, told = self.plan, check_resumed(self.plan)
        for name, method in plan.methods.items():
            if method.adapters is not None:
                self.adapters[name] = adapter_file(method.adapters)
        self.base = self._base()
        base = self._known_base()
        self._check_places()
        for task in plan.tasks:  # finds a mistake in a task before minutes of training
            _check_objective(task, self.blank(task, 0))
        for task in plan.unknown:
            if self.blank(task, 0).data.several:
                raise RecipeError(
                    f"unknown: clips of {task} may have several labels (data.several true); where no task is known one "
                    f"label is the answer, so leave {task} out of unknown"
                )
        shards = self._known_shards()
        keep_plan(plan, told)
        Run(self.folder).write(_BASE, json_text({**base, "shards": shards}))
        found: list[Learnt] = []
        spent: dict[str, Spent] = {}
        for seed in range(plan.seeds):
            for name, method in plan.methods.items():
                computed: dict[Any, Any] = {}
                for order in plan.every_order:
                    learnt, stage = self._walk(name, method, order, seed, computed)
                    found.append(learnt)
                    if name not in spent:
                        spent[name] = self._spent(method, stage)
            self._blank.clear()
        return write_continual(plan, found, spent, base=self.base)

    def _known_base(self) -> dict[str, str]:
        """What tells the base from others, which is that of the calls before: what they learnt is of no other.

        Raises:
            RecipeError: if it is another.
        """
        now = tensors_digest(open_checkpoint(self.base).weights)
        before = Run(self.folder).read(_BASE)
        if before is not None and before.get("digest") != now:
            raise RecipeError(
                f"{self.folder} was started from the weights of {before.get('checkpoint')} (sha256 "
                f"{shortened(str(before.get('digest')))}), not from {self.base} as it is now (sha256 "
                f"{shortened(now)}); give them back with --checkpoint, or begin another experiment with --name"
            )
        return {"checkpoint": str(self.base), "digest": now}

    def _known_shards(self) -> dict[str, str | None]:
        """What tells the clips of the tasks from others, which are those of the calls before.

        Raises:
            RecipeError: if a folder holds others.
        """
        folders = sorted({str(folder) for task in self.plan.tasks for folder in self.blank(task, 0).data.shards})
        now = {folder: manifest_digest(Path(folder)) for folder in folders}
        before = (Run(self.folder).read(_BASE) or {}).get("shards")
        for folder, digest in now.items():
            if isinstance(before, dict) and before.get(folder, digest) != digest:
                raise RecipeError(
                    f"{folder}: its manifest is not that of the calls before, whose answers {self.folder} holds; give "
                    "those shards back, or begin another experiment with --name"
                )
        return now

    def _check_places(self) -> None:
        """Whether the encoder has a place for the adapters of every method, before anything is trained."""
        spec = open_checkpoint(self.base).spec
        for name, path in self.adapters.items():
            reason = refusal_of(spec, path)
            if reason is not None:
                raise RecipeError(f"methods.{name}: {reason}")

    def blank(self, task: str, seed: int) -> TaskModel:
        """A task's data, and its head on the base before anything is learnt."""
        if (task, seed) not in self._blank:
            options = {**self._options(task, {}), "checkpoint": str(self.base)}
            chosen = {"runs": self.folder / "cells", "name": "parsed", "beside_scratch": False}
            words = words_of(self.plan.tasks[task].recipe, chosen, {**_ONE_DEVICE, **options, **_seeded(seed)})
            built = FinetuneBuilder(
                with_demo(words, check=FinetuneBuilder.check_options, display=self.display), display=self.display
            )
            folds = built.folds()
            if len(folds) > 1 and "folds" in options:
                raise RecipeError(f"tasks.{task}: folds is {options['folds']}; expected one fold, such as [0]")
            self._folds[task] = folds[0]
            data = built.datamodule if built.config.data.fold == folds[0] else built.data(folds[0])
            data.workers = 0
            built.model.attach(data.facts)
            spec = built.recipe["model"]["backbone"]
            model = TaskModel(spec, built.model.backbone.eval(), built.model.objective.answering.eval(), data)
            self._blank[task, seed] = model
        return self._blank[task, seed]

    def _options(self, task: str, method: Mapping[str, Any]) -> dict[str, Any]:
        return {**self.plan.options, **self.plan.tasks[task].options, **method}

    def _base(self) -> Path:
        """The checkpoint that all methods begin at."""
        plan = self.plan
        given = chosen_checkpoint(plan.checkpoint, plan.runs, fold=0)
        if given is not None:
            open_checkpoint(given, hints=Hints(**vars(plan.options.get("hints") or Hints())))
            return given
        runs = self.folder / "pretrained"
        told = {name: plain(plan)[name] for name in ("pretraining", "pretrain_steps", "pretrain_options")}
        before = Run(self.folder).read(_PRETRAINING)
        if before is None:
            Run(self.folder).write(_PRETRAINING, json_text(told))
        elif before != told:
            odd = next(name for name in told if before.get(name) != told[name])
            raise RecipeError(
                f"{self.folder}: holds a base that was pretrained with another {odd}; expected the same, or another "
                f"--name (or remove {runs} and {self.folder / _PRETRAINING})"
            )
        if plan.pretrain_steps != 0:
            done = runs / "pretrain" / "base" / "0"
            if not (done / SUMMARY).exists():
                options = {"probe": [], **_ONE_DEVICE, **plan.pretrain_options}
                pretrain(
                    plan.pretraining,
                    max_steps=plan.pretrain_steps,
                    name="base",
                    runs=runs,
                    options=options,
                    display=self.display,
                )
            return Run(done).last
        path = self.folder / "untrained.ckpt"
        if not path.exists():
            chosen = {"name": "untrained", "runs": runs}
            words = words_of(plan.pretraining, chosen, {"probe": [], **_ONE_DEVICE, **plan.pretrain_options})
            built = PretrainBuilder(
                with_demo(words, "pretrain", check=PretrainBuilder.check_options, display=self.display),
                display=self.display,
            )
            weights = {f"backbone.{name}": value for name, value in built.model.backbone.state_dict().items()}
            recipe = {"model": {"backbone": built.recipe["model"]["backbone"]}}
            content = {"state_dict": weights, "global_step": 0, "ssl_audio": describe(recipe)}
            AtomicCheckpointIO().save_checkpoint(content, path)
        return path

    def _walk(
        self, name: str, method: Method, order: list[str], seed: int, computed: dict[Any, Any]
    ) -> tuple[Learnt, Stage]:
        """Learn the tasks in an order, and test after each."""
        blank = {task: self.blank(task, seed) for task in order}
        known: dict[tuple[int, int], Predictions] = {}
        unknown: dict[tuple[int, int], Predictions] = {}
        ahead: dict[int, Predictions] = {}
        files: dict[str, Path] = {}
        for step, task in enumerate(order):
            stage = Stage(
                tasks=tuple(order[: step + 1]),
                base=self.base,
                seed=seed,
                train=functools.partial(self._train, name, seed, method.options),
                blank=blank,
                folder=self.folder / "memory",
                learnt=dict(files),
                computed=computed,
            )
            files[task] = stage.learnt[task] = method.learn(stage)
            among = [one for one in stage.tasks if one in self.plan.unknown]
            for place, one in enumerate(stage.tasks):
                known[step, place] = self._known(name, method, stage, one)
                if one in among and len(among) > 1:
                    unknown[step, place] = self._unknown(name, method, stage, one, among)
            if step + 1 < len(order):
                ahead[step + 1] = self._ahead(name, method, stage, order[step + 1])
            for kept in [kept for kept in computed if kept[0] == "model"]:  # models may be large
                del computed[kept]
        unchanged = None if method.ordered else all(self._is_unchanged(name, method, stage, task) for task in order)
        learnt = Learnt(
            method=name,
            order=order,
            seed=seed,
            known=known,
            unknown=unknown,
            ahead=ahead,
            before={task: self._start(task, seed) for task in order},
            unchanged=unchanged,
            files={task: str(path) for task, path in files.items()},
        )
        return learnt, stage

    def _known(self, name: str, method: Method, stage: Stage, task: str) -> Predictions:
        """Answers for a task that was learnt; computed once and kept."""
        if method.tested and (task == stage.task or not method.ordered):
            return self._read(stage.learnt[task].parents[1] / PREDICTIONS)
        after = "-".join(stage.tasks)
        return self._kept(f"{name}/{stage.seed}/{after}/{task}", stage, lambda: method.known(stage, task))

    def _unknown(self, name: str, method: Method, stage: Stage, task: str, among: list[str]) -> Predictions:
        """Answers for the clips of a task among the labels of several."""
        after = "-".join(stage.tasks)
        return self._kept(
            f"{name}/{stage.seed}/{after}/{task}.among-{'-'.join(among)}",
            stage,
            lambda: _among(stage, task, among, method.unknown(stage, task, among)),
        )

    def _ahead(self, name: str, method: Method, stage: Stage, task: str) -> Predictions:
        """What the backbone of a stage knows of the task that comes next."""
        found = method.backbone(stage)
        if found is None:
            return self._start(task, stage.seed)
        after = "-".join(stage.tasks)
        return self._kept(
            f"{name}/{stage.seed}/{after}/{task}.ahead",
            stage,
            lambda: probe(stage.blank[task].on(found), seed=stage.seed),
        )

    def _start(self, task: str, seed: int) -> Predictions:
        """What the base knows of a task."""
        return self._kept(
            f"base/{seed}/{task}", None, lambda: probe(self.blank(task, seed).on(open_checkpoint(self.base)), seed=seed)
        )

    def _is_unchanged(self, name: str, method: Method, stage: Stage, task: str) -> bool:
        """Whether the files of a task, read again at the end, give the answers of its test, to the bit."""
        before = self._read(stage.learnt[task].parents[1] / PREDICTIONS)
        fresh = dataclasses.replace(stage, computed={})
        again = self._kept(f"{name}/{stage.seed}/{task}.again", stage, lambda: method.known(fresh, task))
        return np.array_equal(before.scores, again.scores)

    def _kept(self, name: str, stage: Stage | None, compute: Callable[[], Predictions]) -> Predictions:
        """Predictions from their file, computed if there is none, or if a task was learnt again since."""
        path = self.folder / "answers" / f"{name}.parquet"
        learnt = [] if stage is None else [present(file) for file in stage.learnt.values()]
        if not path.exists() or any(file.stat().st_mtime_ns > path.stat().st_mtime_ns for file in learnt):
            write_bytes(path, compute().parquet())
            self._answers.pop(path, None)
        return self._read(path)

    def _read(self, path: Path) -> Predictions:
        """Read once, so that the same answers are the same object."""
        if path not in self._answers:
            self._answers[path] = read_predictions(path)
        return self._answers[path]

    def _train(
        self,
        method: str,
        seed: int,
        given: Mapping[str, Any],
        tasks: tuple[str, ...],
        *,
        checkpoint: Path,
        adapters: str | None = None,
        options: Mapping[str, Any] = NO_OPTIONS,
    ) -> Path:
        """One training; methods that train the same share it."""
        task = self.plan.tasks[tasks[-1]]
        chosen = self._options(tasks[-1], {**given, **options})
        told = [adapters, str(checkpoint), chosen, task.recipe, self.plan.steps]
        digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:8]
        runs, name = self.folder / "cells", f"{'-'.join(tasks)}_{adapters or 'all'}_{seed}_{digest}"
        folder = runs / "finetune" / name / "0"
        if not (folder / SUMMARY).exists():
            self.display.line(f"\n{method}, seed {seed} of {self.plan.seeds}: {' then '.join(tasks)}")
            chosen.pop("folds", None)
            if checkpoint != self.base and _alone(checkpoint):
                chosen["base"] = str(self.base)
            finetune(
                task.recipe,
                checkpoint=checkpoint,
                beside_scratch=False,
                adapters=adapters,
                budget=Budget(steps=self.plan.steps),
                seed=seed,
                name=name,
                runs=runs,
                folds=[self._folds[tasks[-1]]],
                options={**_ONE_DEVICE, **chosen},
                display=self.display,
            )
            for path in folder.glob("**/*.ckpt"):  # a finished run is not resumed
                if path.name != Path(BEST).name:
                    path.unlink()
        return folder / BEST

    def _spent(self, method: Method, stage: Stage) -> Spent:
        """What a method costs, of its first sequence."""
        seconds, trained, work = [], [], 0
        flops: list[int] = []
        for path in dict.fromkeys(stage.learnt.values()):
            steps, took = _spent_in(path.parents[1])
            found = open_checkpoint(path, base=self.base if _alone(path) else None)
            data = found.recipe["data"]
            parameters, of_a_clip = arithmetic_of(found, seconds=float(data["crop_seconds"]))
            rehearsed = method.rehearsed * sum(flops)
            work += steps * (int(data["batch_clips"]) * of_a_clip + rehearsed)
            flops.append(of_a_clip)
            seconds.append(took)
            trained.append(parameters)
        return Spent(
            trained=int(np.mean(trained)),
            stored_bytes=method.stored_bytes(stage),
            seconds=float(np.sum(seconds)) / len(stage.tasks),
            flops=work // len(stage.tasks),
            whole=sum(value.numel() for value in open_checkpoint(self.base).part("backbone").values()),
        )


def _spent_in(folder: Path) -> tuple[int, float]:
    """Steps and seconds of a training."""
    outcome = Run(folder).read("outcome.json") or {}
    try:
        return int(outcome["steps"]), float(outcome["seconds"])
    except (KeyError, TypeError, ValueError) as error:
        raise RecipeError(
            f"{folder / 'outcome.json'}: says no steps and seconds of a training; put it back, or remove {folder} to "
            "learn the task again"
        ) from error


def _check_objective(task: str, model: TaskModel) -> None:
    """Whether a task is one of labels of clips that a head learns.

    Raises:
        RecipeError: if it is another.
    """
    objective = model.objective
    if not isinstance(objective, Classification):
        raise RecipeError(
            f"tasks.{task}: its recipe learns by {type(objective).__name__}; expected labels of clips "
            "(Classification), of which all measures are"
        )
    if objective.options.kind == "knn":
        raise RecipeError(f"tasks.{task}: model.head.kind is knn, which learns nothing; expected linear")


def _seeded(seed: int) -> dict[str, int]:
    return {"seed_everything": seed, "data.seed": seed}


def _alone(path: Path) -> bool:
    """Whether a checkpoint holds only what was trained on a base."""
    return open_alone(path).base is not None


def _among(stage: Stage, task: str, among: list[str], scores: np.ndarray) -> Predictions:
    """Scores for the labels of several tasks, beside the targets of the clips of one."""
    data = {one: stage.data(one) for one in among}
    own: LabelledShards = data[task]
    targets = [
        own.parts.test.targets if one == task else np.zeros((len(scores), len(data[one].parts.labels)), dtype=bool)
        for one in among
    ]
    return Predictions(
        labels=[f"{one}/{label}" for one in among for label in data[one].parts.labels],
        several=False,
        keys=np.array([str(key) for key in own.parts.test.index.key]),
        scores=scores.astype(np.float32),
        targets=np.concatenate(targets, axis=1),
        speakers=own.parts.test.speakers,
    )
