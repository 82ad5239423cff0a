"""One door for every checkpoint: ours, fine-tuned or not, and the published ones."""

from pathlib import Path

import torch

from ssl_audio.checkpoints.checkpoint import Checkpoint, is_ours, ours
from ssl_audio.checkpoints.layouts import convert
from ssl_audio.checkpoints.reading import read
from ssl_audio.checkpoints.sizes import NO_HINTS, Hints
from ssl_audio.errors import CheckpointError

# Published files may hold their tensors under one of these names, beside an optimizer or arguments.
_WRAPPERS = ("state_dict", "model", "model_state_dict")
_AUDIOSET_LABELS = 527


def open_checkpoint(path: Path, *, hints: Hints = NO_HINTS) -> Checkpoint:
    """Read a checkpoint, whoever wrote it, without executing anything in it.

    Args:
        path: Ours, or a published SSAST, AST, ViT or DeiT file.
        hints: What the tensors of a published file do not say.

    Raises:
        CheckpointError: if it is missing, damaged or of no known kind.
    """
    found = read(path)
    if is_ours(found):
        return ours(path, found)
    wrapped = next((found[name] for name in _WRAPPERS if isinstance(found.get(name), dict)), found)
    tensors = {name: value for name, value in wrapped.items() if isinstance(value, torch.Tensor)}
    try:
        imported = convert(tensors, hints)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (KeyError, RuntimeError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{path}: looks like a published checkpoint, but its tensors do not fit together ({error}); it may be cut "
            "off or of another architecture"
        ) from error
    task = None
    if "head.linear.bias" in imported.weights:
        count = len(imported.weights["head.linear.bias"])
        several = count == _AUDIOSET_LABELS if hints.several is None else hints.several
        task = {"target": "label", "labels": [str(number) for number in range(count)], "several": several}
        task["head"] = {"pooling": imported.pooling, "norm": "layer"}
    return Checkpoint(
        path=path,
        recipe={"model": {"backbone": imported.backbone}},
        weights=imported.weights,
        step=0,
        version="published",
        kind=imported.kind,
        task=task,
        fates=tuple(imported.fates),
        position_rule=imported.position_rule,
        image=imported.image,
    )
