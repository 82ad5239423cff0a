"""`ssl-audio bench streams`: what a bounded delay costs, and what a stream costs."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from ssl_audio.cli.results import add_figures
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.report import ReportTable


def streams(
    shards: Path | None = None,
    target: str = "label",
    fold: NonNegativeInt | None = None,
    several: bool = False,
    clip_seconds: PositiveFloat = 5.0,
    delays: list[PositiveFloat] = [1.0, 2.0],  # noqa: B006
    seeds: PositiveInt = 3,
    steps: PositiveInt = 200,
    seconds: PositiveFloat = 60.0,
    block_seconds: PositiveFloat = 0.01,
    width: PositiveInt = 192,
    checkpoint: Path | None = None,
    out: Path | None = None,
) -> None:
    """Accuracy and mAP at bounded delays (with shards), or delay, memory and speed of streams (without).

    With shards: small models are trained from scratch, and asked for the label of every stretch of the test clips; with
    95 % intervals of a bootstrap over the clips. Without: models of the size of the recipes `causal`, `chunks` and
    `chunks_transformer`, untrained, and such that see whole clips, in windows of 10 s; on one thread.

    Args:
        shards: A folder with labelled clips.
        target: Kind of label; `speaker` is one too.
        fold: The test fold, counted from 0; by default the clips' splits.
        several: A clip may have several labels; accuracy is then how often the most probable one is among them.
        clip_seconds: Longer clips are cut to this.
        delays: Seconds of the stretches.
        seeds: Trainings of each.
        steps: Batches of 16 clips of each.
        seconds: How much sound is fed, without shards.
        block_seconds: In blocks of this length.
        width: Channels of the models, without shards; a multiple of 3.
        checkpoint: The stream of this one alone.
        out: Also write the figures to this JSON file.
    """
    figures = _costs(seconds, block_seconds, checkpoint, width) if shards is None else {}
    if shards is not None:
        figures = _scores(
            shards, target=target, fold=fold, several=several, longest=clip_seconds, delays=delays, seeds=seeds,
            steps=steps,
        )  # fmt: skip
    add_figures(figures, out)


def _scores(
    shards: Path,
    *,
    target: str,
    fold: int | None,
    several: bool,
    longest: float,
    delays: list[float],
    seeds: int,
    steps: int,
) -> dict[str, Any]:
    from ssl_audio.evaluation.small_models import interval, load_task
    from ssl_audio.evaluation.stream_benchmark import ENCODERS, Heard, by_delay, trained

    task = load_task(shards, target=target, fold=fold, seconds=longest, several=several)
    if max(delays) > longest:
        raise RecipeError(f"--delays {max(delays):g}: clips last {longest:g} s (--clip_seconds); expected no more")
    targets = task.test.targets.numpy() > 0
    kinds = {"accuracy": (Heard.right, interval), "mAP": (Heard.precision, _of_draws)}
    rows: list[list[str | float]] = []
    figures: dict[str, Any] = {}
    for name in ENCODERS:
        found: dict[str, list[Heard]] = {}
        for seed in range(seeds):
            backbone, objective = trained(name, task, seed=seed, steps=steps, seconds=(min(delays), longest))
            for what, heard in by_delay(backbone, objective, task, delays=delays, longest=longest).items():
                found.setdefault(what, []).append(heard)
            print(f"{name}: seed {seed}", file=sys.stderr, flush=True)
        for what, heards in found.items():
            cells: list[str | float] = [name, what]
            told: dict[str, Any] = {}
            for measure, (values_of, over) in kinds.items():
                values = np.stack([values_of(heard, targets) for heard in heards])
                whole = np.stack([values_of(heard, targets) for heard in found["whole"]])
                mean, lost = over(values), over(values - whole)
                told[measure] = {"value": mean, "against whole": lost}
                against = f"{lost[0]:+.3f} ({lost[1]:+.3f} to {lost[2]:+.3f})" if what != "whole" else ""
                cells += [f"{mean[0]:.3f} ({mean[1]:.3f} to {mean[2]:.3f})", against]
            figures.setdefault(name, {})[what] = told
            rows.append(cells)
    head = ["encoder", "label of", *(word for kind in kinds for word in (f"{kind} (95 %)", "against whole clips"))]
    caption = f"{len(task.train)} training and {len(task.test)} test clips, {steps} batches, {seeds} seeds"
    print(ReportTable(caption, head, rows).text())
    return figures


def _of_draws(values: Any) -> tuple[float, float, float]:
    """Mean over seeds, and its 95 % interval: of each seed all clips, then resamples."""
    each = values.mean(axis=0)
    low, high = np.nanpercentile(each[1:], [2.5, 97.5])
    return float(each[0]), float(low), float(high)


def _costs(seconds: float, block_seconds: float, checkpoint: Path | None, width: int) -> dict[str, Any]:
    if width % 3:
        raise RecipeError(f"--width {width}: expected a multiple of 3, the attention heads of the Transformers")
    from ssl_audio.evaluation.pretrained import pretrained
    from ssl_audio.evaluation.stream_benchmark import recipe_models, stream_cost

    models = {} if checkpoint is not None else recipe_models(width=width)
    if checkpoint is not None:
        models[checkpoint.name] = pretrained(checkpoint).modules
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows, figures = [], {}
    try:
        for name, modules in models.items():
            cost = stream_cost(modules, seconds=seconds, block_seconds=block_seconds, window_seconds=10.0)
            quantiles = [np.percentile(part, [50, 99, 100]) for part in (cost.frame_delays, cost.label_delays)]
            figures[name] = {
                "exact": cost.exact,
                "real_time_factor": cost.factor,
                "frame_delays": quantiles[0].tolist(),
                "label_delays": quantiles[1].tolist(),
                "megabytes": cost.megabytes.tolist(),
            }
            shown = [" / ".join(f"{1000 * value:.0f}" for value in part) for part in quantiles]
            how = "whole pass" if cost.exact else "windows"
            grown = f"{cost.megabytes[-1]:+.1f}"
            rows.append([name, how, f"{cost.factor:.3f}", *shown, grown])
    finally:
        torch.set_num_threads(threads)
    head = ["model", "as", "real-time factor", "frame, ms: 50 / 99 / 100 %", "label, ms", "MB"]
    caption = f"{seconds:g} s of sound in blocks of {1000 * block_seconds:g} ms, one thread"
    print(ReportTable(caption, head, rows).text())
    return figures
