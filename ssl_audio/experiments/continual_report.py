"""The results of a continual-learning experiment: tables with intervals, heat maps, a report, JSON."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from ssl_audio.evaluation.continual import NAMES, measures
from ssl_audio.evaluation.intervals import accuracy_of_draws, mean_average_precision_of_draws
from ssl_audio.evaluation.predictions import Predictions
from ssl_audio.evaluation.report import ReportTable, page
from ssl_audio.experiments.continual_plan import Continual, plain
from ssl_audio.experiments.finished import Finished
from ssl_audio.experiments.outcomes import signed
from ssl_audio.training.run import Run, circumstances

_SIGNED = ("backward_transfer", "forward_transfer", "forgetting")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """One sequence of tasks, learnt by one method.

    Args:
        method: Its name in tables.
        order: The tasks.
        seed: Of everything random.
        known: What was said of each task (second number) after each step (first), the task being known.
        unknown: The same where it is not known; only of the tasks that are told apart, and not after the first.
        ahead: What the backbone knew of each task right before it was learnt, by a ridge classifier.
        before: The same of the base.
        unchanged: Whether the answers for each task at the end are those right after it was learnt, to the bit; None
            where nothing of the kind is claimed.
        files: The checkpoint of each task.
    """

    method: str
    order: list[str]
    seed: int
    known: dict[tuple[int, int], Predictions]
    unknown: dict[tuple[int, int], Predictions]
    ahead: dict[int, Predictions]
    before: dict[str, Predictions]
    unchanged: bool | None
    files: dict[str, str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a method costs for a task, in the mean over a sequence.

    Args:
        trained: Parameters that train, with the head.
        stored_bytes: Kept on disk besides the base.
        seconds: Of training.
        flops: Of training: matrix products and attention.
        whole: Parameters of the base.
    """

    trained: int
    stored_bytes: int
    seconds: float
    flops: int
    whole: int


