"""Fine-tuning: a task from a recipe, on every fold, then test metrics and a report."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from ssl_audio.checkpoints.adaptation import load_backbone
from ssl_audio.checkpoints.adapters_only import only_trained
from ssl_audio.checkpoints.base import shortened, tensors_digest
from ssl_audio.checkpoints.checkpoint import Checkpoint, answering, describe
from ssl_audio.checkpoints.imported import report as fates_report
from ssl_audio.checkpoints.newest import FOLD
from ssl_audio.checkpoints.opening import base_behind
from ssl_audio.checkpoints.sizes import Hints
from ssl_audio.data.labelled import LabelledShards
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.events.predictions import FrameMeasure, truth_of
from ssl_audio.evaluation.metrics import headline
from ssl_audio.evaluation.predictions import check_speakers, read_predictions
from ssl_audio.evaluation.screening import by_file, column_of
from ssl_audio.experiments.arguments import checked
from ssl_audio.experiments.audit import few_sources, made_here, was_audited
from ssl_audio.experiments.budget import WHOLE, Budget
from ssl_audio.experiments.choice import (
    begin_at_blocks,
    begin_at_probe,
    choose,
    copied,
    measure_statistics,
    neighbours,
    predict,
)
from ssl_audio.experiments.deciding import coarse, decide, decided, timelines
from ssl_audio.experiments.display import TERMINAL, Display
from ssl_audio.experiments.fallback import DEMOS, with_demo
from ssl_audio.experiments.finetune_builder import FinetuneBuilder, Start
from ssl_audio.experiments.finished import Finished
from ssl_audio.experiments.kept_head import keep_head
from ssl_audio.experiments.outcomes import TIMELINES, Outcome, write_report
from ssl_audio.experiments.overlap import heard_before
from ssl_audio.experiments.recipes import recipe_of
from ssl_audio.experiments.running import fit, quiet_training
from ssl_audio.experiments.values import NO_OPTIONS, Recipe, words_of
from ssl_audio.model.tuning import trained_tensors
from ssl_audio.training.checking import check_positions, check_training, is_limited
from ssl_audio.training.checkpoint_files import AtomicCheckpointIO
from ssl_audio.training.engines import end_process_group
from ssl_audio.training.finetuning import Finetuning
from ssl_audio.training.resuming import check_resume, check_unchanged
from ssl_audio.training.run import START, Run, circumstances

PREDICTIONS = "predictions.parquet"
BESIDE = "predictions_"  # and what they are of
BEST = "checkpoints/best.ckpt"
# Options besides model, data and trainer that decide what an unfinished run computes.
_BOUND = ("start", "beside_scratch", "keep_head", "statistics", "adaptation", "average_from_epoch", "patience")


@checked
def finetune(
    recipe: Recipe,
    *,
    checkpoint: str | Path | None = None,
    shards: Sequence[str | Path] | None = None,
    target: str | None = None,
    folds: Sequence[int] | None = None,
    start: Start | None = None,
    beside_scratch: bool | None = None,
    adapters: str | None = None,
    budget: Budget = WHOLE,
    seed: int | None = None,
    name: str | None = None,
    runs: str | Path = "runs",
    resume: str = "auto",
    options: Mapping[str, Any] = NO_OPTIONS,
    display: Display = TERMINAL,
) -> Finished | None:
    """Train for a task on labelled shards and test it once, like `ssl-audio finetune`.

    Args:
        recipe: Name or file of a recipe, or several; later ones override earlier ones.
        checkpoint: Checkpoint to start from: a file, `newest`, or `none`; instead of the recipe's.
        shards: Folders of shards, instead of the recipe's.
        target: Kind of label, instead of the recipe's.
        folds: Which folds to test on, from 0; all by default.
        start: `scratch` takes the checkpoint's architecture with fresh weights.
        beside_scratch: Also train the same from scratch, and compare.
        adapters: Name of a recipe of `recipes/adapters`.
        budget: Steps, clips or seconds instead of the recipe's epochs.
        seed: Of everything random, instead of the recipe's.
        name: Of the run; by default the recipe's.
        runs: Folder of all runs.
        resume: `auto` resumes an unfinished run of this name, `never` starts a new run; or a checkpoint to resume from.
        options: Any other option by its name on the command line, such as `{"model.head.pooling": "bands"}`.
        display: Shows messages and progress.

    Returns:
        The run on the first rank; None on the others.

    Raises:
        SslAudioError: if the recipe, the data or the machine do not allow it.
    """
    recipes = [recipe] if isinstance(recipe, str | Path) else list(recipe)
    recipes += [] if adapters is None else [f"adapters/{adapters}"]
    chosen = {
        "checkpoint": checkpoint,
        "data.shards": shards,
        "data.target": target,
        "folds": folds,
        "start": start,
        "beside_scratch": beside_scratch,
        "budget": budget.text,
        "seed_everything": seed,
        "data.seed": seed,
        "name": name,
        "runs": runs,
        "resume": resume,
    }
    return finetune_words(words_of(recipes, chosen, options), display=display)


def finetune_words(words: list[str], *, display: Display = TERMINAL) -> Finished | None:
    """The same, with options as on the command line."""
    with quiet_training(), contextlib.ExitStack() as held:
        return finetune_built(
            FinetuneBuilder(
                with_demo(words, check=FinetuneBuilder.check_options, display=display), held=held, display=display
            )
        )


def finetune_built(cli: FinetuneBuilder) -> Finished | None:
    """Train on every fold, test each once, and report; returns None except on the first rank."""
    whole = dataclasses.replace(cli.open, resume=None)
    data: LabelledShards = cli.datamodule
    if cli.config.keep_head and cli.source is None:
        raise RecipeError("--keep_head true, but there is no checkpoint; give one with --checkpoint")
    numbers = cli.folds()
    if whole.started:
        check_unchanged(recipe_of(whole), cli.recipe, _BOUND, whole.folder)
    if cli.source is not None and FOLD not in cli.config.checkpoint:
        _check_start(whole, cli.source, write=cli.trainer.is_global_zero)
    whole.save_recipe(cli.recipe)
    starts: list[Start] = [cli.config.start if cli.source is not None else "scratch"]
    if cli.config.beside_scratch and starts == ["pretrained"]:
        starts.append("scratch")
    alone = len(starts) * len(numbers) == 1
    if cli.config.intervals == "speakers":
        check_speakers(np.concatenate([cli.data(fold).parts.test.speakers for fold in numbers]))
    if cli.config.positive is not None:
        column_of(data.parts.labels, cli.config.positive)
    if cli.trainer.is_global_zero:
        _ask_for_audit(cli, data)
    outcomes: dict[str, list[Outcome]] = {}
    trained: list[Run] = []
    for start in starts:
        for fold in numbers:
            folder = whole.folder if alone else whole.folder / start / (f"fold{fold}" if len(numbers) > 1 else "")
            trained.append(Run(folder))
            outcomes.setdefault(start, []).append(_once(cli, trained[-1], start=start, fold=fold, alone=alone))
    end_process_group()
    if not cli.trainer.is_global_zero:
        return None
    facts = {
        "verb": "finetune",
        "name": cli.recipe["name"],
        "checkpoint": cli.config.checkpoint,
        "trained": cli.model.words,
        "demo": cli.config.demo is None and all(folder in DEMOS for folder in data.shards),
        **circumstances(data.shards, cli.trainer.strategy.root_device),
    }
    summary, text = write_report(
        whole, outcomes, facts, recipe=cli.recipe, over=cli.config.intervals, positive=cli.config.positive
    )
    best = [found.folder / BEST for found in trained if (found.folder / BEST).exists()]
    return Finished(whole, summary, text, best)


def _ask_for_audit(cli: FinetuneBuilder, data: LabelledShards) -> None:
    """Say once a run that nobody asked what else tells the labels, where the clips are from few speakers or files."""
    folders = [Path(folder) for folder in data.shards]
    few = few_sources(data.parts.train.index)
    if few is None or made_here(folders) or was_audited(Path(cli.config.runs), folders, data.target):
        return
    shown = ", ".join(map(str, folders))
    cli.display.line(
        f"training clips are from {few}: whether their level, noise or silence tells the {data.target} was not asked "
        f"yet; ssl-audio audit --shards '[{shown}]' --target {data.target}"
    )


def _once(cli: FinetuneBuilder, this: Run, *, start: Start, fold: int, alone: bool) -> Outcome:
    """One training and its one test; read from disk if it is finished."""
    done = this.folder / "outcome.json"
    if done.exists():
        beside = {
            path.stem.removeprefix(BESIDE): read_predictions(path)
            for path in sorted(this.folder.glob(f"{BESIDE}*.parquet"))
        }
        return Outcome.load(done, read_predictions(this.folder / PREDICTIONS), beside)
    resume = this.last if this.last.exists() else None
    if cli.config.resume not in ("auto", "never"):
        resume = Path(cli.config.resume)
    this = dataclasses.replace(this, resume=None if cli.config.resume == "never" else resume)
    module, data, trainer = cli.build(this, fold=fold)
    module.recipe = {**cli.recipe, "budget": None, "data": {**cli.recipe["data"], "fold": fold}}
    parts = data.parts
    data.follow(module.objective.frame_seconds(module.backbone))
    module.attach(data.facts, measure=headline(several=data.several), frame_measure=_frame_measure(data))
    fates, heard = [], None
    if start == "pretrained":
        assert cli.source is not None
        if FOLD in cli.config.checkpoint:
            _check_start(this, cli.source, write=trainer.is_global_zero)
        fates = load_backbone(module.backbone, cli.source, rule=cli.config.adaptation.rule)
        if cli.config.keep_head:
            kept = keep_head(module, cli.source)
            fates = [dataclasses.replace(f, outcome="used") if f.tensor in kept else f for f in fates]
        heard = heard_before(cli.source, parts.test, [Path(folder) for folder in data.shards])
    _check(module, data, trainer)
    if cli.config.statistics == "training":
        measure_statistics(module.backbone, parts.train, data)
    if trainer.is_global_zero:
        _announce(cli, module, data, start=start, fold=fold, fates=fates, heard=heard or 0)
    if module.options.kind == "knn":
        module.to(trainer.strategy.root_device)
        predictions, valid, chosen = neighbours(module, data)
        outcome = Outcome(
            start=start, fold=fold, valid=valid, chosen=chosen, steps=0, seconds=0.0, predictions=predictions
        )
    else:
        check_resume(this.resume, module.recipe)
        count_in_steps(trainer, data)
        probe = None
        if module.options.begin == "probe":
            cli.display.line(f"starts from a linear probe: validation {begin_at_probe(module, data):.3f}")
            probe = copied(module)
        if module.options.begin == "blocks":
            begin_at_blocks(module)
        module.objective.before_training(lambda: data.every(parts.train, replacing=True))
        module = fit(trainer, module, data, this, everywhere=True)
        waste = module.backbone.packing_waste
        if waste is not None and trainer.is_global_zero:
            cli.display.line(f"{waste:.1%} of the places in packed rows were padding")
        module.to(trainer.strategy.root_device)  # Lightning moved it to the CPU when training ended
        valid, chosen, last = choose(trainer, module, data, probe=probe)
        judged = decide(module, data, kind=cli.config.postprocessing)
        if trainer.is_global_zero:
            content = _content(cli, module, start=start, step=trainer.global_step)
            AtomicCheckpointIO().save_checkpoint(content, this.folder / BEST)
        with cli.display.bar("testing") as progress:
            predictions = decided(predict(module, data, parts.test, progress=progress), judged)
        beside = {}
        if data.noise is not None:
            beside["noise"] = predict(module, data, parts.test, noisy=True)
        if parts.test.starts is not None:
            beside |= {f"{name}_windows": found for name, found in {"clean": predictions, **beside}.items()}
            predictions = by_file(predictions, cli.config.decision)
            beside |= {name: by_file(beside[name], cli.config.decision) for name in beside if name == "noise"}
        drawn = timelines(module, data, parts.test, predictions) if trainer.is_global_zero else None
        if drawn is not None:
            this.write(TIMELINES, drawn)
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
            validation=None if judged is None else judged.summary(),
            beside=beside,
        )
    outcome = dataclasses.replace(outcome, replaced=data.replaced(), heard=heard)
    if trainer.is_global_zero:
        if outcome.replaced:
            cli.display.line(
                f"{len(outcome.replaced)} training clips could not be decoded and were replaced by others "
                "(summary.json)"
            )
        for name, others in outcome.beside.items():
            this.write(f"{BESIDE}{name}.parquet", others.parquet())
        this.write(PREDICTIONS, outcome.predictions.parquet())
        this.write("outcome.json", outcome.json())
    return outcome


def _check_start(this: Run, source: Checkpoint, *, write: bool) -> None:
    """Keep which weights a run starts from, and refuse to resume it from others.

    Raises:
        RecipeError: if it has a checkpoint or a result that began with others.
    """
    now = {"checkpoint": str(source.path), "digest": tensors_digest(source.weights)}
    before = this.read(START) if this.started else None
    if before is not None:
        if before.get("digest") != now["digest"]:
            raise RecipeError(
                f"{this.folder} was started from the weights of {before.get('checkpoint')} (sha256 "
                f"{shortened(str(before.get('digest')))}), not from {source.path} as it is now (sha256 "
                f"{shortened(now['digest'])}); give them back, or begin a new run with --resume never or another --name"
            )
    elif write:
        this.note_start(now)


def _frame_measure(data: LabelledShards) -> FrameMeasure | None:
    """PSDS1 of validation clips, where their labels are located in time."""
    if not data.located or data.frame_seconds is None:
        return None
    truth = truth_of(data.truth(data.parts.valid), crop_seconds=data.crop_seconds)
    return FrameMeasure(truth, hop_seconds=data.frame_seconds)


def _content(cli: FinetuneBuilder, module: Finetuning, *, start: Start, step: int) -> dict[str, Any]:
    """The tested weights: all, or only those that differ from the base where part of the backbone stayed frozen."""
    state, source = answering(module.state_dict()), cli.source
    trained = trained_tensors(module.backbone)
    every = {name for name, parameter in module.backbone.named_parameters() if parameter.numel()}
    if start == "scratch" or source is None or every <= trained:
        return {"state_dict": state, "global_step": step, "ssl_audio": describe(module.recipe, task=module.task)}
    return only_trained(
        state,
        module.recipe,
        base_behind(source),
        trained=trained,
        rule=cli.config.adaptation.rule,
        hints=Hints(**vars(cli.config.hints)) if source.base is None else source.base.hints,
        task=module.task,
        step=step,
    )


def _announce(
    cli: FinetuneBuilder, module: Finetuning, data: LabelledShards, *, start: Start, fold: int, fates: Any, heard: int
) -> None:
    parts = data.parts
    weights = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    answers = "clips" if parts.test.starts is None else "windows"
    where = f"fold {fold + 1} of {parts.folds}, " if parts.folds else ""
    cli.display.line(
        f"{cli.open.folder}: {where}{start}, {module.words}: {len(parts.labels)} labels, {len(parts.train)} "
        f"training, {len(parts.valid)} validation and {len(parts.test)} test {answers}; {weights / 1e6:.2f} M of "
        f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M parameters train"
    )
    if cli.budget.seconds is not None:
        cli.display.line(f"training takes {cli.length_words}; then the test")
    for adapter in module.backbone.adapters:
        if adapter.coverage:
            cli.display.line(f"{type(adapter).__name__} {adapter.coverage}")
    absent = [name for name, row in zip(parts.labels, parts.test.targets.T, strict=True) if not row.any()]
    if absent:
        shown = f"{', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''}"
        cli.display.line(
            f"no test clip has {shown} ({len(absent)} of {len(parts.labels)} labels): these labels are not tested"
        )
    whole = [part for part in (parts.valid, parts.test) if part.starts is None]
    cut = sum(int((part.index.seconds > data.crop_seconds + 1e-3).sum()) for part in whole)
    if cut:
        cli.display.line(
            f"{cut} of {len(parts.valid) + len(parts.test)} validation and test clips are longer than "
            f"data.crop_seconds {data.crop_seconds} and are cut to it"
        )
    too_long = coarse(data)
    if too_long is not None:
        cli.display.line(too_long)
    if heard:
        cli.display.line(
            f"{heard} of {len(parts.test)} test clips were in the pretraining data, without their labels; to "
            "exclude them, pretrain with --data.leave_out"
        )
    if fates and cli.source is not None and cli.source.path not in cli.reported:
        cli.reported.add(cli.source.path)
        cli.display.line(f"weights of {cli.source.path}: {fates_report(fates)}")


def _check(module: Finetuning, data: LabelledShards, trainer: L.Trainer) -> None:
    """Find contradictions of recipe, data and backbone before training."""
    check_training(module, data)
    if not module.objective.answers:
        raise RecipeError(
            f"model.objective: {type(module.objective.answering).__name__} gives no scores, so it can be neither "
            "validated nor tested on labels; expected an objective with `predict`, or `ssl-audio pretrain`"
        )
    if not is_limited(trainer) and (trainer.max_epochs or -1) < 0 and module.options.kind != "knn":
        raise RecipeError(
            "trainer.max_epochs is not set; set the length of training, such as --trainer.max_epochs 10 or "
            "--trainer.max_steps 1000"
        )
    longest = max(float(part.index.seconds.max()) for part in (data.parts.train, data.parts.valid, data.parts.test))
    check_positions(module.backbone, min(longest, data.crop_seconds))


def count_in_steps(trainer: L.Trainer, data: LabelledShards) -> None:
    """Convert epochs to steps: the stream of batches is endless, so training can resume anywhere within an epoch."""
    data.trainer = trainer
    epoch = data.epoch_steps
    if trainer.max_epochs is not None and trainer.max_epochs > 0 and trainer.max_steps <= 0:
        trainer.fit_loop.epoch_loop.max_steps = trainer.max_epochs * epoch
    trainer.fit_loop.max_epochs = -1
    if trainer.check_val_every_n_epoch is not None:
        share = trainer.val_check_interval
        steps = max(1, round(share * epoch)) if isinstance(share, float) else None
        batches = share if steps is None else steps * trainer.accumulate_grad_batches
        trainer.val_check_interval = batches * trainer.check_val_every_n_epoch
    # Counts the batches of the one endless epoch: Lightning miscounts those of several epochs after a restart.
    trainer.check_val_every_n_epoch = 1
