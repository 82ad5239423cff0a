"""`ssl-audio compare`: encoders, pretrained and from scratch, on one task under one budget."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ssl_audio.checkpoints.newest import of_fold
from ssl_audio.checkpoints.opening import open_alone, open_checkpoint
from ssl_audio.checkpoints.sizes import Hints
from ssl_audio.cli.adapter_recipes import adapter_file, refusal
from ssl_audio.cli.comparison_plan import Plan, check_plan, finetune_words
from ssl_audio.cli.comparison_report import write_comparison
from ssl_audio.cli.fallback import with_demo
from ssl_audio.cli.finetune import PREDICTIONS, finetune
from ssl_audio.cli.finetune_options import FinetuneCLI
from ssl_audio.cli.main import suggest
from ssl_audio.cli.parser import VerbParser, claimed, write_bytes, write_text
from ssl_audio.cli.pretrain import run as pretrain
from ssl_audio.cli.recipe_files import expected
from ssl_audio.cli.recipes import read_recipe
from ssl_audio.cli.trainer import quiet_training
from ssl_audio.data.labelled import LabelledShards
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.baselines import Statistics, statistics_baseline
from ssl_audio.evaluation.cost import Cost, cost_of
from ssl_audio.evaluation.predictions import Predictions, check_speakers, joined, read_predictions
from ssl_audio.training.finetuning import Finetuning
from ssl_audio.training.run import SUMMARY, Run


def run(words: list[str]) -> None:
    """Parse and compare."""
    parser = VerbParser(prog="ssl-audio compare", description="Encoders x starts (or adapters) x seeds, one budget.")
    parser.add_class_arguments(Plan, None, as_positional=False, skip={"options"})
    parser.add_argument(
        "--options",
        type=list[str] | str,
        default=[],
        help="More options of `finetune`, the same for all, as one would write them there: '--model.tuning.train=[] "
        "--data.target=speaker', or as a list.",
    )
    chosen = vars(parser.parse_args(_options_joined(words)))
    chosen.pop("config", None)
    plan = Plan(**{**chosen, "options": finetune_words(chosen["options"])})
    size = "demo" if plan.pretraining == "demo" else "tiny"
    with claimed(plan.folder):
        compare(
            plan if plan.encoders else dataclasses.replace(plan, encoders=[f"transformer_{size}", f"bimamba_{size}"])
        )


def _options_joined(words: list[str]) -> list[str]:
    """One option of finetune alone looks like one of compare's own; several in a string do not, for their spaces."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] == "--options" and word.startswith("--"):
            joined[-1] = f"--options={word}"
        else:
            joined.append(word)
    return joined


def compare(plan: Plan) -> None:
    """Run what has not been run, then write the table, the pictures and the report."""
    budget = plan.budget
    for encoder in plan.encoders:
        _encoder_file(encoder)
    refused = {
        (encoder, adapter): reason
        for encoder in plan.encoders
        for adapter in plan.adapters
        if (reason := refusal(_encoder_file(encoder), adapter_file(adapter))) is not None
    }
    for (encoder, adapter), reason in refused.items():
        print(f"{adapter} is left out for {encoder}: {reason}", file=sys.stderr)
    with quiet_training():  # a mistake in task or options is to be found before minutes of pretraining
        parsed = _cli(plan, "parsed", 0, ["--checkpoint=none"])
        if plan.intervals == "speakers":
            check_speakers(np.concatenate([parsed.data(fold).parts.test.speakers for fold in parsed.folds()]))
        folds = parsed.folds()
    bases = _check_checkpoints(plan, parsed, folds)
    check_plan(plan)
    print(f"{plan.seeds} seeds, {budget}", file=sys.stderr)
    checkpoints = {encoder: _pretrained(plan, encoder) for encoder in plan.encoders}
    cells: dict[tuple[str, str], list[Path]] = {}
    for seed in range(plan.seeds):
        for encoder in plan.encoders:
            for variant in plan.variants:
                if (encoder, variant) not in refused:
                    folder = _cell(plan, encoder, variant, seed, checkpoints[encoder], base=bases.get(encoder))
                    cells.setdefault((encoder, variant), []).append(folder)
    found = {cell: [_predictions(folder) for folder in folders] for cell, folders in cells.items()}
    for statistics in plan.baselines:
        found[statistics, "statistics"] = [_baseline(plan, statistics, seed) for seed in range(plan.seeds)]
    costs = {cell: _cost(plan, cell, folders[0]) for cell, folders in cells.items() if cell[1] != "scratch"}
    cost = {cell: spent for cell, spent in costs.items() if spent is not None}
    write_comparison(plan, found, cost, checkpoints, refused)


def _encoder_file(encoder: str) -> Path:
    return expected(encoder, ["encoders"], option="--encoders")