class Draws:
    """Scores of predictions on the test clips, and on resamples of them that are the same for all methods.

    Args:
        count: How many resamples.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._counts: dict[tuple[str, ...], np.ndarray] = {}
        self._scores: dict[int, np.ndarray] = {}

    def scores(self, found: Predictions) -> np.ndarray:
        """The score on all clips first, then on each resample."""
        if id(found) not in self._scores:
            order = np.argsort(found.keys, kind="stable")
            keys = tuple(found.keys[order].tolist())
            measure = mean_average_precision_of_draws if found.several else accuracy_of_draws
            self._scores[id(found)] = measure(found.scores[order], found.targets[order], self._drawn(keys))
        return self._scores[id(found)]

    def _drawn(self, keys: tuple[str, ...]) -> np.ndarray:
        if keys not in self._counts:
            draws, clips = np.random.default_rng(0), len(keys)
            some = [np.bincount(draws.integers(0, clips, clips), minlength=clips) for _ in range(self.count)]
            self._counts[keys] = np.stack([np.ones(clips, dtype=np.int64), *some], axis=1).astype(np.int32)
        return self._counts[keys]


def write_continual(plan: Continual, found: list[Learnt], spent: dict[str, Spent], *, base: Path) -> Finished:
    """Write summary, tables, heat maps and report of an experiment.

    Args:
        plan: What was learnt.
        found: Every sequence.
        spent: What each method costs.
        base: What all methods began at.
    """
    from ssl_audio.evaluation.pictures import matrices_picture  # matplotlib takes half a second

    draws = Draws(plan.draws)
    known = {name: _of_method(found, name, _matrix(draws, "known")) for name in plan.methods}
    tables = [_table(plan, known, spent, "task known at test time")]
    summary_unknown: dict[str, Any] = {}
    if plan.unknown:
        apart = {name: _of_method(found, name, _unknown_matrix(draws, plan.unknown)) for name in plan.methods}
        tables.append(_table(plan, apart, {}, f"task not known: the labels of {', '.join(plan.unknown)} as one set"))
        summary_unknown = {name: _told(runs) for name, runs in apart.items()}
    tables.append(_tasks_table(plan, found, draws))
    matrices = {
        name: np.mean([_matrix(draws, "known")(one)[0][0] for one in found if _is(one, name, plan)], axis=0)
        for name in plan.methods
    }
    picture = matrices_picture(matrices, plan.every_order[0])
    changed = sorted({one.method for one in found if one.unchanged is False})
    kept = sorted({one.method for one in found if one.unchanged} - set(changed))
    lines = []
    if kept:
        lines.append(
            f"answers for every task at the end are those right after it was learnt, to the bit: {', '.join(kept)}"
        )
    if changed:
        lines.append(f"answers that changed though nothing of the task did (a fault): {', '.join(changed)}")
    this = Run(plan.folder)
    summary = {
        "verb": "continual",
        "name": plan.folder.name,
        "base": str(base),
        "orders": plan.every_order,
        "seeds": plan.seeds,
        "unchanged": {name: all(one.unchanged for one in found if one.method == name) for name in [*kept, *changed]},
        "known": {name: _told(runs) for name, runs in known.items()},
        "unknown": summary_unknown,
        "spent": {name: dataclasses.asdict(one) for name, one in spent.items()},
        "runs": [_run(one, draws) for one in found],
        **circumstances([], torch.device("cpu")),
    }
    lead = (
        f"{len(plan.tasks)} tasks, {len(plan.every_order)} orders, {plan.seeds} seeds, all from {base}; intervals: 95 "
        f"% over {plan.draws} resamples of the test clips"
    )
    details = {"Plan": yaml.safe_dump(plain(plan), sort_keys=False), "Summary": json.dumps(summary, indent=1)}
    command = f"ssl-audio continual --config {plan.folder.name}"
    title = f"Scores of each task after each task, {' then '.join(plan.every_order[0])}"
    this.write("scores.png", picture)
    this.write(
        "report.html",
        page(f"Continual learning: {plan.folder.name}", ". ".join([lead, *lines]), tables=tables,
             pictures={title: picture}, details=details, command=command),
    )  # fmt: skip
    this.write("report.md", "\n\n".join([*(table.markdown() for table in tables), *lines]) + "\n")
    this.save_summary(summary)
    text = "\n\n".join([*(table.text() for table in tables), *lines, f"report      {this.folder / 'report.html'}"])
    return Finished(this, summary, text, [Path(path) for one in found for path in one.files.values()])


Runs = dict[str, np.ndarray]
"""Measures of the runs of a method: (run, 1 + draw); the first column is of all clips."""


def _is(one: Learnt, name: str, plan: Continual) -> bool:
    return one.method == name and one.order == plan.every_order[0]


def _of_method(
    found: list[Learnt], name: str, matrix: Callable[[Learnt], tuple[np.ndarray, np.ndarray | None]]
) -> Runs:
    runs = [measures(*matrix(one)) for one in found if one.method == name]
    return {measure: np.stack([run[measure] for run in runs]) for measure in NAMES}


def _matrix(draws: Draws, which: str) -> Callable[[Learnt], tuple[np.ndarray, np.ndarray | None]]:
    """From a run to the scores (1 + draw, step, task) and those of the base (1 + draw, task)."""

    def of(one: Learnt) -> tuple[np.ndarray, np.ndarray | None]:
        count = len(one.order)
        scores = np.full((draws.count + 1, count, count), np.nan)
        for (step, task), found in one.known.items():
            scores[:, step, task] = draws.scores(found)
        for task, found in one.ahead.items():
            scores[:, task - 1, task] = draws.scores(found)
        return scores, np.stack([draws.scores(one.before[task]) for task in one.order], axis=1)

    return of


def _unknown_matrix(draws: Draws, names: list[str]) -> Callable[[Learnt], tuple[np.ndarray, None]]:
    """The same of the tasks that are told apart, by their own steps. The first alone is as if it were known."""

    def of(one: Learnt) -> tuple[np.ndarray, None]:
        places = [place for place, task in enumerate(one.order) if task in names]
        scores = np.full((draws.count + 1, len(places), len(places)), np.nan)
        for step, after in enumerate(places):
            for task, place in enumerate(places[: step + 1]):
                found = one.unknown.get((after, place), one.known[after, place])
                scores[:, step, task] = draws.scores(found)
        return scores, None

    return of


def _table(plan: Continual, found: dict[str, Runs], spent: dict[str, Spent], caption: str) -> ReportTable:
    first = next(iter(found))
    shown = [name for name in NAMES if not all(np.isnan(runs[name]).all() for runs in found.values())]
    costs = ["trained a task", "kept a task", "training a task", "FLOPs a task"] if spent else []
    head = ["", *(column for name in shown for column in _columns(name)), f"against {first}", *costs]
    rows = []
    for method, runs in found.items():
        cells: list[str | float] = [method]
        for name in shown:
            value, low, high = _interval(runs[name])
            cells.append(signed(value) if name in _SIGNED else value)
            if name in ("average", "forgetting"):
                cells.append(f"{low:.3f} to {high:.3f}" if np.isfinite(value) else "-")
            if name == "average":
                cells.append(f"{runs[name][:, 0].std():.3f}")
        gain, low, high = _interval(runs["average"] - found[first]["average"])
        clear = "*" if low > 0 or high < 0 else ""
        cells.append("" if method == first else f"{signed(gain)} ({signed(low)} to {signed(high)}){clear}")
        if method in spent:
            cost = spent[method]
            share = f"{100 * cost.trained / cost.whole:.1f} %"
            cells += [f"{cost.trained:,} ({share})", f"{cost.stored_bytes / 1e6:.2f} MB"]
            cells += [f"{cost.seconds:.1f} s", f"{cost.flops / 1e12:.2f} T"]
        rows.append(cells)
    runs_of = f"{len(plan.every_order)} orders x {plan.seeds} seeds"
    return ReportTable(f"{caption}; means of {runs_of}, spread: standard deviation over them", head, rows)


def _columns(name: str) -> list[str]:
    words = [NAMES[name]]
    if name in ("average", "forgetting"):
        words.append("95 % interval")
    return [*words, "spread"] if name == "average" else words


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean over runs, and the interval over draws."""
    mean = values.mean(axis=0)
    if not np.isfinite(mean[0]):
        return float("nan"), float("nan"), float("nan")
    low, high = np.nanpercentile(mean[1:], [2.5, 97.5])
    return float(mean[0]), float(low), float(high)


