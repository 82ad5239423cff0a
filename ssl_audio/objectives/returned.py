"""Checks of what an objective returns: an objective may be anybody's class, and a wrong shape fails far from it."""

from typing import Any

from torch import Tensor

from ssl_audio.errors import RecipeError
from ssl_audio.objectives.objective import Answer, Losses, Objective


def checked_losses(objective: Objective, losses: Any) -> Losses:
    """The losses that `forward` returned.

    Raises:
        RecipeError: if they are not scalars by name, with `loss` among them.
    """
    name = f"{type(objective).__name__}.forward"
    if not isinstance(losses, dict) or "loss" not in losses:
        found = f"the keys {sorted(map(str, losses))}" if isinstance(losses, dict) else f"a {type(losses).__name__}"
        raise RecipeError(f"{name} returned {found}; expected a dictionary of losses with the key 'loss'")
    for key, value in losses.items():
        if not isinstance(value, Tensor) or value.ndim:
            shape = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise RecipeError(f"{name} returned {shape} as {key!r}; expected a tensor of no dimensions")
    return losses


def checked_answer(objective: Objective, answer: Any, *, clips: int, labels: int | None) -> Answer:
    """The answer that `predict` returned.

    Args:
        objective: Whose.
        answer: What it returned.
        clips: Rows of the batch.
        labels: Of the task, if it is known.

    Raises:
        RecipeError: if it has no scores of clips, or not one for each clip and label.
    """
    name = f"{type(objective).__name__}.predict"
    if not isinstance(answer, Answer):
        raise RecipeError(f"{name} returned {type(answer).__name__}; expected an Answer")
    if answer.clips is None:
        raise RecipeError(f"{name} gives no scores of clips; expected Answer(clips=...) of shape (clip, label)")
    expected = (clips, answer.clips.shape[-1] if labels is None else labels)
    if tuple(answer.clips.shape) != expected:
        raise RecipeError(f"{name} returned scores of shape {tuple(answer.clips.shape)}; expected {expected}")
    return answer
