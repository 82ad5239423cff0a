"""`ssl-audio pretrain`: train from a recipe, then show what was learnt."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, Timer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ssl_audio.checkpoints.checkpoint import load_checkpoint
from ssl_audio.cli.assess import Probing, assess, check_probing
from ssl_audio.cli.main import suggest
from ssl_audio.cli.parser import RecipeParser, one_line, quiet_warnings
from ssl_audio.cli.progress import TrainingProgress
from ssl_audio.data.corpora.corpus import SAMPLE_RATE
from ssl_audio.data.modules import AudioShards
from ssl_audio.errors import RecipeError, SslAudioError
from ssl_audio.training.precision import default_precision
from ssl_audio.training.pretraining import Pretraining
from ssl_audio.training.run import METRICS, Run, circumstances, open_run, read_rows

RECIPES = Path("recipes")
CHECKPOINT_STEPS = 100


class PretrainCLI(LightningCLI):
    """Three typed sections, `model`, `data` and `trainer`, and what the run is called."""

    run: Run

    def add_arguments_to_parser(self, parser: Any) -> None:
        parser.add_argument("--name", type=str | None, default=None, help="Name of the run; by default the recipe's.")
        parser.add_argument("--runs", type=Path, default=Path("runs"), help="Folder of all runs.")
        parser.add_argument(
            "--resume",
            type=str,
            default="auto",
            help="auto: go on with an unfinished run of this name; never: begin a new one; or a "
            "checkpoint to go on from.",
        )
        parser.add_argument(
            "--probe",
            type=list[Probing],
            default=[],
            help="Labelled shards that show at the end what was learnt.",
        )

    def before_instantiate_classes(self) -> None:
        config = self.config
        name = config.name or _recipe_name(config)
        self.recipe = yaml.safe_load(self.parser.dump(config, skip_none=False, skip_unset=True))
        for outside in ("config", "resume"):
            self.recipe.pop(outside, None)
        self.recipe["name"] = name
        self.open = open_run(config.runs, "pretrain", name, resume=config.resume)

    def instantiate_trainer(self, **extra: Any) -> L.Trainer:
        chosen = self._get(self.config_init, "trainer", default={})
        self.progress = TrainingProgress(self.config.data.batch_clips)
        callbacks: list[Callback] = [self.progress]
        if chosen.get("enable_checkpointing") is not False:
            callbacks.append(_checkpoints(self.open))
        loggers: list[Logger] = [metrics_logger(self.open)]
        if wandb_wanted():
            loggers.append(WandbLogger(project="ssl_audio", name=self.recipe["name"], save_dir=str(self.open.folder)))
        precision = chosen.get("precision") or default_precision(str(chosen.get("accelerator") or "auto"))
        settings = {
            "precision": precision,
            "logger": loggers,
            "callbacks": callbacks + (chosen.get("callbacks") or []),
        }
        try:
            return super().instantiate_trainer(**settings, **extra)
        except (MisconfigurationException, ValueError) as error:
            raise RecipeError(f"trainer: {one_line(str(error))}") from error


def run(words: list[str]) -> None:
    """Train from a recipe and leave a run folder behind."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    with quiet_warnings():
        cli = PretrainCLI(
            Pretraining,
            AudioShards,
            run=False,
            args=with_recipe_paths(words, "pretrain"),
            parser_class=RecipeParser,
            parser_kwargs={
                "prog": "ssl-audio pretrain",
                "description": "Pretrain an encoder on unlabelled shards.",
            },
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            trainer_defaults={
                "max_epochs": -1,
                "precision": None,
                "log_every_n_steps": 10,
                "enable_model_summary": False,
                "use_distributed_sampler": False,
                "num_sanity_val_steps": 0,
            },
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
    _check_resume(this, cli.recipe)
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
    try:
        trainer.fit(module, datamodule=data, ckpt_path=this.resume, weights_only=True)
    except OSError as error:
        raise SslAudioError(
            f"{this.folder}: {error.strerror or error}; the last whole checkpoint is in {this.checkpoints}"
        ) from error
    if trainer.interrupted:
        raise KeyboardInterrupt
    replaced = data.replaced()
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
        "replaced": dict(sorted(replaced.items())),
        "log_mel": {"mean": float(module.backbone.frontend.mean), "std": float(module.backbone.frontend.std)},
        **circumstances(data.shards, trainer.strategy.root_device),
    }
    assess(this, module, data, summary, untrained=untrained, probing=cli.config_init.probe)


def _check_resume(this: Run, recipe: dict[str, Any]) -> None:
    """Refuse to go on with the weights of another model."""
    if this.resume is None:
        return
    before, now = (flatten(described["model"]) for described in (load_checkpoint(this.resume).recipe, recipe))
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if changed:
        shown = "; ".join(f"{name} was {before.get(name)}, is {now.get(name)}" for name in changed[:3])
        raise RecipeError(
            f"{this.resume} is of another model ({shown}{'; ...' if len(changed) > 3 else ''}); begin a new run with "
            "--resume never or another --name"
        )


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested dictionaries by dotted name."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        name: leaf for key, value in tree.items() for name, leaf in flatten(value, f"{prefix}.{key}".strip(".")).items()
    }


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


def _checkpoints(this: Run) -> ModelCheckpoint:
    return ModelCheckpoint(
        dirpath=this.checkpoints,
        filename="step-{step}",
        auto_insert_metric_name=False,
        save_last=True,
        save_top_k=1,
        every_n_train_steps=CHECKPOINT_STEPS,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def metrics_logger(this: Run) -> CSVLogger:
    """Logs to `metrics.csv`; what was logged before the checkpoint that training goes on from is kept."""
    before: list[tuple[int, dict[str, float]]] = []
    if this.resume is not None and this.resume == this.last:
        reached = load_checkpoint(this.resume).step
        before = [row for row in read_rows(this.folder / METRICS) if row[0] < reached]
    logger = CSVLogger(str(this.folder), name="", version="", flush_logs_every_n_steps=50)
    for step, values in before:
        logger.log_metrics(dict(values), step)
    if before:
        logger.save()
    return logger


def _recipe_name(config: Any) -> str:
    paths = [path for path in (config.config or []) if path is not None]
    return "+".join(Path(str(path)).stem for path in paths) or "unnamed"


def wandb_wanted() -> bool:
    """Weights & Biases logs when there is a key or its mode was chosen, and never asks for an account."""
    mode = os.environ.get("WANDB_MODE", "")
    return mode in ("online", "offline") or (bool(os.environ.get("WANDB_API_KEY")) and mode != "disabled")


def with_recipe_paths(words: list[str], verb: str) -> list[str]:
    """Options with the names of recipes replaced by their paths: `--config demo` is `recipes/pretrain/demo.yaml`."""
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    return [
        _recipe_path(word, verb) if before in ("--config", "-c") else word
        for before, word in zip(["", *words], words, strict=False)
    ]


def _recipe_path(word: str, verb: str) -> str:
    if Path(word).is_file():
        return word
    here = RECIPES / verb / f"{word}.yaml"
    if here.is_file():
        return str(here)
    known = [path.stem for path in sorted((RECIPES / verb).glob("*.yaml"))]
    listed = f"; recipes here: {', '.join(known)}" if known else ""
    raise RecipeError(f"--config {word}: no such recipe{suggest(Path(word).stem, known)}{listed}")
