"""`ssl-audio compare`: encoders, pretrained and from scratch, on one task under one budget."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jsonargparse.typing import PositiveInt

from ssl_audio.checkpoints.checkpoint import load_checkpoint
from ssl_audio.cli.fallback import with_demo
from ssl_audio.cli.finetune import PREDICTIONS, FinetuneCLI, finetune
from ssl_audio.cli.parser import VerbParser, write_text
from ssl_audio.cli.pretrain import run as pretrain
from ssl_audio.cli.recipes import RECIPES
from ssl_audio.cli.results import signed
from ssl_audio.cli.trainer import quiet_training
from ssl_audio.data.labelled import LabelledShards
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.cost import Cost, cost_of
from ssl_audio.evaluation.pictures import beside_picture, scores_picture
from ssl_audio.evaluation.predictions import Predictions, joined, read_predictions
from ssl_audio.evaluation.report import Table, page
from ssl_audio.training.finetuning import Finetuning
from ssl_audio.training.metrics_log import read_rows
from ssl_audio.training.run import METRICS, SUMMARY, Run, circumstances

STARTS = ("scratch", "pretrained")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is compared.

    Args:
        task: Recipe of `finetune`, or the file of one.
        encoders: Names of `recipes/encoders/<name>.yaml`; by default a Transformer and a Mamba of the same size, the
            demo's where the demo pretrains them.
        seeds: How many, from 0 on.
        pretraining: Recipe of `pretrain`; every encoder is pretrained by it.
        pretrain_steps: Its optimizer steps, the same for all.
        checkpoints: Pretrained checkpoints to take instead, by encoder: `{transformer_tiny: FILE}`.
        steps: Budget of every fine-tuning in optimizer steps, instead of the task's epochs.
        seconds: The same in seconds of training.
        clips: The same in clips seen, over all epochs.
        options: More options of `finetune`, such as `--model.method=linear`; the same for all.
        runs: Folder of all runs.
        name: Name of the comparison; by default the task's.
    """

    task: str
    encoders: list[str] = dataclasses.field(default_factory=list)
    seeds: PositiveInt = 3
    pretraining: str = "demo"
    pretrain_steps: PositiveInt | None = None
    checkpoints: dict[str, Path] = dataclasses.field(default_factory=dict)
    steps: PositiveInt | None = None
    seconds: PositiveInt | None = None
    clips: PositiveInt | None = None
    options: list[str] = dataclasses.field(default_factory=list)
    runs: Path = Path("runs")
    name: str | None = None

    @property
    def budget(self) -> str:
        """What every fine-tuning may spend, in words.

        Raises:
            RecipeError: if it is stated in more than one way.
        """
        stated = {name: getattr(self, name) for name in ("steps", "seconds", "clips")}
        stated = {name: number for name, number in stated.items() if number is not None}
        if len(stated) > 1:
            raise RecipeError(f"--{' and --'.join(stated)}: one budget for all; expected one of them")
        return next((f"{number} {name} each" for name, number in stated.items()), "the task's epochs each")

    @property
    def folder(self) -> Path:
        """Where the comparison lies; the same call goes on there."""
        return self.runs / "compare" / (self.name or Path(self.task).stem)


def run(words: list[str]) -> None:
    """Parse and compare."""
    parser = VerbParser(prog="ssl-audio compare", description="Encoders x {scratch, pretrained} x seeds, one budget.")
    parser.add_class_arguments(Plan, None, as_positional=False)
    chosen = vars(parser.parse_args(words))
    chosen.pop("config", None)
    plan = Plan(**chosen)
    size = "demo" if plan.pretraining == "demo" else "tiny"
    compare(plan if plan.encoders else dataclasses.replace(plan, encoders=[f"transformer_{size}", f"bimamba_{size}"]))


def compare(plan: Plan) -> None:
    """Run what has not been run, then write the table, the pictures and the report."""
    _check_plan(plan)
    print(f"{plan.seeds} seeds, {plan.budget}", file=sys.stderr)
    for encoder in plan.encoders:
        _encoder_file(encoder)
    checkpoints = {encoder: _pretrained(plan, encoder) for encoder in plan.encoders}
    cells: dict[str, dict[str, list[Path]]] = {}
    cost: dict[str, Cost] = {}
    for seed in range(plan.seeds):
        for encoder in plan.encoders:
            for start in STARTS:
                folder = _cell(plan, encoder, start, seed, checkpoints[encoder])
                cells.setdefault(encoder, {}).setdefault(start, []).append(folder)
    for encoder in plan.encoders:
        cost[encoder] = _cost(plan, encoder, cells[encoder]["pretrained"][0])
    _report(plan, cells, cost, checkpoints)


