"""What a comparison compares, and the check that a resumed comparison compares the same."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveInt

from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.baselines import Baseline, baseline_name
from ssl_audio.evaluation.predictions import Over
from ssl_audio.experiments.budget import Budget
from ssl_audio.experiments.output_files import write_text

STARTS = ("scratch", "pretrained")

# Options that may change from call to call: they extend a comparison, or name its folder.
_FREE = ("seeds", "encoders", "adapters", "baselines", "intervals", "runs", "name")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What is compared.

    Args:
        task: Recipe of `finetune`, or the file of one.
        encoders: Names of `recipes/encoders/<name>.yaml`; by default a Transformer and a Mamba of one size
            (`demo` where `pretraining` is the demo, else `tiny`).
        adapters: Names of `recipes/adapters/<name>.yaml` to compare instead of pretrained with scratch, all from the
            pretrained checkpoint; the first is the baseline of the others.
        seeds: How many, from 0 on.
        pretraining: Recipe of `pretrain`; every encoder is pretrained by it.
        pretrain_steps: Its optimizer steps, the same for all.
        checkpoints: Checkpoints to take instead, ours or published, by encoder: `{transformer_tiny: FILE}`; a path may
            hold `{fold}`, as for `finetune --checkpoint`.
        steps: Budget of every fine-tuning in optimizer steps, instead of the task's epochs.
        seconds: The same in seconds of training.
        clips: The same in clips seen, over all epochs.
        baselines: Linear classifiers on `cepstra` or `mel` statistics, levelled or not, without an encoder; or on the
            states of a frozen model in a folder of Hugging Face (extra `huggingface`).
        intervals: Resample `clips` for the confidence intervals (the score on other clips), or whole `speakers`.
        options: More options of `finetune` by name, such as `{model.tuning.train: []}`; the same for all.
        runs: Folder of all runs.
        name: Name of the comparison; by default the task's.
    """

    task: str
    encoders: list[str] = dataclasses.field(default_factory=list)
    adapters: list[str] = dataclasses.field(default_factory=list)
    seeds: PositiveInt = 3
    pretraining: str = "demo"
    pretrain_steps: PositiveInt | None = None
    checkpoints: dict[str, Path] = dataclasses.field(default_factory=dict)
    steps: PositiveInt | None = None
    seconds: PositiveInt | None = None
    clips: PositiveInt | None = None
    baselines: list[Baseline] = dataclasses.field(default_factory=lambda: ["cepstra"])
    intervals: Over = "clips"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    runs: Path = Path("runs")
    name: str | None = None

    @property
    def budget(self) -> Budget:
        """The budget of every fine-tuning.

        Raises:
            RecipeError: if it is stated in more than one way.
        """
        found = Budget(steps=self.steps, seconds=self.seconds, clips=self.clips)
        _ = found.words
        return found

    @property
    def variants(self) -> list[str]:
        """What each encoder is trained as."""
        return self.adapters or list(STARTS)

    @property
    def folder(self) -> Path:
        """The folder of the comparison; the same call resumes it."""
        return self.runs / "compare" / (self.name or Path(self.task).stem)


def baseline_cell(baseline: Baseline) -> tuple[str, str]:
    """What a baseline is called among encoders and variants."""
    return baseline_name(baseline), "frozen" if isinstance(baseline, Path) else "statistics"


def check_plan(plan: Comparison) -> None:
    """Check that the comparison was started with the same options; seeds, encoders and baselines may be added.

    Raises:
        RecipeError: if the folder holds cells with other options.
    """
    kept = plan.folder / "plan.json"
    now = {name: value for name, value in plain(plan).items() if name not in _FREE}
    if kept.exists():
        try:
            before = json.loads(kept.read_text(encoding="utf-8"))
            before["checkpoints"] = dict(before["checkpoints"])
            if isinstance(before["options"], list):  # as an earlier version wrote them
                before["options"] = options_in(before["options"])
        except (OSError, ValueError, TypeError, KeyError, RecipeError) as error:
            raise RecipeError(
                f"{kept}: unreadable ({error}), so the options of its cells are unknown; expected the plan of the "
                "comparison: remove the folder, or give another --name"
            ) from error
        now["checkpoints"] = {**before["checkpoints"], **now["checkpoints"]}
        before["checkpoints"] = {**now["checkpoints"], **before["checkpoints"]}
        for name, value in now.items():
            if before.get(name) != value:
                raise RecipeError(
                    f"{plan.folder}: was started with {name} {before.get(name)}, not {value}; expected the same, or "
                    "another --name"
                )
    write_text(kept, json.dumps(now, indent=1))


def options_in(words: Sequence[str]) -> dict[str, str]:
    """Options of `finetune` by name, from words as on its command line.

    Raises:
        RecipeError: if a word is not an option.
    """
    found: dict[str, str] = {}
    name: str | None = None
    for word in words:
        if name is not None and not word.startswith("--"):
            found[name], name = word, None
        elif word.startswith("--") and name is None:
            given, equals, value = word.removeprefix("--").partition("=")
            found, name = (found | {given: value}, None) if equals else (found, given)
        else:
            raise RecipeError(
                f"--options {' '.join(words)}: {name or word!r} is not an option with a value; expected options of "
                "finetune, such as '--model.tuning.train=[] --data.target=speaker'"
            )
    if name is not None:
        raise RecipeError(f"--options {' '.join(words)}: {name} has no value; expected --{name}=VALUE")
    return found


def plain(plan: Comparison) -> dict[str, Any]:
    """Its values, as plain values that YAML and JSON can hold."""
    return json.loads(json.dumps(dataclasses.asdict(plan), default=str))
