"""Comparisons: encoders, pretrained and from scratch, on one task under one budget."""

import dataclasses
import json
from pathlib import Path
from typing import cast

import numpy as np

from ssl_audio.checkpoints.newest import of_fold
from ssl_audio.checkpoints.opening import open_alone, open_checkpoint
from ssl_audio.checkpoints.sizes import Hints
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.baselines import Baseline, baseline_name, check_baselines, linear_baseline
from ssl_audio.evaluation.cost import Cost, cost_of
from ssl_audio.evaluation.predictions import Predictions, check_speakers, joined, read_predictions
from ssl_audio.experiments.adapter_recipes import adapter_file, refusal
from ssl_audio.experiments.budget import WHOLE
from ssl_audio.experiments.comparison import Comparison, baseline_cell, check_plan
from ssl_audio.experiments.comparison_report import write_comparison
from ssl_audio.experiments.display import TERMINAL, Display
from ssl_audio.experiments.fallback import with_demo
from ssl_audio.experiments.finetune import PREDICTIONS, finetune
from ssl_audio.experiments.finetune_builder import FinetuneBuilder, Start
from ssl_audio.experiments.finished import Finished
from ssl_audio.experiments.output_files import claimed, write_bytes, write_text
from ssl_audio.experiments.pretrain import pretrain
from ssl_audio.experiments.recipe_files import expected
from ssl_audio.experiments.recipes import read_recipe
from ssl_audio.experiments.running import quiet_training
from ssl_audio.experiments.values import words_of
from ssl_audio.names import suggest
from ssl_audio.training.run import SUMMARY, Run


def compare(plan: Comparison, *, display: Display = TERMINAL) -> Finished:
    """Run the cells that are missing, then write the table, the pictures and the report.

    Args:
        plan: What is compared.
        display: Shows messages and progress.

    Raises:
        SslAudioError: if task, checkpoints or machine do not allow it, or another process is writing it.
    """
    size = "demo" if plan.pretraining == "demo" else "tiny"
    if not plan.encoders:
        plan = dataclasses.replace(plan, encoders=[f"transformer_{size}", f"bimamba_{size}"])
    with claimed(plan.folder):
        return _compare(plan, display)


def _compare(plan: Comparison, display: Display) -> Finished:
    budget = plan.budget.words
    for encoder in plan.encoders:
        _encoder_file(encoder)
    check_baselines(plan.baselines)
    refused = {
        (encoder, adapter): reason
        for encoder in plan.encoders
        for adapter in plan.adapters
        if (reason := refusal(_encoder_file(encoder), adapter_file(adapter))) is not None
    }
    for (encoder, adapter), reason in refused.items():
        display.line(f"{adapter} is left out for {encoder}: {reason}")
    with quiet_training():  # finds a mistake in task or options before minutes of pretraining
        parsed = _built(plan, "parsed", 0, display)
        if plan.intervals == "speakers":
            check_speakers(np.concatenate([parsed.data(fold).parts.test.speakers for fold in parsed.folds()]))
        folds = parsed.folds()
    bases = _check_checkpoints(plan, parsed, folds)
    check_plan(plan)
    display.line(f"{plan.seeds} seeds, {budget}")
    checkpoints = {encoder: _pretrained(plan, encoder, display) for encoder in plan.encoders}
    cells: dict[tuple[str, str], list[Path]] = {}
    for seed in range(plan.seeds):
        for encoder in plan.encoders:
            for variant in plan.variants:
                if (encoder, variant) not in refused:
                    folder = _cell(
                        plan, encoder, variant, seed, checkpoints[encoder], base=bases.get(encoder), display=display
                    )
                    cells.setdefault((encoder, variant), []).append(folder)
    found = {cell: [_predictions(folder) for folder in folders] for cell, folders in cells.items()}
    for one in plan.baselines:
        found[baseline_cell(one)] = [_baseline(plan, one, seed, display) for seed in range(plan.seeds)]
    costs = {cell: _cost(plan, cell, folders[0]) for cell, folders in cells.items() if cell[1] != "scratch"}
    cost = {cell: spent for cell, spent in costs.items() if spent is not None}
    return write_comparison(plan, found, cost, checkpoints, refused)


def _encoder_file(encoder: str) -> Path:
    return expected(encoder, ["encoders"], option="--encoders")


def _check_checkpoints(plan: Comparison, parsed: FinetuneBuilder, folds: list[int]) -> dict[str, Path]:
    """Check that the given checkpoints exist and hold the right encoders; returns the bases of adapter checkpoints,
    because a cell would search for them elsewhere.
    """
    hints, bases = Hints(**vars(parsed.config.hints)), {}
    for encoder, given in plan.checkpoints.items():
        if encoder not in plan.encoders:
            known = ", ".join(plan.encoders)
            raise RecipeError(
                f"--checkpoints {encoder}: is not one of --encoders {known}{suggest(encoder, plan.encoders)}"
            )
        wanted = str(read_recipe(_encoder_file(encoder)).get("class_path")).rsplit(".")[-1]
        for path in sorted({of_fold(given, fold) for fold in folds}):
            opened = open_checkpoint(path, hints=hints, base=parsed.config.base, runs=plan.runs)
            found = str(opened.spec["init_args"]["encoder"]["class_path"]).rsplit(".")[-1]
            if found != wanted:
                raise RecipeError(f"--checkpoints {encoder}: {path} is a {found}; expected a {wanted}")
            if opened.base is not None and opened.base.path is not None:
                bases[encoder] = opened.base.path
    return bases


