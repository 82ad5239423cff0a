"""Pretraining: from a recipe to a run with its report."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ssl_audio.data.unlabelled import AudioShards
from ssl_audio.errors import RecipeError
from ssl_audio.experiments.arguments import checked
from ssl_audio.experiments.assessment import Probing, assess, check_probing
from ssl_audio.experiments.budget import WHOLE, Budget
from ssl_audio.experiments.builder import RunBuilder
from ssl_audio.experiments.display import TERMINAL, Display
from ssl_audio.experiments.fallback import with_demo
from ssl_audio.experiments.finished import Finished
from ssl_audio.experiments.log_mel import Statistics, of_manifests, own_statistics
from ssl_audio.experiments.running import fit, quiet_training
from ssl_audio.experiments.values import NO_OPTIONS, Recipe, words_of
from ssl_audio.training.checking import check_training, is_limited
from ssl_audio.training.engines import end_process_group
from ssl_audio.training.module import Training
from ssl_audio.training.resuming import check_resume
from ssl_audio.training.run import circumstances


class PretrainBuilder(RunBuilder):
    """Three typed sections, `model`, `data` and `trainer`, and the name of the run."""

    verb = "pretrain"
    description = "Pretrain an encoder on unlabelled shards."
    module_class = Training
    data_class = AudioShards

    def add_arguments_to_parser(self, parser: Any) -> None:
        super().add_arguments_to_parser(parser)
        # The objective of recipes that name none.
        parser.set_defaults({"model.objective": {"class_path": "ssl_audio.objectives.MaskedPatches"}})
        parser.add_argument(
            "--probe",
            type=list[Probing],
            default=[],
            help="Labelled shards on which the encoder is probed at the end.",
        )
        parser.add_argument(
            "--statistics",
            type=Statistics,
            default="recipe",
            help="Normalise with the mean and standard deviation of the recipe, or with those of the shards.",
        )

    @property
    def probing(self) -> list[Probing]:
        return self.config_init.probe


@checked
def pretrain(
    recipe: Recipe = "demo",
    *,
    shards: Sequence[str | Path] | None = None,
    max_steps: int | None = None,
    budget: Budget = WHOLE,
    seed: int | None = None,
    name: str | None = None,
    runs: str | Path = "runs",
    resume: str = "auto",
    options: Mapping[str, Any] = NO_OPTIONS,
    display: Display = TERMINAL,
) -> Finished | None:
    """Pretrain an encoder on unlabelled shards, like `ssl-audio pretrain`.

    Args:
        recipe: Name or file of a recipe, or several; later ones override earlier ones.
        shards: Folders of shards, instead of the recipe's.
        max_steps: Optimizer steps, instead of the recipe's.
        budget: Seconds, steps or clips instead of the recipe's steps.
        seed: Of everything random, instead of the recipe's.
        name: Of the run; by default the recipe's.
        runs: Folder of all runs.
        resume: `auto` resumes an unfinished run of this name, `never` starts a new run; or a checkpoint to resume from.
        options: Any other option by its name on the command line, such as `{"model.objective.clip_weight": 0}`.
        display: Shows messages and progress.

    Returns:
        The run on the first rank; None on the others.

    Raises:
        SslAudioError: if the recipe, the data or the machine do not allow it.
    """
    chosen = {
        "data.shards": shards,
        "trainer.max_steps": max_steps,
        "budget": budget.text,
        "seed_everything": seed,
        "data.seed": seed,
        "name": name,
    }
    return pretrain_words(words_of(recipe, {**chosen, "runs": runs, "resume": resume}, options), display=display)


def pretrain_words(words: list[str], *, display: Display = TERMINAL) -> Finished | None:
    """The same, with options as on the command line."""
    with quiet_training(), contextlib.ExitStack() as held:
        return pretrain_built(
            PretrainBuilder(
                with_demo(words, "pretrain", check=PretrainBuilder.check_options, display=display),
                held=held,
                display=display,
            )
        )


def pretrain_built(built: PretrainBuilder) -> Finished | None:
    """Train, then assess and report; returns None except on the first rank."""
    module, data, trainer, this = built.model, built.datamodule, built.trainer, built.open
    if not is_limited(trainer):
        raise RecipeError(
            "trainer.max_steps is not set; the stream of clips is endless, so set the length of training, "
            "such as --trainer.max_steps 1000 or --budget 1h"
        )
    module.attach(data.facts)
    check_training(module, data)
    check_resume(this.resume, built.recipe)
    check_probing(built.config_init.probe)
    clips = len(data.training_index)
    if trainer.is_global_zero:
        this.save_recipe(built.recipe)
    module.recipe = built.recipe
    action = "resuming" if this.resume else "starting"
    if trainer.is_global_zero:
        weights = sum(parameter.numel() for parameter in module.backbone.parameters())
        built.display.line(
            f"{action} {this.folder}: {type(module.backbone.encoder).__name__} with {weights / 1e6:.1f} M parameters, "
            f"{clips} clips, {built.length_words}, {trainer.precision} on {trainer.strategy.root_device}"
        )
    if this.resume is None:  # else the checkpoint has them
        _normalise(built)
    untrained = {name: value.clone() for name, value in module.backbone.state_dict().items()}
    module.objective.before_training(data.sample)
    whole = fit(trainer, module, data, this)
    replaced = data.replaced()
    end_process_group()
    if not trainer.is_global_zero:
        return None
    waste = module.backbone.packing_waste
    if waste is not None:
        built.display.line(f"{waste:.1%} of the places in packed rows were padding")
    if replaced:
        built.display.line(f"{len(replaced)} clips could not be decoded and were replaced; the summary lists them")
    summary = {
        "verb": "pretrain",
        "name": built.recipe["name"],
        "steps": trainer.global_step,
        "seconds": round(built.progress.seconds, 1),
        "clips_per_second": round(built.progress.clips_per_second, 2),
        "packing_waste": None if waste is None else round(waste, 4),
        "precision": str(trainer.precision),
        "final": {name: round(float(value), 6) for name, value in trainer.callback_metrics.items()},
        "replaced": replaced,
        "log_mel": dict(zip(("mean", "std"), map(float, module.backbone.frontend.statistics), strict=True)),
        **circumstances(data.shards, trainer.strategy.root_device),
    }
    # Compiling for lengths that occur once is not worth it.
    with torch.compiler.set_stance("force_eager"):
        text = assess(
            this,
            whole,
            data,
            summary,
            untrained=untrained,
            probing=built.config_init.probe,
            display=built.display,
        )
    return Finished(this, summary, text, [this.last])


def _normalise(built: PretrainBuilder) -> None:
    """Set the statistics that the recipe asks for, and say which in one line."""
    frontend, shards = built.model.backbone.frontend, built.datamodule.shards
    if built.config.statistics == "shards":
        own, source = own_statistics(frontend, shards, built.datamodule.training_index)
        frontend.set_statistics(*own)
        line = f"normalised by the mean {own[0]:.2f} and deviation {own[1]:.2f} of the shards ({source})"
    else:
        mean, std = frontend.statistics
        line = f"normalised by the recipe's mean {mean:.2f} and deviation {std:.2f}"
        found = of_manifests(shards)
        if found is not None:
            line += f"; the shards have {found[0]:.2f} and {found[1]:.2f} (--statistics shards takes theirs)"
    built.display.line(line)