def _tasks_table(plan: Continual, found: list[Learnt], draws: Draws) -> ReportTable:
    """Score of each task right after it was learnt, and at the end."""
    rows = []
    for name in plan.methods:
        runs = [one for one in found if one.method == name]
        cells = [name]
        for task in plan.tasks:
            then, now = (float(np.mean([_at(one, task, step, draws) for one in runs])) for step in ("learnt", "end"))
            cells.append(f"{then:.3f}, {now:.3f}")
        rows.append(cells)
    base = [one for one in found if one.method == next(iter(plan.methods))]
    cells = ["ridge classifier on the base"]
    for task in plan.tasks:
        cells.append(f"{np.mean([draws.scores(one.before[task])[0] for one in base]):.3f}")
    rows.append(cells)
    kinds = {task: "mAP" if found[0].before[task].several else "accuracy" for task in plan.tasks}
    head = ["", *(f"{task} ({kinds[task]})" for task in plan.tasks)]
    return ReportTable("score of each task: after learning it, and at the end", head, rows)


def _at(one: Learnt, task: str, step: str, draws: Draws) -> float:
    place = one.order.index(task)
    return float(draws.scores(one.known[place if step == "learnt" else len(one.order) - 1, place])[0])


def _told(runs: Runs) -> dict[str, Any]:
    told = {}
    for name, values in runs.items():
        value, low, high = _interval(values)
        told[name] = {"mean": value, "interval": [low, high], "runs": values[:, 0].tolist()}
    return told


def _run(one: Learnt, draws: Draws) -> dict[str, Any]:
    scores = _matrix(draws, "known")(one)[0][0]
    unknown = {f"{step},{task}": float(draws.scores(found)[0]) for (step, task), found in one.unknown.items()}
    before = {task: float(draws.scores(found)[0]) for task, found in one.before.items()}
    return {
        "method": one.method,
        "order": one.order,
        "seed": one.seed,
        "scores": scores.tolist(),
        "before": before,
        "unknown": unknown,
        "unchanged": one.unchanged,
        "files": one.files,
    }
