"""`ssl-audio finetune`: a task from a recipe, on every fold, then test metrics and a report."""

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, Timer

from ssl_audio import randomness
from ssl_audio.checkpoints.adaptation import Adaptation, load_backbone
from ssl_audio.checkpoints.checkpoint import Checkpoint, describe, load_checkpoint
from ssl_audio.checkpoints.imported import report as fates_report
from ssl_audio.checkpoints.newest import chosen_checkpoint, newest_checkpoint
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.cli.fallback import with_demo
from ssl_audio.cli.progress import bar
from ssl_audio.cli.results import Outcome, write_report
from ssl_audio.cli.trainer import TrainingCLI, fit, quiet_training
from ssl_audio.cli.trial import begin_at_probe, choose, copied, measure_statistics, neighbours, predict
from ssl_audio.data.corpora.corpus import SAMPLE_RATE
from ssl_audio.data.labelled import LabelledShards
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.metrics import headline
from ssl_audio.evaluation.predictions import read_predictions
from ssl_audio.model.backbone import Backbone
from ssl_audio.training.averaging import WeightAverage
from ssl_audio.training.finetuning import Finetuning
from ssl_audio.training.resuming import check_resume
from ssl_audio.training.run import Run, circumstances

Start = Literal["pretrained", "scratch"]
PREDICTIONS = "predictions.parquet"


# From scratch and with nothing said of the architecture, when there is no run to take it from.
_SMALL = {
    "class_path": "ssl_audio.model.backbone.Backbone",
    "init_args": {
        "frontend": {"class_path": "ssl_audio.audio.fbank.Fbank", "init_args": {}},
        "encoder": {"class_path": "ssl_audio.model.encoders.Transformer", "init_args": {}},
    },
}


class FinetuneCLI(TrainingCLI):
    """Three typed sections, `model`, `data` and `trainer`, what the run is called, and where it starts from."""

    verb = "finetune"

    def add_arguments_to_parser(self, parser: Any) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--checkpoint",
            type=str,
            default="newest",
            help="Where the backbone comes from: a checkpoint of ours or a published one, newest (of the "
            "pretraining runs), or none (from scratch).",
        )
        parser.add_argument("--adaptation", type=Adaptation, default=Adaptation(), help="What the task changes in it.")
        parser.add_argument(
            "--statistics",
            type=Literal["checkpoint", "training"],
            default="checkpoint",
            help="Normalise with the checkpoint's mean and deviation, or with those of the training clips.",
        )
        parser.add_argument(
            "--beside_scratch", type=bool, default=False, help="Train the same from scratch too, and compare."
        )
        parser.add_argument(
            "--start",
            type=Start,
            default="pretrained",
            help="scratch: the architecture of the checkpoint with fresh weights.",
        )
        parser.add_argument("--folds", type=list[NonNegativeInt] | None, default=None, help="Only these folds.")
        parser.add_argument(
            "--average_from_epoch",
            type=NonNegativeInt | None,
            default=None,
            help="Average the weights at the end of each epoch from this one on (counted from 0), and take the mean "
            "if validation finds it better than the best epoch.",
        )
        parser.add_argument(
            "--patience", type=PositiveInt | None, default=None, help="Stop after so many validations without a best."
        )
        parser.add_argument("--demo", type=str | None, default=None, help="Recipe for when the shards are missing.")
        parser.add_argument("--how_to_get", type=str | None, default=None, help="Where the corpus comes from.")

    def before_instantiate_classes(self) -> None:
        self.source = self._choose_backbone()
        super().before_instantiate_classes()

    def _choose_backbone(self) -> Checkpoint | None:
        """Put the architecture into the recipe, so that it stands there whatever the weights come from."""
        config = self.config
        path = chosen_checkpoint(config.checkpoint, config.runs)
        adaptation = Adaptation(**vars(config.adaptation))
        found = open_checkpoint(path) if path is not None else None
        if found is not None:
            config.checkpoint = str(path)
            config.model.backbone = _parsed(adaptation.spec(found))
        elif config.model.backbone is None:
            config.model.backbone = _parsed(self._untold())
        return found

    def _untold(self) -> dict[str, Any]:
        newest = newest_checkpoint(self.config.runs)
        spec = load_checkpoint(newest).spec if newest is not None else _SMALL
        return Adaptation(**vars(self.config.adaptation)).spec(
            Checkpoint(Path("scratch"), {"model": {"backbone": spec}}, {}, 0, "")
        )

    def callbacks(self) -> list[Callback]:
        chosen = ModelCheckpoint(
            dirpath=self.open.checkpoints,
            filename="chosen",
            monitor="valid/score",
            mode="max",
            save_top_k=1,
            # After validation within an epoch the epoch does not count as done yet, and would be gone on with anew.
            save_on_train_epoch_end=self.config.trainer.check_val_every_n_epoch is not None,
            enable_version_counter=False,
        )
        # Beside it, because one that watches a score keeps nothing, not even the last, while that does not rise.
        newest = ModelCheckpoint(
            dirpath=self.open.checkpoints,
            filename="newest",
            save_last=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        callbacks: list[Callback] = [chosen, newest]
        if self.config.patience is not None:
            callbacks.append(EarlyStopping("valid/score", mode="max", patience=self.config.patience))
        if self.config.average_from_epoch is not None:
            callbacks.append(WeightAverage(self.config.average_from_epoch))
        return callbacks

    def folds(self) -> list[int]:
        """The folds to test on, from 0; only 0 where there are none.

        Raises:
            RecipeError: if one was asked for that there is not.
        """
        folds = self.datamodule.parts.folds
        if self.config.folds is None:
            return list(range(folds)) if folds else [0]
        wrong = [fold for fold in self.config.folds if fold >= max(folds, 1)]
        if wrong:
            raise RecipeError(f"--folds {wrong[0]}: there are {folds} folds, counted from 0")
        return list(self.config.folds)

    def data(self, fold: int) -> LabelledShards:
        """The task with this fold to test on."""
        self.config.data.fold = fold
        self.instantiate_classes()
        return self.datamodule

    def build(self, this: Run, *, fold: int) -> tuple[Finetuning, LabelledShards, L.Trainer]:
        """Module, data and trainer of one training, begun alike whatever was trained before."""
        self.open = this
        self.config.data.fold = fold
        torch.manual_seed(randomness.derive(int(self.config.seed_everything or 0), "finetune", fold) % 2**63)
        self.instantiate_classes()
        return self.model, self.datamodule, self.trainer


def _parsed(spec: dict[str, Any]) -> Any:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Backbone, "backbone")
    return parser.parse_object({"backbone": spec}).backbone


