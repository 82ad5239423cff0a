"""The options of `ssl-audio finetune` besides model, data and trainer, and what is built from them."""

from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning.pytorch.callbacks import Callback, EarlyStopping

from ssl_audio import randomness
from ssl_audio.checkpoints.adaptation import Adaptation
from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.checkpoints.newest import FOLD, chosen_checkpoint
from ssl_audio.data.labelled import LabelledShards
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.events.deciding import Kind
from ssl_audio.evaluation.predictions import Over
from ssl_audio.evaluation.screening import Decision
from ssl_audio.experiments.backbone_choice import (
    add_start_arguments,
    changed,
    changes,
    check_changes,
    opened,
    parsed,
    with_backbone,
)
from ssl_audio.experiments.builder import RunBuilder
from ssl_audio.experiments.panel_content import WatchOptions
from ssl_audio.model.adapters import Adapter
from ssl_audio.training.averaging import WeightAverage
from ssl_audio.training.checkpointing import Checkpointing
from ssl_audio.training.finetuning import Finetuning
from ssl_audio.training.run import Run

Start = Literal["pretrained", "scratch"]


class FinetuneBuilder(RunBuilder):
    """Three typed sections, `model`, `data` and `trainer`, the name of the run, and the checkpoint it starts from."""

    verb = "finetune"
    description = "Fine-tune a checkpoint on labelled shards, and test it once."
    module_class = Finetuning
    data_class = LabelledShards
    checkpointing = Checkpointing(best="valid/score", highest=True)
    watch = WatchOptions(panel_steps=0)
    best_name = "chosen.ckpt"

    def add_arguments_to_parser(self, parser: Any) -> None:
        super().add_arguments_to_parser(parser)
        add_start_arguments(parser)
        parser.add_argument(
            "--adapters",
            type=list[Adapter] | None,
            default=None,
            help="Small parts added to the backbone, each with class_path and init_args, after those that the "
            "checkpoint has. `--config adapters/NAME` takes a recipe of them.",
        )
        parser.add_argument(
            "--statistics",
            type=Literal["checkpoint", "training"],
            default="checkpoint",
            help="Normalise with the checkpoint's mean and standard deviation, or with those of the training clips.",
        )
        parser.add_argument(
            "--beside_scratch", type=bool, default=False, help="Also train the same from scratch, and compare."
        )
        parser.add_argument(
            "--start",
            type=Start,
            default="pretrained",
            help="scratch: the architecture of the checkpoint with fresh weights.",
        )
        parser.add_argument(
            "--keep_head",
            type=bool,
            default=False,
            help="Also start from the head of the checkpoint; its labels must be those of the task.",
        )
        parser.add_argument(
            "--intervals",
            type=Over,
            default="clips",
            help="Resample clips for the confidence intervals (the score on other clips), or whole speakers (on "
            "other speakers).",
        )
        parser.add_argument(
            "--positive",
            type=str | None,
            default=None,
            help="Label that is screened for: also report sensitivity, specificity, AUC and calibration.",
        )
        parser.add_argument(
            "--decision",
            type=Decision,
            default="mean",
            help="Of a clip that is cut into windows (data.window_hop_seconds): the mean of their probabilities, or "
            "their vote.",
        )
        parser.add_argument(
            "--postprocessing",
            type=Kind,
            default="median",
            help="How scores of frames become events: `median` filters, boxes between `change_points`, or `none`; what "
            "it needs and the thresholds are tuned on validation clips, label by label.",
        )
        parser.add_argument(
            "--average_from_epoch",
            type=NonNegativeInt | None,
            default=None,
            help="Average the weights at the end of each epoch from this one (counted from 0), and use the mean "
            "if its validation score is the best.",
        )
        parser.add_argument(
            "--patience",
            type=PositiveInt | None,
            default=None,
            help="Stop after this many validations without improvement.",
        )
        parser.add_argument(
            "--demo", type=str | None, default=None, help="Recipe to run instead if the shards are missing."
        )
        parser.add_argument("--how_to_get", type=str | None, default=None, help="Where the corpus comes from.")

    def before_instantiate_classes(self) -> None:
        self.reported: set[Path] = set()  # checkpoints whose weights have been reported
        self.asked: dict[str, tuple[Any, Any]] | None = None  # options of the backbone besides a checkpoint
        self.added: list[Any] | None = None  # adapters besides those of the checkpoint
        self.source = self._choose_backbone((self.config.folds or [0])[0])
        super().before_instantiate_classes()

    def completed(self, words: list[str]) -> list[str]:
        return with_backbone(words)

    def _choose_backbone(self, fold: int) -> Checkpoint | None:
        """Write the architecture into the recipe, wherever the weights come from."""
        config = self.config
        path = chosen_checkpoint(config.checkpoint, config.runs, fold=fold)
        if path is not None:
            found = opened(path, config, fold=fold)
            spec = Adaptation(**vars(config.adaptation)).spec(found)
            if self.asked is None:
                self.asked = changes(parsed(spec), config.model.backbone)
                check_changes(self.asked, found, measured=config.statistics == "training")
            config.model.backbone = changed(spec, self.asked)
            if FOLD not in config.checkpoint:
                config.checkpoint = str(path)
        if self.added is None:
            self.added = config.adapters or []
            config.adapters = None  # they are in the backbone's recipe from here
        options = config.model.backbone.init_args
        if self.added and options.adapters != self.added:
            options.adapters = [*(options.adapters or []), *self.added]
        return None if path is None else found

    def callbacks(self) -> list[Callback]:
        callbacks = super().callbacks()
        if self.config.patience is not None:
            # A resumed trainer repeats the end of an epoch, without its validation.
            callbacks.append(
                EarlyStopping(
                    "valid/score", mode="max", patience=int(self.config.patience), check_on_train_epoch_end=False
                )
            )
        if self.config.average_from_epoch is not None:
            callbacks.append(WeightAverage(self.config.average_from_epoch))
        return callbacks

    def folds(self) -> list[int]:
        """The folds to test on, from 0; only 0 where there are none.

        Raises:
            RecipeError: if a fold was asked for that does not exist.
            CheckpointError: if the checkpoint of a fold is missing.
        """
        folds = self.datamodule.parts.folds
        wanted = self.config.folds if self.config.folds is not None else range(max(folds, 1))
        wrong = [fold for fold in wanted if fold >= max(folds, 1)]
        if wrong:
            raise RecipeError(f"--folds {wrong[0]}: there are {folds} folds, counted from 0")
        if FOLD in self.config.checkpoint:
            for fold in wanted:
                chosen_checkpoint(self.config.checkpoint, self.config.runs, fold=fold)
        return list(wanted)

    def data(self, fold: int) -> LabelledShards:
        """The task with this test fold."""
        self.config.data.fold = fold
        self.instantiate_classes()
        return self.datamodule

    def build(self, this: Run, *, fold: int) -> tuple[Finetuning, LabelledShards, L.Trainer]:
        """Module, data and trainer of one training, independent of what was trained before."""
        self.open = this
        self.config.data.fold = fold
        if FOLD in self.config.checkpoint:
            self.source = self._choose_backbone(fold)
            backbone = self.plain_config()["model"]["backbone"]
            self.recipe = {**self.recipe, "model": {**self.recipe["model"], "backbone": backbone}}
        torch.manual_seed(randomness.derive(int(self.config.seed_everything or 0), "finetune", fold) % 2**63)
        self.instantiate_classes()
        return self.model, self.datamodule, self.trainer
