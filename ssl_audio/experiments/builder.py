"""Module, data, trainer and run folder, built from recipes and options."""

import contextlib
import dataclasses
import functools
import io
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import yaml
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ssl_audio.checkpoints.checkpoint import load_checkpoint
from ssl_audio.data.module import ShardModule
from ssl_audio.data.remote import Remote, allow
from ssl_audio.errors import RecipeError, SslAudioError
from ssl_audio.experiments.assessment import Probing
from ssl_audio.experiments.budget import HELP, WHOLE, Budget
from ssl_audio.experiments.display import TERMINAL, Display, Silent
from ssl_audio.experiments.panel_content import WatchOptions, device_peak, looker
from ssl_audio.experiments.parsing import OneLine, add_runs_argument, one_line, quiet_warnings, unwrapped
from ssl_audio.experiments.recipes import asked_alone, recipe_name, with_recipe_paths, with_whole_lists
from ssl_audio.locking import BusyError, Lock
from ssl_audio.storing import sweep
from ssl_audio.training.alerts import Alerts
from ssl_audio.training.checkpoint_files import AtomicCheckpointIO
from ssl_audio.training.checkpointing import Checkpointing, Checkpoints
from ssl_audio.training.engines import default_strategy, is_first_process
from ssl_audio.training.metrics_log import MetricsLog
from ssl_audio.training.module import Training
from ssl_audio.training.pace import Pace, StepsInTime
from ssl_audio.training.panels import Panels
from ssl_audio.training.precision import default_precision
from ssl_audio.training.preemption import Stopping
from ssl_audio.training.random_state import RandomState
from ssl_audio.training.run import METRICS, START, Run, check_name, open_run, run_folder
from ssl_audio.training.wandb import send_alert, wandb_logger, wandb_wanted
from ssl_audio.training.watching import Watching

_LENGTHS = ("--trainer.max_steps", "--trainer.max_epochs", "--trainer.max_time")
_UNLIMITED = -1


class RecipeParser(OneLine, LightningArgumentParser):  # type: ignore[misc]
    """A parser for the verbs that train from a recipe."""


class _Parsed(Exception):  # noqa: N818 -- no error: all options were parsed
    pass