def _check_plan(plan: Plan) -> None:
    """A comparison goes on only under the same conditions; more seeds and encoders may join it.

    Raises:
        RecipeError: if cells made otherwise lie in the folder.
    """
    kept = plan.folder / "plan.json"
    now = {name: value for name, value in _plain(plan).items() if name not in ("seeds", "encoders", "runs", "name")}
    if kept.exists():
        before = json.loads(kept.read_text())
        now["checkpoints"] = {**before["checkpoints"], **now["checkpoints"]}
        before["checkpoints"] = {**now["checkpoints"], **before["checkpoints"]}
        for name, value in now.items():
            if before.get(name) != value:
                raise RecipeError(
                    f"{plan.folder}: was begun with {name} {before.get(name)}, not {value}; expected the same, or "
                    "another --name"
                )
    write_text(kept, json.dumps(now, indent=1))


def _encoder_file(encoder: str) -> Path:
    path = RECIPES / "encoders" / f"{encoder}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in (RECIPES / "encoders").glob("*.yaml")))
        raise RecipeError(f"--encoders {encoder}: no {path}; expected some of {known}")
    return path


def _pretrained(plan: Plan, encoder: str) -> Path:
    """The encoder's pretrained checkpoint; it is made where it was not given."""
    if encoder in plan.checkpoints:
        load_checkpoint(plan.checkpoints[encoder])
        return plan.checkpoints[encoder]
    runs = plan.folder / "pretrained"
    done = runs / "pretrain" / encoder / "0"
    if not (done / SUMMARY).exists():
        words = ["--config", plan.pretraining, "--runs", str(runs), "--name", encoder, "--probe=[]"]
        words.append(f"--model.backbone.encoder={_encoder_file(encoder)}")
        words += [] if plan.pretrain_steps is None else [f"--trainer.max_steps={plan.pretrain_steps}"]
        pretrain(words)
    return Run(done).last


def _cell(plan: Plan, encoder: str, start: str, seed: int, checkpoint: Path) -> Path:
    """One fine-tuning; from scratch it has the architecture of the checkpoint and its own fresh weights."""
    runs = plan.folder / "cells"
    name = f"{encoder}_{start}_{seed}"
    folder = runs / "finetune" / name / "0"
    if (folder / SUMMARY).exists():
        return folder
    words = ["--config", plan.task, "--runs", str(runs), "--name", name, f"--checkpoint={checkpoint}"]
    words += [f"--seed_everything={seed}", f"--data.seed={seed}", "--beside_scratch=false", f"--start={start}"]
    print(f"\n{encoder}, {start}, seed {seed} of {plan.seeds}", file=sys.stderr)
    with quiet_training():
        cli = FinetuneCLI(
            Finetuning,
            LabelledShards,
            description="One cell of a comparison.",
            words=with_demo([*words, *plan.options]),
        )
        _limit(cli, plan)
        return finetune(cli)


def _limit(cli: FinetuneCLI, plan: Plan) -> None:
    """Put the budget in the place of the task's epochs, in what is run and in what is written down of it."""
    if plan.seconds is not None:
        hours, rest = divmod(plan.seconds, 3600)
        limits: dict[str, Any] = {"max_time": f"00:{hours:02d}:{rest // 60:02d}:{rest % 60:02d}", "max_steps": -1}
    elif plan.steps is not None or plan.clips is not None:
        batch = int(cli.recipe["data"]["batch_clips"]) * int(cli.recipe["trainer"].get("accumulate_grad_batches") or 1)
        limits = {"max_steps": plan.steps or max(1, round((plan.clips or 0) / batch))}
    else:
        return
    for name, value in {**limits, "max_epochs": -1}.items():
        setattr(cli.config.trainer, name, value)
        cli.recipe["trainer"][name] = value


def _cost(plan: Plan, encoder: str, folder: Path) -> Cost:
    """Measured once, by itself, and kept: the trainings above ran in whatever company they had."""
    kept = plan.folder / f"cost_{encoder}.json"
    if kept.exists():
        return Cost(**json.loads(kept.read_text()))
    best = next(iter(sorted(folder.glob("**/best.ckpt"))))
    found = load_checkpoint(best)
    data = found.recipe["data"]
    cost = cost_of(found, clips=min(16, int(data["batch_clips"])), seconds=float(data["crop_seconds"]))
    write_text(kept, json.dumps(dataclasses.asdict(cost)))
    return cost