def run(words: list[str]) -> None:
    """Fine-tune from a recipe and leave a run folder behind."""
    with quiet_training():
        cli = FinetuneCLI(
            Finetuning,
            LabelledShards,
            description="Fine-tune a checkpoint on labelled shards, and test it once.",
            words=with_demo(words),
        )
        finetune(cli)


def finetune(cli: FinetuneCLI) -> Path:
    """Train on every fold, test each once, and report; returns the run's folder."""
    whole = dataclasses.replace(cli.open, resume=None)
    data: LabelledShards = cli.datamodule
    numbers = cli.folds()
    whole.save_recipe(cli.recipe)
    starts: list[Start] = [cli.config.start if cli.source is not None else "scratch"]
    if cli.config.beside_scratch and starts == ["pretrained"]:
        starts.append("scratch")
    alone = len(starts) * len(numbers) == 1
    outcomes: dict[str, list[Outcome]] = {}
    for start in starts:
        for fold in numbers:
            folder = whole.folder if alone else whole.folder / start / (f"fold{fold}" if len(numbers) > 1 else "")
            outcomes.setdefault(start, []).append(_once(cli, Run(folder), start=start, fold=fold, alone=alone))
    if cli.trainer.is_global_zero:
        facts = {
            "verb": "finetune",
            "name": cli.recipe["name"],
            "checkpoint": cli.config.checkpoint,
            "method": cli.config.model.method,
            "demo": cli.config.demo is None and data.shards == [Path("shards/demo")],
            **circumstances(data.shards, cli.trainer.strategy.root_device),
        }
        write_report(whole, outcomes, facts, recipe=cli.recipe)
    return whole.folder


