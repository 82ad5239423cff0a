"""Starting a training from the head of another one."""

import torch

from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.errors import RecipeError
from ssl_audio.training.finetuning import Finetuning


def keep_head(module: Finetuning, source: Checkpoint) -> set[str]:
    """Load the head of a checkpoint into the objective of a module.

    Args:
        module: With its objective attached.
        source: A fine-tuned checkpoint of the same labels.

    Returns:
        The names of its tensors in the checkpoint.

    Raises:
        RecipeError: if it has no head, or one of other labels or of another form.
    """
    if source.task is None:
        raise RecipeError(f"--keep_head: {source.path} has no head; expected a checkpoint of `ssl-audio finetune`")
    assert module.task is not None
    theirs, ours = [str(label) for label in source.task["labels"]], module.task["labels"]
    if theirs != ours:
        odd = sorted(set(theirs) ^ set(ours))
        what = f"{odd[0]!r} is a label of only one of them" if odd else "the same labels in another order"
        raise RecipeError(
            f"--keep_head: {source.path} tells {len(theirs)} labels apart and these data {len(ours)}, {what}; expected "
            "the same labels"
        )
    weights, target = source.part("objective"), module.objective.answering
    wanted = {name: tuple(value.shape) for name, value in target.state_dict().items()}
    have = {name: tuple(value.shape) for name, value in weights.items()}
    if wanted != have:
        name = next(name for name in {**wanted, **have} if wanted.get(name) != have.get(name))
        raise RecipeError(
            f"--keep_head: {source.path} has a head of another form ({name} is {have.get(name)}, and "
            f"{wanted.get(name)} in this recipe); expected the same objective and head"
        )
    with torch.no_grad():
        target.load_state_dict(weights)
    return {f"objective.{name}" for name in weights}
