"""What a continual-learning experiment learns in which order and how, and the check that a resumed one is the same."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import yaml
from jsonargparse.typing import NonNegativeInt, PositiveInt

from ssl_audio.errors import RecipeError
from ssl_audio.experiments.continual_methods import Method
from ssl_audio.experiments.output_files import write_text
from ssl_audio.experiments.values import OptionValue
from ssl_audio.names import suggest
from ssl_audio.training.run import Run

PLAN = "plan.json"
_FREE = ("seeds", "orders", "runs", "name", "methods", "unknown", "draws")

DEVICES = "trainer.devices"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A task of a sequence.

    Args:
        recipe: Recipe of `finetune`, or the file of one.
        options: Options of `finetune` by name, such as `{data.shards: [shards/fsdd], data.target: label}`.
    """

    recipe: str
    options: dict[str, OptionValue] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Continual:
    """Tasks that are learnt one after the other.

    Args:
        tasks: By name, in their order.
        orders: Orders to learn them in, each a list of all names; by default the order of `tasks`.
        methods: How they are learnt, by a name for tables; each a class with its options.
        checkpoint: Checkpoint that all methods begin at, ours or published; `none` pretrains one.
        pretraining: Recipe of that pretraining, or several.
        pretrain_steps: Its optimizer steps; 0 takes the encoder with random weights.
        pretrain_options: Options of `pretrain` by name.
        steps: Optimizer steps of each training, instead of the recipes'.
        seeds: How many, from 0 on: of the weights, the order of clips, and which clips are few or kept.
        options: Options of every training, which override the recipes; those of a task and of a method override them.
        unknown: Tasks that are also told apart from one another (the class-incremental case, where nobody says which
            task a clip is of); each with one label a clip.
        draws: Resamples of the test clips for the intervals.
        runs: Folder of all runs.
        name: Name of the experiment; by default the recipe's.
    """

    tasks: dict[str, Task]
    orders: list[list[str]] = dataclasses.field(default_factory=list)
    methods: dict[str, Method] = dataclasses.field(default_factory=dict)
    checkpoint: str = "none"
    pretraining: str | list[str] = "demo"
    pretrain_steps: NonNegativeInt | None = None
    pretrain_options: dict[str, OptionValue] = dataclasses.field(default_factory=dict)
    steps: PositiveInt | None = None
    seeds: PositiveInt = 1
    options: dict[str, OptionValue] = dataclasses.field(default_factory=dict)
    unknown: list[str] = dataclasses.field(default_factory=list)
    draws: PositiveInt = 500
    runs: Path = Path("runs")
    name: str | None = None

    @property
    def folder(self) -> Path:
        """The folder of the experiment; the same call resumes it."""
        return self.runs / "continual" / (self.name or "unnamed")

    @property
    def every_order(self) -> list[list[str]]:
        """The orders, each with all tasks."""
        return self.orders or [list(self.tasks)]

    def check(self) -> None:
        """Find contradictions before anything is trained.

        Raises:
            RecipeError: naming the option.
        """
        if not self.tasks:
            raise RecipeError("tasks: there are none; expected names with a recipe each")
        if not self.methods:
            raise RecipeError(
                "methods: there are none; expected names with a class each, such as {adapters: {class_path: Adapters, "
                "init_args: {adapters: conv_pass}}, all: {class_path: Sequential}}"
            )
        for order in self.orders:
            if sorted(order) != sorted(self.tasks):
                odd = next((name for name in order if name not in self.tasks), None)
                why = f"{odd} is none of them{suggest(odd, list(self.tasks))}" if odd else "each once"
                raise RecipeError(f"orders: {order}; expected all of {', '.join(self.tasks)}: {why}")
        for name in self.unknown:
            if name not in self.tasks:
                raise RecipeError(
                    f"unknown: {name} is none of the tasks {', '.join(self.tasks)}{suggest(name, list(self.tasks))}"
                )
        if len(self.unknown) == 1:
            raise RecipeError(f"unknown: {self.unknown[0]} alone cannot be told from others; expected several tasks")
        for name in self.methods:
            if not name.replace("_", "").replace("-", "").isalnum():
                raise RecipeError(f"{name!r}: expected a name of letters, digits, - and _, which folders are called by")
        for name in self.tasks:
            if not name.replace("_", "").isalnum():
                raise RecipeError(
                    f"{name!r}: expected a name of letters, digits and _, since folders are called by such names "
                    "joined by -"
                )
        several = [self.pretrain_options, self.options, *(task.options for task in self.tasks.values())]
        several += [method.options for method in self.methods.values()]
        for options in several:
            if not _is_one(options.get(DEVICES, 1)) or options.get("trainer.num_nodes", 1) not in (1, "1"):
                raise RecipeError(
                    f"options: {DEVICES} {_shown(options.get(DEVICES, 1))}, trainer.num_nodes "
                    f"{_shown(options.get('trainer.num_nodes', 1))}; tasks are learnt on one device: expected 1 "
                    "(methods on machines of their own: one --name each)"
                )


def plain(plan: Continual) -> dict[str, Any]:
    """Its values, as plain values that YAML and JSON can hold."""
    fields = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    fields["tasks"] = {name: dataclasses.asdict(task) for name, task in plan.tasks.items()}
    fields["methods"] = {name: method.described() for name, method in plan.methods.items()}
    return json.loads(json.dumps(fields, default=str))


def check_resumed(plan: Continual) -> dict[str, Any]:
    """Check that the experiment was started with the same options; seeds, orders and methods may be added.

    Returns:
        What `keep_plan` writes.

    Raises:
        RecipeError: if the folder holds results of other options.
    """
    found = plain(plan)
    now = {name: value for name, value in found.items() if name not in _FREE}
    now |= {f"methods.{name}": value for name, value in found["methods"].items()}
    before = Run(plan.folder).read(PLAN)
    if before is None:
        return now
    gone = [name for name in before if not name.startswith("methods.") and name not in now]
    for name in [*now, *gone]:
        if name in before and before[name] != now.get(name):
            raise RecipeError(
                f"{plan.folder}: was started with {name} {_shown(before[name])}, not {_shown(now.get(name))}; "
                "expected the same, or another --name"
            )
    return {**before, **now}


def keep_plan(plan: Continual, told: dict[str, Any]) -> None:
    """Write down what `check_resumed` compares later calls with."""
    write_text(plan.folder / PLAN, json.dumps(told, indent=1))


def _is_one(devices: Any) -> bool:
    """Whether `trainer.devices` names one device."""
    return devices in (1, "1") or (isinstance(devices, list) and len(devices) == 1)


def _shown(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip().removesuffix("...").strip()
    return text if len(text) <= 200 else f"{text[:197]}..."
