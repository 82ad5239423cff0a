"""`ssl-audio pretrain`: train from a recipe, then show what was learnt."""

import contextlib
import copy
import sys
from typing import Any

import torch

from ssl_audio.cli.assess import Probing, assess, check_probing
from ssl_audio.cli.fallback import with_demo
from ssl_audio.cli.trainer import TrainingCLI, fit, quiet_training
from ssl_audio.data.unlabelled import AudioShards
from ssl_audio.errors import RecipeError
from ssl_audio.training.checking import check_training, is_limited
from ssl_audio.training.engines import FullySharded, end_process_group
from ssl_audio.training.module import Training
from ssl_audio.training.resuming import check_resume
from ssl_audio.training.run import circumstances


class PretrainCLI(TrainingCLI):
    """Three typed sections, `model`, `data` and `trainer`, and what the run is called."""

    verb = "pretrain"

    def add_arguments_to_parser(self, parser: Any) -> None:
        super().add_arguments_to_parser(parser)
        # Recipes that name no objective mean this one.
        parser.set_defaults({"model.objective": {"class_path": "ssl_audio.objectives.MaskedPatches"}})
        parser.add_argument(
            "--probe",
            type=list[Probing],
            default=[],
            help="Labelled shards that show at the end what was learnt.",
        )

    @property
    def probing(self) -> list[Probing]:
        return self.config_init.probe


def run(words: list[str]) -> None:
    """Train from a recipe and leave a run folder behind."""
    with quiet_training(), contextlib.ExitStack() as held:
        cli = PretrainCLI(
            Training,
            AudioShards,
            description="Pretrain an encoder on unlabelled shards.",
            words=with_demo(words, "pretrain"),
            held=held,
        )
        train(cli)


def train(cli: PretrainCLI) -> None:
    """Fit, and when it is done, assess and report."""
    module, data, trainer, this = cli.model, cli.datamodule, cli.trainer, cli.open
    if not is_limited(trainer):
        raise RecipeError(
            "trainer.max_steps is not set; the stream of clips is endless, so say where training stops, "
            "such as --trainer.max_steps 1000 or --trainer.max_time 00:01:00:00"
        )
    module.attach(data.facts)
    check_training(module, data)
    check_resume(this.resume, cli.recipe)
    check_probing(cli.config_init.probe)
    clips = len(data.heard)
    if trainer.is_global_zero:
        this.save_recipe(cli.recipe)
    module.recipe = cli.recipe
    begun = "going on with" if this.resume else "beginning"
    if trainer.is_global_zero:
        length = f"{trainer.max_steps} steps" if trainer.max_steps > 0 else "limited by time"
        weights = sum(parameter.numel() for parameter in module.backbone.parameters())
        print(
            f"{begun} {this.folder}: {type(module.backbone.encoder).__name__} with {weights / 1e6:.1f} M parameters, "
            f"{clips} clips, {length}, {trainer.precision} on {trainer.strategy.root_device}",
            file=sys.stderr,
        )
    untrained = {name: value.clone() for name, value in module.backbone.state_dict().items()}
    whole = copy.deepcopy(module) if isinstance(trainer.strategy, FullySharded) else module
    fit(trainer, module, data, this)
    if whole is not module:
        # Empty but on the first rank; all of them must ask.
        weights_of_all = trainer.strategy.lightning_module_state_dict()
        if trainer.is_global_zero:
            whole.load_state_dict(weights_of_all)
    replaced = data.replaced()
    end_process_group()
    if not trainer.is_global_zero:
        return
    if replaced:
        print(f"{len(replaced)} clips could not be decoded and were replaced; the summary lists them", file=sys.stderr)
    summary = {
        "verb": "pretrain",
        "name": cli.recipe["name"],
        "steps": trainer.global_step,
        "seconds": round(cli.progress.seconds, 1),
        "clips_per_second": round(cli.progress.clips_per_second, 2),
        "precision": str(trainer.precision),
        "final": {name: round(float(value), 6) for name, value in trainer.callback_metrics.items()},
        "replaced": replaced,
        "log_mel": {"mean": float(module.backbone.frontend.mean), "std": float(module.backbone.frontend.std)},
        **circumstances(data.shards, trainer.strategy.root_device),
    }
    # Lengths that come once are not worth compiling for.
    with torch.compiler.set_stance("force_eager"):
        assess(this, whole, data, summary, untrained=untrained, probing=cli.config_init.probe)