def _once(cli: FinetuneCLI, this: Run, *, start: Start, fold: int, alone: bool) -> Outcome:
    """One training and its one test; read from disk where it was done before."""
    done = this.folder / "outcome.json"
    if done.exists():
        return Outcome.load(done, read_predictions(this.folder / PREDICTIONS))
    resume = this.last if this.last.exists() else None
    if cli.config.resume not in ("auto", "never"):
        resume = Path(cli.config.resume)
    this = dataclasses.replace(this, resume=None if cli.config.resume == "never" else resume)
    module, data, trainer = cli.build(this, fold=fold)
    module.recipe = {**cli.recipe, "data": {**cli.recipe["data"], "fold": fold}}
    parts = data.parts
    _, measure = headline(several=data.several)
    module.attach(parts.labels, target=data.target, several=data.several, measure=measure)
    fates = []
    if start == "pretrained":
        assert cli.source is not None
        fates = load_backbone(module.backbone, cli.source, rule=cli.config.adaptation.rule)
    if cli.config.statistics == "training":
        measure_statistics(module.backbone, parts.train, data)
    _check(module, data, trainer)
    if trainer.is_global_zero:
        _announce(cli, module, data, start=start, fold=fold, fates=fates)
    if module.method == "knn":
        predictions, valid, chosen = neighbours(module, data)
        outcome = Outcome(
            start=start, fold=fold, valid=valid, chosen=chosen, steps=0, seconds=0.0, predictions=predictions
        )
    else:
        check_resume(this.resume, module.recipe)
        _set_length(trainer, data)
        probe = None
        if module.options.begin == "probe":
            print(f"begins at a linear probe: validation {begin_at_probe(module, data):.3f}", file=sys.stderr)
            probe = copied(module)
        fit(trainer, module, data, this)
        valid, chosen, last = choose(trainer, module, data, probe=probe)
        torch.save(
            {
                "state_dict": module.state_dict(),
                "global_step": trainer.global_step,
                "ssl_audio": describe(module.recipe, task=module.task),
            },
            this.checkpoints / "best.ckpt",
        )
        with bar("testing") as progress:
            predictions = predict(module, data, parts.test, progress=progress)
        outcome = Outcome(
            start=start,
            fold=fold,
            valid=valid,
            chosen=chosen,
            steps=trainer.global_step,
            seconds=round(cli.progress.seconds, 1),
            predictions=predictions,
            clips_per_second=round(cli.progress.clips_per_second, 2),
            last_valid=last,
        )
    if trainer.is_global_zero:
        this.write(PREDICTIONS, predictions.parquet())
        this.write("outcome.json", outcome.json())
    return outcome


def _announce(
    cli: FinetuneCLI, module: Finetuning, data: LabelledShards, *, start: Start, fold: int, fates: Any
) -> None:
    parts = data.parts
    weights = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    where = f"fold {fold + 1} of {parts.folds}, " if parts.folds else ""
    print(
        f"{cli.open.folder}: {where}{start}, {module.method}: {len(parts.labels)} labels, {len(parts.train)} clips "
        f"train, {len(parts.valid)} choose, {len(parts.test)} test; {weights / 1e6:.2f} M of "
        f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M parameters train",
        file=sys.stderr,
    )
    if fates and fold == 0:
        print(f"weights of {cli.config.checkpoint}: {fates_report(fates)}", file=sys.stderr)


def _check(module: Finetuning, data: LabelledShards, trainer: L.Trainer) -> None:
    """What cannot be must not be found out at the first batch."""
    backbone = module.backbone
    if backbone.frontend.sample_rate != SAMPLE_RATE:
        raise RecipeError(
            f"the backbone's frontend takes {backbone.frontend.sample_rate} Hz, but shards are read at {SAMPLE_RATE} Hz"
        )
    limited = any(isinstance(callback, Timer) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    if (trainer.max_epochs or -1) < 0 and trainer.max_steps <= 0 and not limited and module.method != "knn":
        raise RecipeError(
            "trainer.max_epochs is not set; say where training stops, such as --trainer.max_epochs 10 or "
            "--trainer.max_steps 1000"
        )
    longest = max(float(part.index.seconds.max()) for part in (data.parts.train, data.parts.valid, data.parts.test))
    seconds = min(longest, data.crop_seconds)
    frames = int(backbone.frontend.frames_of(round(seconds * SAMPLE_RATE)))
    covered = (backbone.positions.table.shape[1] - 1) * backbone.stride[1] + backbone.patch[1]
    columns = max(1, (frames - backbone.patch[1]) // backbone.stride[1] + 1)
    if backbone.fixed_frames is None and columns > backbone.positions.table.shape[1]:
        raise RecipeError(
            f"clips last up to {seconds:.2f} s, which is {frames} frames, but the backbone has positions for "
            f"{covered}; set --adaptation.frames {frames} or a smaller data.crop_seconds"
        )


def _set_length(trainer: L.Trainer, data: LabelledShards) -> None:
    """Say epochs in steps, so that schedule and progress know how long training will be.

    Only steps count from then on: a restarted trainer counts the epoch that it was saved at the end of twice.
    """
    if trainer.max_epochs is not None and trainer.max_epochs > 0 and trainer.max_steps <= 0:
        data.trainer = trainer
        batches = len(data.train_dataloader())
        steps = trainer.max_epochs * -(-batches // trainer.accumulate_grad_batches)
        trainer.fit_loop.epoch_loop.max_steps = steps
        trainer.fit_loop.max_epochs = -1