class RunBuilder(LightningCLI):
    """Builds module, data and trainer from recipes and options: three typed sections, `model`, `data` and `trainer`,
    and the name of the run.

    Args:
        words: Options as on the command line.
        held: Keeps the lock of the run until it is closed; None takes no lock, for callers that run nothing.
        display: Shows messages and progress.
    """

    verb: ClassVar[str]
    description: ClassVar[str]
    module_class: ClassVar[type[Training]]
    data_class: ClassVar[type[ShardModule]]
    checkpointing: ClassVar[Checkpointing] = Checkpointing()
    watch: ClassVar[WatchOptions] = WatchOptions()
    best_name: ClassVar[str] = "best.ckpt"
    open: Run
    parse_only: ClassVar[bool] = False

    def __init__(
        self, words: list[str], *, held: contextlib.ExitStack | None = None, display: Display = TERMINAL
    ) -> None:
        self._held = held
        # Only the first rank prints.
        self.display = display if is_first_process() else Silent()
        self._remote = asked_alone(words, "--remote", "none")
        self._asked = {name for name in (*_LENGTHS, "--budget") if asked_alone(words, name, "") != ""}
        super().__init__(
            self.module_class,
            self.data_class,
            run=False,
            args=with_whole_lists(self.completed(with_recipe_paths(words, self.verb))),
            parser_class=RecipeParser,
            parser_kwargs={"prog": f"ssl-audio {self.verb}", "description": self.description},
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
        # Modules refer to this object (their optimizer factory does) and are copied; a lock cannot be copied.
        self._held = None

    @classmethod
    def check_options(cls, words: list[str]) -> None:
        """Parse options and check their values; nothing is built.

        Raises:
            RecipeError: if the verb does not have an option, or an option cannot have its value.
        """
        only = type(cls.__name__, (cls,), {"parse_only": True})
        with quiet_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(_Parsed, SystemExit):
            only(words, display=Silent())

    def completed(self, words: list[str]) -> list[str]:
        """The options with those that the verb adds; recipes come first, with their full paths."""
        return words

    def add_arguments_to_parser(self, parser: Any) -> None:
        parser.add_argument(
            "--verb", type=Literal[self.verb], default=self.verb, help="Verb that runs this recipe as a stage."
        )
        parser.add_argument("--name", type=str | None, default=None, help="Name of the run; by default the recipe's.")
        add_runs_argument(parser)
        parser.add_argument("--budget", type=str | None, default=None, help=HELP)
        parser.add_argument(
            "--resume",
            type=str,
            default="auto",
            help="auto: resume an unfinished run of this name; never: start a new run; or a checkpoint to resume from.",
        )
        parser.add_argument(
            "--checkpoints",
            type=Checkpointing,
            default=self.checkpointing,
            help="When checkpoints are written, and which are kept.",
        )
        parser.add_argument(
            "--watch", type=WatchOptions, default=self.watch, help="What is logged besides losses, and when to alert."
        )
        parser.add_argument(
            "--remote",
            type=Remote,
            default="none",
            help="What data.shards may contain besides paths: urls, or also commands (`pipe:...`, run by a shell). "
            "Only on the command line: a recipe cannot set it.",
        )

    def parse_arguments(self, parser: Any, args: Any) -> None:
        super().parse_arguments(parser, args)
        self._check_values()
        if self.parse_only:
            raise _Parsed

    def _check_values(self) -> None:
        config = self.config
        seed = config.seed_everything
        if isinstance(seed, int) and not 0 <= seed < 2**32:
            raise RecipeError(f"seed_everything is {seed}; expected 0 to {2**32 - 1}")
        if config.remote != self._remote:
            raise RecipeError(
                f"remote: {config.remote} is set in a recipe; a recipe cannot give itself this permission: give "
                f"--remote {config.remote} on the command line"
            )
        check_name(config.name or recipe_name(config))
        Budget.read(config.budget)

    def before_instantiate_classes(self) -> None:
        config = self.config
        allow(config.remote)
        name = config.name or recipe_name(config)
        self.recipe = self.plain_config()
        for outside in ("config", "resume", "remote", "verb"):
            self.recipe.pop(outside, None)
        self.recipe["name"] = name
        self.open = open_run(self._folder(name), resume=config.resume)
        for damage in self.open.damaged:
            self.display.line(f"{damage}; resuming from {self.open.resume}")
        self._limit(self.open)

    def _limit(self, whole: Run) -> None:
        """Take the length of training from the budget, or from what an earlier start of this run decided.

        A budget or a length on the command line replaces both of the recipe; within a recipe the budget is an upper
        limit.

        Args:
            whole: The run; all its trainings have the same number of steps.
        """
        data = self.recipe["data"]
        budget = Budget.read(self.config.budget)
        if budget != WHOLE and "--budget" in self._asked and self._asked.isdisjoint(_LENGTHS):
            self._set_length(max_steps=_UNLIMITED, max_epochs=_UNLIMITED)
        elif "--budget" not in self._asked and not self._asked.isdisjoint(_LENGTHS):
            budget = WHOLE
        accumulated = int(self.recipe["trainer"].get("accumulate_grad_batches") or 1)
        steps = budget.steps_of(batch_clips=int(data["batch_clips"]) * accumulated)
        if steps is not None:
            most = int(self.recipe["trainer"].get("max_steps") or 0)
            self._set_length(max_steps=min(steps, most) if most > 0 else steps, max_epochs=_UNLIMITED)
            budget = WHOLE
        before = {} if self.config.resume == "never" else whole.read(START) or {}
        if budget.seconds is not None and before.get("budget") == budget.text and _is_count(before.get("steps")):
            self.display.line(f"{before['steps']} steps, which were decided for {budget.text} when the run was started")
            self._set_length(max_steps=before["steps"], max_epochs=_UNLIMITED)
            budget = WHOLE
        self.recipe["budget"], self.budget, self._whole = budget.text, budget, whole

    def _set_length(self, **limits: int) -> None:
        for name, value in limits.items():
            setattr(self.config.trainer, name, value)
            self.recipe["trainer"][name] = value

    def _decided(self, pace: Pace) -> None:
        """Keep a decided number of steps at once, so that a killed run and its other trainings take the same."""
        text, self.budget = self.budget.text, WHOLE
        self._set_length(max_steps=pace.steps, max_epochs=_UNLIMITED)
        self.recipe["budget"] = None
        if not is_first_process():
            return
        self._whole.note_start({"budget": text, **dataclasses.asdict(pace)})
        self._whole.save_recipe(self.recipe)
        self.display.line(
            f"{pace.step_seconds:.3g} s a step in the first {pace.measured}: {pace.steps} steps, about "
            f"{timedelta(seconds=round(pace.steps * pace.step_seconds))} of training"
        )

    @property
    def length_words(self) -> str:
        """How long training lasts, in words."""
        steps = self.trainer.max_steps
        if self.budget.seconds is None:
            return f"{steps} steps" if steps > 0 else "limited by time"
        most = f", {steps} at most" if steps > 0 else ""
        return f"as many steps as fit into {timedelta(seconds=int(self.budget.seconds))} of training{most}"

    def _folder(self, name: str) -> Path:
        """The folder of the run, locked if `held`."""
        runs, resume = self.config.runs, self.config.resume
        folder = run_folder(runs, self.verb, name, resume=resume)
        if self._held is None or not is_first_process():
            return folder
        while True:
            try:
                self._held.enter_context(Lock(folder))
            except BusyError:
                if resume == "auto":
                    raise
            except OSError as error:
                raise SslAudioError(
                    f"cannot write {folder} ({error.strerror}); choose another place with --runs"
                ) from error
            else:
                if resume == "auto" and run_folder(runs, self.verb, name, resume=resume) != folder:
                    raise BusyError(f"another process has just ended {folder}; give the same command again")
                if resume == "auto" or not folder.exists():
                    sweep(folder, deep=True)
                    return folder
            # Several processes may start new runs of one name at the same time.
            folder = folder.with_name(str(int(folder.name) + 1))

    def plain_config(self) -> dict[str, Any]:
        """All options with their values, as plain values that YAML can hold."""
        # Parsed, it is valid: to check it again takes two thirds of the time.
        text = self.parser.dump(self.config, skip_none=False, skip_unset=True, skip_validation=True)
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))

    @property
    def probing(self) -> list[Probing]:
        """Labelled shards on which panels score nearest neighbours."""
        return []

    def callbacks(self) -> list[Callback]:
        """Callbacks of the run: checkpoints, monitoring, panels."""
        watch: WatchOptions = self.config_init.watch
        send = functools.partial(send_alert, self.loggers)
        alerts = Alerts(self.open.folder, watch.limits, send=send)
        look = looker(self.open, self.datamodule, self.probing, self.loggers)
        settings = self.config_init.checkpoints
        self.checkpoints = Checkpoints(self.open.checkpoints, settings, best_name=self.best_name)
        return [
            self.checkpoints,
            Watching(alerts, peak=device_peak),
            Panels(look, alerts, every_steps=watch.panel_steps, share=watch.panel_share),
        ]

    def instantiate_classes(self) -> None:
        # Lightning would write the whole configuration out for modules that save it; ours is in `recipe.yaml`.
        self.config_dump: dict[str, Any] = {}
        with unwrapped():
            super().instantiate_classes()
        self.datamodule.read_at(self.model.backbone.frontend.sample_rate)
        self.datamodule.count_with(self.model.backbone.tokens_in)

    def instantiate_trainer(self, **extra: Any) -> L.Trainer:
        chosen = self._get(self.config_init, "trainer", default={})
        self.progress = self.display.training()
        self.loggers: list[Logger] = []
        callbacks: list[Callback] = [RandomState(), self.progress]
        wanted = chosen.get("enable_checkpointing") is not False
        callbacks += [each for each in self.callbacks() if wanted or not isinstance(each, Checkpoint)]
        if self.budget.seconds is not None:
            callbacks.append(StepsInTime(self.budget.seconds, decided=self._decided))
        callbacks.append(Stopping(self.checkpoints.save if wanted else None))
        self.loggers.append(metrics_log(self.open))
        if wandb_wanted():
            self.loggers.append(wandb_logger(self.open, self.recipe["name"]))
        precision = chosen.get("precision") or default_precision(str(chosen.get("accelerator") or "auto"))
        settings = {
            "precision": precision,
            "logger": self.loggers,
            "callbacks": callbacks + (chosen.get("callbacks") or []),
            "strategy": default_strategy(
                chosen.get("strategy"),
                devices=chosen.get("devices"),
                nodes=int(chosen.get("num_nodes") or 1),
                accumulated=int(chosen.get("accumulate_grad_batches") or 1),
            ),
            "plugins": [AtomicCheckpointIO(self.open.checkpoints), *_environment(), *_several(chosen.get("plugins"))],
        }
        try:
            return super().instantiate_trainer(**settings, **extra)
        except (MisconfigurationException, ValueError) as error:
            raise RecipeError(f"trainer: {one_line(str(error))}") from error


def _environment() -> list[Any]:
    """Under SLURM, Lightning would save inside the signal handler; we save between two steps.

    Where torchrun started the processes, also within a SLURM job, its variables say which rank this is.
    """
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return []
    return [SLURMEnvironment(auto_requeue=False)]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _several(chosen: Any) -> list[Any]:
    return chosen if isinstance(chosen, list) else [] if chosen is None else [chosen]


def metrics_log(this: Run) -> MetricsLog:
    """Logs to `metrics.csv`; rows up to the checkpoint that training resumes from are kept."""
    goes_on = this.resume is not None and this.resume.parent == this.checkpoints
    return MetricsLog(this.folder / METRICS, steps=load_checkpoint(this.resume).step if goes_on and this.resume else 0)
