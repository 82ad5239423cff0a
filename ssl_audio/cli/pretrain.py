"""`ssl-audio pretrain`: train from a recipe, then show what was learnt."""

import contextlib
import copy
import functools
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Timer

from ssl_audio.cli.assess import Probing, assess, check_probing
from ssl_audio.cli.fallback import with_demo
from ssl_audio.cli.trainer import TrainingCLI, fit, quiet_training
from ssl_audio.cli.wandb import send_alert
from ssl_audio.cli.watch import Watch, device_peak, looker
from ssl_audio.data.corpora.corpus import SAMPLE_RATE
from ssl_audio.data.modules import AudioShards
from ssl_audio.errors import RecipeError
from ssl_audio.training.alerts import Alerts
from ssl_audio.training.checkpointing import Checkpointing, Checkpoints
from ssl_audio.training.engines import FullySharded, end_process_group
from ssl_audio.training.panels import Panels
from ssl_audio.training.pretraining import Pretraining
from ssl_audio.training.resuming import check_resume
from ssl_audio.training.run import circumstances
from ssl_audio.training.watching import Watching


class PretrainCLI(TrainingCLI):
    """Three typed sections, `model`, `data` and `trainer`, and what the run is called."""

    verb = "pretrain"

    def add_arguments_to_parser(self, parser: Any) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--probe",
            type=list[Probing],
            default=[],
            help="Labelled shards that show at the end what was learnt.",
        )

        parser.add_argument(
            "--checkpoints",
            type=Checkpointing,
            default=Checkpointing(),
            help="When checkpoints are written, and which are kept.",
        )

        parser.add_argument("--watch", type=Watch, default=Watch(), help="What is watched besides losses.")

    def callbacks(self) -> list[Callback]:
        watch: Watch = self.config_init.watch
        send = functools.partial(send_alert, self.loggers)
        alerts = Alerts(self.open.folder, watch.limits, send=send)
        look = looker(self.open, self.datamodule, self.config_init.probe, self.loggers)
        self.checkpoints = Checkpoints(self.open.checkpoints, self.config_init.checkpoints)
        return [
            self.checkpoints,
            Watching(alerts, peak=device_peak),
            Panels(look, alerts, every_steps=watch.panel_steps, share=watch.panel_share),
        ]

    def save(self, trainer: L.Trainer) -> Path:
        return self.checkpoints.save(trainer)


def run(words: list[str]) -> None:
    """Train from a recipe and leave a run folder behind."""
    with quiet_training(), contextlib.ExitStack() as held:
        cli = PretrainCLI(
            Pretraining,
            AudioShards,
            description="Pretrain an encoder on unlabelled shards.",
            words=with_demo(words, "pretrain"),
            held=held,
        )
        train(cli)


def train(cli: PretrainCLI) -> None:
    """Fit, and when it is done, assess and report."""
    module, data, trainer, this = cli.model, cli.datamodule, cli.trainer, cli.open
    limited = any(isinstance(callback, Timer) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    if trainer.max_steps <= 0 and not limited:
        raise RecipeError(
            "trainer.max_steps is not set; the stream of clips is endless, so say where training stops, "
            "such as --trainer.max_steps 1000 or --trainer.max_time 00:01:00:00"
        )
    _check_objective(module, data)
    check_resume(this.resume, cli.recipe)
    check_probing(cli.config_init.probe)
    clips = len(data.index(data.split))
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


def _check_objective(module: Pretraining, data: AudioShards) -> None:
    if module.backbone.frontend.sample_rate != SAMPLE_RATE:
        raise RecipeError(
            f"model.backbone.frontend: sample_rate is {module.backbone.frontend.sample_rate}, but shards "
            f"are read at {SAMPLE_RATE} Hz"
        )
    views = module.objective.masks_per_clip * data.crops_per_clip
    if module.objective.clip_weight and views < 2:
        raise RecipeError(
            f"model.objective.clip_weight is {module.objective.clip_weight}, but each clip has one view; set "
            "data.crops_per_clip or model.objective.masks_per_clip to 2, or the weight to 0"
        )
    if module.objective.negatives == "all" and data.batch_seconds is not None:
        raise RecipeError(
            "model.objective.negatives is all, which needs equally many clips on every rank; use data.batch_clips or "
            "data.global_clips in place of data.batch_seconds"
        )
    if data.crop_seconds is not None:
        backbone = module.backbone
        frames = backbone.fixed_frames or backbone.frontend.frames_of(
            round(data.crop_seconds * backbone.frontend.sample_rate)
        )
        if frames < backbone.patch[1]:
            raise RecipeError(
                f"data.crop_seconds: {data.crop_seconds} gives {frames} frames, fewer than the "
                f"{backbone.patch[1]} of one patch; "
                "use longer crops or smaller patches"
            )
        columns = (frames - backbone.patch[1]) // backbone.stride[1] + 1
        module.objective.masking.count(backbone.positions.table.shape[0] * columns)