def _pretrained(plan: Comparison, encoder: str, display: Display) -> Path:
    """The encoder's pretrained checkpoint, or the path pattern with `{fold}`; pretrained now if none was given."""
    if encoder in plan.checkpoints:
        return plan.checkpoints[encoder]
    runs = plan.folder / "pretrained"
    done = runs / "pretrain" / encoder / "0"
    if not (done / SUMMARY).exists():
        options = {"probe": [], "budget": "none", "model.backbone.encoder": _encoder_file(encoder)}
        pretrain(
            plan.pretraining,
            max_steps=plan.pretrain_steps,
            name=encoder,
            runs=runs,
            options=options,
            display=display,
        )
    return Run(done).last


def _cell(
    plan: Comparison, encoder: str, variant: str, seed: int, checkpoint: Path, *, base: Path | None, display: Display
) -> Path:
    """One fine-tuning; from scratch it has the architecture of the checkpoint and its own fresh weights."""
    runs = plan.folder / "cells"
    name = f"{encoder}_{variant}_{seed}"
    folder = runs / "finetune" / name / "0"
    if (folder / SUMMARY).exists():
        return folder
    display.line(f"\n{encoder}, {variant}, seed {seed} of {plan.seeds}")
    # All cells make the same steps: a limit of seconds in the task would give the faster encoder more.
    whole = {"budget": "none"} if plan.budget == WHOLE else {}
    finetune(
        plan.task,
        checkpoint=checkpoint,
        start=None if plan.adapters else cast("Start", variant),
        adapters=variant if plan.adapters else None,
        beside_scratch=False,
        budget=plan.budget,
        seed=seed,
        name=name,
        runs=runs,
        options=({} if base is None else {"base": base}) | whole | plan.options,
        display=display,
    )
    # These runs are never resumed, so only the tested weights are kept.
    for path in folder.glob("**/*.ckpt"):
        if path.name != "best.ckpt":
            path.unlink()
    return folder


def _built(plan: Comparison, name: str, seed: int, display: Display) -> FinetuneBuilder:
    """The task, for its data; nothing is trained."""
    chosen = {"checkpoint": "none", "runs": plan.folder / "cells", "name": name, "beside_scratch": False}
    words = words_of(plan.task, {**chosen, "seed_everything": seed, "data.seed": seed}, plan.options)
    return FinetuneBuilder(with_demo(words, check=FinetuneBuilder.check_options, display=display), display=display)


def _baseline(plan: Comparison, baseline: Baseline, seed: int, display: Display) -> Predictions:
    """The same task without an encoder."""
    name = baseline_name(baseline)
    kept = plan.folder / "baselines" / f"{name}_{seed}.parquet"
    if not kept.exists():
        display.line(f"\nlinear on {name}, seed {seed} of {plan.seeds}")
        with quiet_training():
            built = _built(plan, f"{name}_{seed}", seed, display)
        found = [linear_baseline(built.data(fold), baseline) for fold in built.folds()]
        write_bytes(kept, joined(found).parquet())
    return read_predictions(kept)


def _cost(plan: Comparison, cell: tuple[str, str], folder: Path) -> Cost | None:
    """Measured once and kept. Measured by itself, because other work may have run beside the trainings. None where
    nothing was trained (nearest neighbours).
    """
    kept = plan.folder / f"cost_{'_'.join(cell)}.json"
    if kept.exists():
        return Cost(**json.loads(kept.read_text()))
    best = next(iter(sorted(folder.glob("**/best.ckpt"))), None)
    if best is None:
        return None
    found = open_alone(best)
    if found.base is not None:
        began = of_fold(found.recipe.get("base") or found.recipe["checkpoint"], int(found.recipe["data"]["fold"]))
        found = open_checkpoint(best, base=began, runs=plan.runs)
    data = found.recipe["data"]
    cost = cost_of(found, clips=min(16, int(data["batch_clips"])), seconds=float(data["crop_seconds"]))
    write_text(kept, json.dumps(dataclasses.asdict(cost)))
    return cost


def _predictions(folder: Path) -> Predictions:
    """Of all folds in numeric order (by name, fold10 precedes fold2)."""
    found = sorted(folder.glob(f"**/{PREDICTIONS}"), key=lambda path: (len(path.parent.name), path.parent.name))
    return joined([read_predictions(path) for path in found])