def _check_checkpoints(plan: Plan, parsed: FinetuneCLI, folds: list[int]) -> dict[str, Path]:
    """Those that were given are there, and of the encoders that they are given for; returns the bases of those that
    are adapters alone, which lie elsewhere than a cell would look for them.
    """
    hints, bases = Hints(**vars(parsed.config.hints)), {}
    for encoder, given in plan.checkpoints.items():
        if encoder not in plan.encoders:
            known = ", ".join(plan.encoders)
            raise RecipeError(
                f"--checkpoints {encoder}: is none of --encoders {known}{suggest(encoder, plan.encoders)}"
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


def _pretrained(plan: Plan, encoder: str) -> Path:
    """The encoder's pretrained checkpoint, or the pattern of one for each fold; it is made where it was not given."""
    if encoder in plan.checkpoints:
        return plan.checkpoints[encoder]
    runs = plan.folder / "pretrained"
    done = runs / "pretrain" / encoder / "0"
    if not (done / SUMMARY).exists():
        words = ["--config", plan.pretraining, "--runs", str(runs), "--name", encoder, "--probe=[]"]
        words.append(f"--model.backbone.encoder={_encoder_file(encoder)}")
        words += [] if plan.pretrain_steps is None else [f"--trainer.max_steps={plan.pretrain_steps}"]
        pretrain(words)
    return Run(done).last


def _cell(plan: Plan, encoder: str, variant: str, seed: int, checkpoint: Path, *, base: Path | None) -> Path:
    """One fine-tuning; from scratch it has the architecture of the checkpoint and its own fresh weights."""
    runs = plan.folder / "cells"
    name = f"{encoder}_{variant}_{seed}"
    folder = runs / "finetune" / name / "0"
    if (folder / SUMMARY).exists():
        return folder
    words = [f"--checkpoint={checkpoint}", *([] if base is None else [f"--base={base}"])]
    words += [f"--config=adapters/{variant}"] if plan.adapters else [f"--start={variant}"]
    print(f"\n{encoder}, {variant}, seed {seed} of {plan.seeds}", file=sys.stderr)
    with quiet_training():
        cli = _cli(plan, name, seed, words)
        _limit(cli, plan)
        finetune(cli)
    # Of dozens of trainings that nobody goes on with, only the weights that were tested are kept.
    for path in folder.glob("**/*.ckpt"):
        if path.name != "best.ckpt":
            path.unlink()
    return folder


def _cli(plan: Plan, name: str, seed: int, words: list[str]) -> FinetuneCLI:
    given = ["--config", plan.task, "--runs", str(plan.folder / "cells"), "--name", name, "--beside_scratch=false"]
    given += [f"--seed_everything={seed}", f"--data.seed={seed}", *words, *plan.options]
    return FinetuneCLI(Finetuning, LabelledShards, description="One cell of a comparison.", words=with_demo(given))


def _baseline(plan: Plan, statistics: Statistics, seed: int) -> Predictions:
    """The same task without an encoder."""
    kept = plan.folder / "baselines" / f"{statistics}_{seed}.parquet"
    if not kept.exists():
        print(f"\nlinear on {statistics}, seed {seed} of {plan.seeds}", file=sys.stderr)
        with quiet_training():
            cli = _cli(plan, f"{statistics}_{seed}", seed, ["--checkpoint=none"])
        found = [statistics_baseline(cli.data(fold), statistics) for fold in cli.folds()]
        write_bytes(kept, joined(found).parquet())
    return read_predictions(kept)


def _limit(cli: FinetuneCLI, plan: Plan) -> None:
    """Put the budget in the place of the task's epochs, in what is run and in what is written down of it."""
    if plan.seconds is not None:
        hours, rest = divmod(int(plan.seconds), 3600)
        limits: dict[str, Any] = {"max_time": f"00:{hours:02d}:{rest // 60:02d}:{rest % 60:02d}", "max_steps": -1}
    elif plan.steps is not None or plan.clips is not None:
        batch = int(cli.recipe["data"]["batch_clips"]) * int(cli.recipe["trainer"].get("accumulate_grad_batches") or 1)
        limits = {"max_steps": int(plan.steps or max(1, round((plan.clips or 0) / batch)))}
    else:
        return
    for name, value in {**limits, "max_epochs": -1}.items():
        setattr(cli.config.trainer, name, value)
        cli.recipe["trainer"][name] = value


def _cost(plan: Plan, cell: tuple[str, str], folder: Path) -> Cost | None:
    """Measured once, by itself, and kept: the trainings above ran in whatever company they had. None of neighbours,
    which train nothing.
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
    """Of all folds, in their order; it is the folders' but from the tenth on."""
    found = sorted(folder.glob(f"**/{PREDICTIONS}"), key=lambda path: (len(path.parent.name), path.parent.name))
    return joined([read_predictions(path) for path in found])