def _report(
    plan: Plan, cells: dict[str, dict[str, list[Path]]], cost: dict[str, Cost], checkpoints: dict[str, Path]
) -> None:
    found = {
        (encoder, start): [_predictions(folder) for folder in folders]
        for encoder, starts in cells.items()
        for start, folders in starts.items()
    }
    some = next(iter(found.values()))[0]
    head = "mAP" if some.several else "accuracy"
    rows: list[list[str | float]] = []
    for (encoder, start), seeds in found.items():
        scores = [one.headline for one in seeds]
        # A clip comes once a seed; its answers are drawn together.
        low, high = joined(seeds).interval()
        spent = cost[encoder]
        rows.append(
            [
                f"{encoder} {start}",
                float(np.mean(scores)),
                f"{low:.3f} to {high:.3f}",
                f"{np.std(scores):.3f}",
                f"{spent.parameters / 1e6:.2f} M",
                f"{spent.training_clips_per_second:.0f}",
                f"{spent.inference_clips_per_second:.0f}",
                f"{spent.peak_bytes / 1e6:.0f} MB",
                f"{spent.training_flops / 1e9:.2f} G",
            ]
        )
    titles = [
        "", head, "95 % interval", "over seeds", "parameters", "clips/s training", "clips/s inference", "memory",
        "FLOPs a clip",
    ]  # fmt: skip
    budget = f"{plan.seeds} seeds, {plan.budget}, same clips in the same order {' '.join(plan.options)}".rstrip()
    table = Table(f"{Path(plan.task).stem}: {budget}", titles, rows)
    differences = _differences(plan, found)
    picture = scores_picture(
        {
            encoder: {start: float(np.mean([one.headline for one in found[encoder, start]])) for start in STARTS}
            for encoder in plan.encoders
        },
        ylabel=head,
    )
    this = Run(plan.folder)
    summary = {
        "verb": "compare",
        "task": plan.task,
        "seeds": plan.seeds,
        "checkpoints": {encoder: str(path) for encoder, path in checkpoints.items()},
        "scores": {f"{e} {s}": [one.headline for one in seeds] for (e, s), seeds in found.items()},
        "rows": [dict(zip(titles, row, strict=True)) for row in rows],
        "cost": {encoder: dataclasses.asdict(spent) for encoder, spent in cost.items()},
        **circumstances([], torch.device("cpu")),
    }
    command = f"make compare TASK={plan.task}"
    details = {"Summary": json.dumps(summary, indent=1), "Plan": yaml.safe_dump(_plain(plan), sort_keys=False)}
    tables, pictures = [table, differences], {"Scores": picture}
    # The same objective on the same clips in the same order: what differs is the encoder.
    curves = beside_picture({encoder: read_rows(path.parents[1] / METRICS) for encoder, path in checkpoints.items()})
    if curves is not None:
        pictures["Pretraining"] = curves
        this.write("pretraining.png", curves)
    report = page(
        f"Comparison: {plan.folder.name}", budget, tables=tables, pictures=pictures, details=details, command=command
    )
    this.write("report.html", report)
    this.write("scores.png", picture)
    this.write("report.md", "\n\n".join(one.markdown() for one in tables) + "\n")
    this.save_summary(summary)
    for one in tables:
        print(f"\n{one.text()}")
    print(f"\nreport      {this.folder / 'report.html'}")


def _plain(plan: Plan) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(plan), default=str))


def _predictions(folder: Path) -> Predictions:
    return joined([read_predictions(path) for path in sorted(folder.glob(f"**/{PREDICTIONS}"))])


def _differences(plan: Plan, found: dict[tuple[str, str], list[Predictions]]) -> Table:
    """Pretrained against scratch for each encoder, and each pair of encoders pretrained."""
    pairs = [((encoder, "pretrained"), (encoder, "scratch")) for encoder in plan.encoders]
    pairs += [
        ((one, "pretrained"), (other, "pretrained"))
        for number, one in enumerate(plan.encoders)
        for other in plan.encoders[number + 1 :]
    ]
    rows = []
    for first, second in pairs:
        gain = joined(found[first]).against(joined(found[second]))
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
    return Table("differences on the same clips", ["", "gain", "95 % interval", "p", "a difference?"], rows)
