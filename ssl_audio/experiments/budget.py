"""The budget of a training, which replaces the epochs or steps of its recipe."""

import dataclasses
import numbers
import re

from jsonargparse.typing import PositiveInt

from ssl_audio.errors import RecipeError
from ssl_audio.names import printable

_UNITS = {
    "s": ("seconds", 1),
    "m": ("seconds", 60),
    "h": ("seconds", 3600),
    "steps": ("steps", 1),
    "clips": ("clips", 1),
}
HELP = (
    "Length of training, instead of the recipe's epochs or steps: seconds, minutes or hours (150s, 20m, 2h), "
    "or '1000 steps' or '64000 clips', or none. Of a time, the speed of the first steps decides the number of steps. "
    "In a recipe it is an upper limit beside trainer.max_steps or max_epochs."
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long a training lasts: one of the three, or none for the recipe's own length.

    Args:
        steps: Optimizer steps.
        seconds: Of training: the speed of the first steps decides the number of steps.
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

    @classmethod
    def read(cls, text: str | None) -> "Budget":
        """The budget that a text such as `150s`, `20m`, `1000 steps` or `64000 clips` means.

        Raises:
            RecipeError: if it means none.
        """
        if text is None or text == "none":
            return cls()
        found = re.fullmatch(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([a-z]+)\s*", text)
        name, factor = _UNITS.get(found[2], ("", 1)) if found else ("", 1)
        number = float(found[1]) * factor if found else 0.0
        if not name or number < 1 or (factor == 1 and number % 1):
            raise RecipeError(
                f"budget: {printable(text)[:60]!r}; expected a time such as 150s, 20m or 2h, or '1000 steps' or "
                "'64000 clips'"
            )
        return cls(**{name: round(number)})

    @property
    def text(self) -> str | None:
        """What `read` reads; None for the recipe's own length."""
        return next(
            (f"{number}s" if name == "seconds" else f"{number} {name}" for name, number in self.stated.items()), None
        )

    @property
    def stated(self) -> dict[str, int]:
        """The limits that it sets."""
        return {name: number for name, number in dataclasses.asdict(self).items() if number is not None}

    @property
    def words(self) -> str:
        """The budget in words."""
        return next((f"{number} {name} each" for name, number in self.stated.items()), "the task's epochs each")

    def steps_of(self, *, batch_clips: int) -> int | None:
        """The number of optimizer steps; None if it is not known before training.

        Args:
            batch_clips: Clips of a step.
        """
        if self.clips is not None:
            return max(1, round(self.clips / batch_clips))
        return None if self.steps is None else int(self.steps)


WHOLE = Budget()
