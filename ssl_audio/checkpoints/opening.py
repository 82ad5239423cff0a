"""One door for every checkpoint: ours, fine-tuned or not, and the published ones."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from ssl_audio.checkpoints import earlier
from ssl_audio.checkpoints.adapters_only import base_of, check_base, complete, is_base
from ssl_audio.checkpoints.base import Base, places_of
from ssl_audio.checkpoints.checkpoint import Checkpoint, is_ours, ours
from ssl_audio.checkpoints.hugging_face_folders import is_folder, tensors_of, weights_file
from ssl_audio.checkpoints.hugging_face_folders import told as of_folder
from ssl_audio.checkpoints.peft import BESIDE, is_peft, with_lora
from ssl_audio.checkpoints.published_layouts import convert
from ssl_audio.checkpoints.reading import read
from ssl_audio.checkpoints.sizes import NO_HINTS, Hints
from ssl_audio.errors import CheckpointError, SslAudioError

# Published files may hold their tensors under one of these names, beside an optimizer or arguments.
_WRAPPERS = ("state_dict", "model", "model_state_dict")
_AUDIOSET_LABELS = 527


def open_checkpoint(
    path: Path, *, hints: Hints = NO_HINTS, base: Path | None = None, runs: Path = Path("runs")
) -> Checkpoint:
    """Read a checkpoint, whoever wrote it, without executing anything in it.

    Args:
        path: Ours, whole or what trained on a base; a folder of peft's with LoRA; a published SSAST, SSAMBA, AST,
            AudioMAE, Dasheng, ViT or DeiT file; or a folder of Hugging Face or timm with one of them, whose labels
            have names.
        hints: What the tensors of a published file do not say.
        base: What an adapter checkpoint was trained on; None looks for it, by its digest, below `runs` and beside
            the file.
        runs: The folder of all runs.

    Raises:
        CheckpointError: if it is missing, damaged or of no known kind, or its base is not found or another one.
    """
    found = _told(path) if is_peft(path) else open_alone(path, hints=hints)
    if found is None and base is None:
        raise CheckpointError(
            f"{path}: is a folder of peft's and does not say what it was trained on; give that with --base FILE (in "
            "Python base=FILE)"
        )
    if found is not None and found.base is None:
        if base is not None:
            raise CheckpointError(f"{path}: is whole and needs no base; leave {base} out")
        if hints != NO_HINTS and not found.fates:
            raise CheckpointError(
                f"{path}: is a checkpoint of ssl_audio, which holds these options itself; leave --hints out"
            )
        return found
    if base is None:
        assert found is not None
        whole = _found(found, runs)
    else:
        known = NO_HINTS if found is None or found.base is None else found.base.hints
        whole = base_behind(open_checkpoint(base, hints=known if hints == NO_HINTS else hints, runs=runs))
    return complete(adapters_on(path, whole, base_of(whole)), whole)


def adapters_on(path: Path, whole: Checkpoint, known: Base) -> Checkpoint:
    """An adapter checkpoint as its file or its folder of peft's has it, without the base.

    Args:
        path: Where it lies.
        whole: The base that it is for.
        known: What that is known by.

    Raises:
        CheckpointError: if it is no adapter checkpoint, or of another base.
    """
    found = _told(path) if is_peft(path) else open_alone(path)
    if found is None:
        told = {"model": {"backbone": whole.spec}}
        return with_lora(Checkpoint(path, told, {}, 0, "peft", kind="peft", base=known), path, whole)
    if found.base is None:
        raise CheckpointError(f"{path}: is whole; expected an adapter checkpoint of {known.words}")
    check_base(path, known, found.base)
    return with_lora(found, path, whole) if is_peft(path) else found


def _told(folder: Path) -> Checkpoint | None:
    """What lies beside peft's own files, if it was written here."""
    beside = folder / BESIDE
    return dataclasses.replace(open_alone(beside), path=folder) if beside.exists() else None


def base_behind(found: Checkpoint) -> Checkpoint:
    """What an adapter checkpoint stands on, opened from disk; any other checkpoint is its own base.

    Raises:
        CheckpointError: if it is not there any more.
    """
    if found.base is None or found.base.path is None:
        return found
    return open_checkpoint(found.base.path, hints=found.base.hints)


def _found(alone: Checkpoint, runs: Path) -> Checkpoint:
    """The first checkpoint that is the base, among those where it may lie; what cannot be read is none."""
    assert alone.base is not None
    for place in places_of(alone.base, beside=alone.path, runs=runs):
        try:
            whole = open_alone(place, hints=alone.base.hints, mmap=True)
        except CheckpointError:
            continue
        if whole.base is None and is_base(whole, alone.base):
            return whole
    raise CheckpointError(
        f"{alone.path}: was trained on the base {alone.base.words}, and no checkpoint below {runs} or beside it is "
        "that; give it with --base FILE (in Python base=FILE)"
    )


def open_alone(path: Path, *, hints: Hints = NO_HINTS, mmap: bool = False) -> Checkpoint:
    """A checkpoint as its file has it: of an adapter checkpoint, only what trained.

    Args:
        path: Its file.
        hints: What the tensors of a published file do not say.
        mmap: Leave the tensors in the file until they are looked at.

    Raises:
        CheckpointError: if it is missing, damaged or of no known kind.
    """
    told = None
    if is_folder(path):
        found: dict[str, Any] = read(weights_file(path), mmap=mmap) if weights_file(path).is_file() else {}
        if not is_ours(found):
            told = of_folder(path, hints)
            hints, found = told.hints, tensors_of(path)
    else:
        found = read(path, mmap=mmap)
    if is_ours(found):
        return ours(path, found)
    wrapped = next((found[name] for name in _WRAPPERS if isinstance(found.get(name), dict)), found)
    tensors = {str(name): value for name, value in wrapped.items() if isinstance(value, torch.Tensor)}
    try:
        imported = convert(tensors, hints)
        if told is not None:
            head = imported.weights.get("head.linear.bias")
            depth = imported.backbone["init_args"]["encoder"]["init_args"]["depth"]
            told.check(depth=depth, labels=None if head is None else len(head))
    except SslAudioError as error:
        raise CheckpointError(f"{path}: {error}") from None
    # Conversions compute with the shapes and numbers of whatever has the right names.
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: looks like a published checkpoint, but its tensors do not fit together ({reason}); it may be cut "
            "off or of another architecture"
        ) from error
    task = None
    if "head.linear.bias" in imported.weights:
        count = len(imported.weights["head.linear.bias"])
        several = count == _AUDIOSET_LABELS if hints.several is None else hints.several
        task = {"target": "label", "labels": [str(number) for number in range(count)], "several": several}
        task["head"] = {"pooling": imported.pooling, "norm": imported.norm}
        if told is not None and told.labels is not None:
            task["labels"] = told.labels
    if told is not None and told.frames is not None:
        sizes = imported.backbone["init_args"]
        sizes["position_frames"] = told.frames
        if sizes.get("fixed_frames") is not None:
            sizes["fixed_frames"] = told.frames
    checkpoint = Checkpoint(
        path=path,
        recipe={"model": {"backbone": imported.backbone}},
        weights=earlier.renamed(imported.weights),
        step=0,
        version="published",
        kind=imported.kind,
        task=earlier.described(task),
        fates=tuple(imported.fates),
        position_rule=imported.position_rule,
        image=imported.image,
    )
    checkpoint.check()
    return checkpoint
