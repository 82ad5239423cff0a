"""The results of a comparison: one table, differences with their intervals, pictures, a report."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
import yaml

from ssl_audio.evaluation.cost import Cost
from ssl_audio.evaluation.predictions import Predictions, joined
from ssl_audio.evaluation.report import ReportTable, page
from ssl_audio.experiments.comparison import Comparison, baseline_cell, plain
from ssl_audio.experiments.finished import Finished
from ssl_audio.experiments.outcomes import signed
from ssl_audio.training.metrics_log import read_rows
from ssl_audio.training.run import METRICS, Run, circumstances


def write_comparison(
    plan: Comparison,
    found: dict[tuple[str, str], list[Predictions]],
    cost: dict[tuple[str, str], Cost],
    checkpoints: dict[str, Path],
    refused: dict[tuple[str, str], str],
) -> Finished:
    """Write summary, tables, pictures and report of a comparison.

    Args:
        plan: What was compared.
        found: Predictions of each seed, by encoder and variant, or baseline.
        cost: By encoder and variant; training from scratch costs what training a pretrained encoder does.
        checkpoints: What each encoder began at.
        refused: Why an encoder has no place for an adapter.
    """
    from ssl_audio.evaluation.pictures import (  # matplotlib takes half a second
        beside_picture,
        scores_picture,
        trained_picture,
    )

    some = next(iter(found.values()))[0]
    head = some.headline_name
    rows: list[list[str | float]] = []
    intervals: dict[tuple[str, str], tuple[float, float]] = {}
    for (encoder, start), seeds in found.items():
        scores = [one.headline for one in seeds]
        # A clip occurs once per seed; its predictions are resampled together.
        low, high = joined(seeds).interval(over=plan.intervals)
        intervals[encoder, start] = (low, high)
        spent = cost.get((encoder, "pretrained" if start == "scratch" else start))
        row: list[str | float] = [
            f"{encoder} {start}",
            float(np.mean(scores)),
            f"{low:.3f} to {high:.3f}",
            f"{np.std(scores):.3f}",
        ]
        rows.append([*row, *(_spent(spent) if spent is not None else ["-"] * 6)])
    titles = [
        "", head, "95 % interval", "over seeds", "trained", "parameters", "clips/s training", "clips/s inference",
        "memory", "FLOPs a clip",
    ]  # fmt: skip
    options = " ".join(f"--{name}={value}" for name, value in plan.options.items())
    budget = f"{plan.seeds} seeds, {plan.budget.words}, same clips in the same order {options}".rstrip()
    table = ReportTable(f"{Path(plan.task).stem}: {budget}", titles, rows)
    differences = _differences(plan, found)
    means = {cell: float(np.mean([one.headline for one in seeds])) for cell, seeds in found.items()}
    if plan.adapters:
        picture = trained_picture(
            {cell: (spent.trained_parameters, means[cell], *intervals[cell]) for cell, spent in cost.items()},
            ylabel=head,
        )
    else:
        picture = scores_picture(
            {encoder: {start: means[encoder, start] for start in plan.variants} for encoder in plan.encoders},
            ylabel=head,
        )
    this = Run(plan.folder)
    summary = {
        "verb": "compare",
        "task": plan.task,
        "seeds": plan.seeds,
        "intervals": plan.intervals,
        "checkpoints": {encoder: str(path) for encoder, path in checkpoints.items()},
        "scores": {f"{e} {s}": [one.headline for one in seeds] for (e, s), seeds in found.items()},
        "rows": [dict(zip(titles, row, strict=True)) for row in rows],
        "cost": {
            encoder if variant == "pretrained" else f"{encoder} {variant}": dataclasses.asdict(spent)
            for (encoder, variant), spent in cost.items()
        },
        "refused": {f"{encoder} {adapter}": reason for (encoder, adapter), reason in refused.items()},
        **circumstances([], torch.device("cpu")),
    }
    command = f"make compare TASK={plan.task}"
    details = {"Summary": json.dumps(summary, indent=1), "Plan": yaml.safe_dump(plain(plan), sort_keys=False)}
    tables, pictures = [table, differences], {"Scores": picture}
    # The same objective on the same clips in the same order: what differs is the encoder.
    curves = beside_picture({encoder: read_rows(path.parent.parent / METRICS) for encoder, path in checkpoints.items()})
    if curves is not None:
        pictures["Pretraining curves"] = curves
        this.write("pretraining.png", curves)
    report = page(
        f"Comparison: {plan.folder.name}", budget, tables=tables, pictures=pictures, details=details, command=command
    )
    this.write("report.html", report)
    this.write("scores.png", picture)
    this.write("report.md", "\n\n".join(one.markdown() for one in tables) + "\n")
    this.save_summary(summary)
    text = "\n\n".join([*(one.text() for one in tables), f"report      {this.folder / 'report.html'}"])
    return Finished(this, summary, text, list(checkpoints.values()))


def _spent(cost: Cost) -> list[str]:
    return [
        f"{cost.trained_parameters / 1e6:.3f} M",
        f"{cost.parameters / 1e6:.2f} M",
        f"{cost.training_clips_per_second:.0f}",
        f"{cost.inference_clips_per_second:.0f}",
        f"{cost.peak_bytes / 1e6:.0f} MB",
        f"{cost.training_flops / 1e9:.2f} G",
    ]


def _differences(plan: Comparison, found: dict[tuple[str, str], list[Predictions]]) -> ReportTable:
    """Pretrained against scratch and baselines for each encoder, and each pair of encoders pretrained; of adapters
    each against the first and the baselines.
    """
    if plan.adapters:
        first = plan.adapters[0]
        trained = [cell for cell in found if cell[1] in plan.adapters]
        pairs = [(cell, (cell[0], first)) for cell in trained if cell[1] != first and (cell[0], first) in found]
        pairs += [(cell, baseline_cell(one)) for cell in trained for one in plan.baselines]
        return _table_of(plan, found, pairs)
    pairs = [((encoder, "pretrained"), (encoder, "scratch")) for encoder in plan.encoders]
    pairs += [((encoder, "pretrained"), baseline_cell(one)) for encoder in plan.encoders for one in plan.baselines]
    pairs += [
        ((one, "pretrained"), (other, "pretrained"))
        for number, one in enumerate(plan.encoders)
        for other in plan.encoders[number + 1 :]
    ]
    return _table_of(plan, found, pairs)


def _table_of(
    plan: Comparison,
    found: dict[tuple[str, str], list[Predictions]],
    pairs: list[tuple[tuple[str, str], tuple[str, str]]],
) -> ReportTable:
    rows = []
    for first, second in pairs:
        gain = joined(found[first]).against(joined(found[second]), over=plan.intervals)
        verdict = "yes" if gain.is_one else "no"
        rows.append(
            [
                f"{' '.join(first)} - {' '.join(second)}",
                signed(gain.gain),
                f"{signed(gain.low)} to {signed(gain.high)}",
                f"{gain.p:.3f}",
                verdict,
            ]
        )
    caption = f"differences on the same clips, intervals over {plan.intervals}"
    return ReportTable(caption, ["", "gain", "95 % interval", "p", "significant"], rows)
