"""The budget of a training, which replaces the epochs or steps of its recipe."""

import dataclasses
import numbers
from typing import Any

from jsonargparse.typing import PositiveInt

from ssl_audio.errors import RecipeError
from ssl_audio.experiments.builder import RunBuilder


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long a training lasts: one of the three, or none for the recipe's own length.

    Args:
        steps: Optimizer steps.
        seconds: Of training.
        clips: Training clips, counted over all epochs.

    Raises:
        RecipeError: if one is no whole number from 1 on, or there are several.
    """

    steps: PositiveInt | None = None
    seconds: PositiveInt | None = None
    clips: PositiveInt | None = None

    def __post_init__(self) -> None:
        for name, number in self.stated.items():
            if not isinstance(number, numbers.Integral) or isinstance(number, bool) or number < 1:
                raise RecipeError(f"budget: {name} is {number!r}; expected a whole number from 1 on")
        if len(self.stated) > 1:
            raise RecipeError(f"--{' and --'.join(self.stated)}: one budget for all; expected one of them")

    @property
    def stated(self) -> dict[str, int]:
        """The limits that it sets."""
        return {name: number for name, number in dataclasses.asdict(self).items() if number is not None}

    @property
    def words(self) -> str:
        """The budget in words."""
        return next((f"{number} {name} each" for name, number in self.stated.items()), "the task's epochs each")

    def limit(self, built: RunBuilder) -> None:
        """Replace the recipe's epochs or steps by the budget, in the trainer and in the saved recipe."""
        if self.seconds is not None:
            hours, rest = divmod(int(self.seconds), 3600)
            limits: dict[str, Any] = {"max_time": f"00:{hours:02d}:{rest // 60:02d}:{rest % 60:02d}", "max_steps": -1}
        elif self.steps is not None or self.clips is not None:
            data, trainer = built.recipe["data"], built.recipe["trainer"]
            batch = int(data["batch_clips"]) * int(trainer.get("accumulate_grad_batches") or 1)
            limits = {"max_steps": int(self.steps or max(1, round((self.clips or 0) / batch)))}
        else:
            return
        for name, value in {**limits, "max_epochs": -1}.items():
            setattr(built.config.trainer, name, value)
            built.recipe["trainer"][name] = value


WHOLE = Budget()
