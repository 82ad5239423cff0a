"""The schema of a checkpoint, held against a file once, where it is read: what comes after it trusts what it says.

A recipe names classes of known bases and gives their options in the right types; tensors have the names, shapes and
types of the modules that the recipe describes. The modules are built on torch's `meta` device first, where sizes cost
nothing.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from ssl_audio.checkpoints.base import STATISTICS
from ssl_audio.checkpoints.options import OptionError, Planned, plan, typed
from ssl_audio.checkpoints.reading import leaves
from ssl_audio.data.facts import Facts
from ssl_audio.errors import CheckpointError, SslAudioError
from ssl_audio.model.backbone import Backbone
from ssl_audio.objectives.objective import Objective

_RATES = (1_000, 384_000)
_LONGEST_FRAME = 1.0
_SHORTEST_HOP = 5e-4
_STRETCHED = 16
_UNSAVED_BYTES = 2**24
_BESIDE = 64
_MOST_LABELS = 1_000_000
_MOST_VALUES = 2_000_000
_PLAIN = (type(None), bool, int, float, str)
_VERSION = re.compile(r"[\w.+-]{1,64}")


def _odd_key(value: Any) -> Any:
    """A key at any depth that is not text; None if there is none."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            odd = next((key for key in one if not isinstance(key, str)), None)
            if odd is not None:
                return odd
            left += one.values()
        elif isinstance(one, list | tuple):
            left += one
    return None


def check_described(path: Path, found: Mapping[str, Any]) -> None:
    """What a checkpoint of ours says of itself has the right types.

    Args:
        path: For messages.
        found: The whole content of the file.

    Raises:
        CheckpointError: naming what is of another type.
    """
    described = found["ssl_audio"]
    weights = found["state_dict"]
    step, recipe, task = found.get("global_step", 0), described.get("recipe"), described.get("task")
    model = recipe.get("model") if isinstance(recipe, dict) else None
    odd = [value for _, value in leaves(described, most=_MOST_VALUES) if not isinstance(value, _PLAIN)]
    wrong = None
    if odd:
        wrong = f"what it says of itself holds a {type(odd[0]).__name__}; expected numbers and text"
    elif (key := _odd_key(described)) is not None:
        wrong = f"what it says of itself has the key {str(key)[:40]!r}, a {type(key).__name__}; expected text"
    elif not isinstance(recipe, dict) or not isinstance(model, dict):
        wrong = "its recipe describes no model; expected a dictionary with model"
    elif not isinstance(model.get("backbone"), dict):
        wrong = "its recipe describes no backbone; expected class_path and init_args"
    elif not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()
    ):
        wrong = "its state_dict holds something else than tensors by name"
    elif isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < 2**53:
        wrong = f"global_step is {str(step)[:40]!r}; expected a number of steps"
    elif not _VERSION.fullmatch(str(described.get("version", "unknown"))):
        wrong = "version is no version of ssl_audio"
    elif task is not None and not isinstance(task, dict):
        wrong = f"task is a {type(task).__name__}; expected a dictionary"
    elif not isinstance(recipe.get("data") or {}, dict) or not isinstance(recipe.get("trainer") or {}, dict):
        wrong = "data and trainer of its recipe are to be dictionaries"
    else:
        crop = (recipe.get("data") or {}).get("crop_seconds")
        if crop is not None and (isinstance(crop, bool) or not isinstance(crop, int | float) or not 0 < crop < 1e6):
            wrong = f"data.crop_seconds of its recipe is {str(crop)[:40]!r}; expected seconds"
    if wrong is not None:
        raise CheckpointError(f"{path}: {wrong}; the file is damaged, or not written by ssl-audio")


def planned_backbone(path: Path, spec: Any, *, version: str) -> Planned:
    """The backbone that a recipe describes, not yet built.

    Raises:
        CheckpointError: if it names a class that is not known, or options that its class does not take.
    """
    try:
        if isinstance(spec, dict) and not isinstance(spec.get("init_args"), dict):
            raise OptionError("has no init_args in full; expected class_path and init_args")
        found = plan(spec, Backbone, "backbone")
        _check_frontend(found.options["frontend"])
    except OptionError as error:
        raise CheckpointError(f"{path}: its recipe (version {version}) {error}") from None
    return found


def _check_frontend(frontend: Planned) -> None:
    """Rates and lengths that no tensor tells, but that decide how much is computed."""
    rate = frontend.options.get("sample_rate", _RATES[0])
    frame, hop = frontend.options.get("frame_seconds", _SHORTEST_HOP), frontend.options.get("hop_seconds", 0.01)
    if not _RATES[0] <= rate <= _RATES[1]:
        raise OptionError(f"frontend.sample_rate is {rate}; expected {_RATES[0]} to {_RATES[1]} Hz")
    if not 0 < frame <= _LONGEST_FRAME or not _SHORTEST_HOP <= hop <= _LONGEST_FRAME:
        raise OptionError(
            f"frontend.frame_seconds is {frame} and hop_seconds {hop}; expected at most {_LONGEST_FRAME}, and hops of "
            f"{_SHORTEST_HOP} at least"
        )


def check_sizes(path: Path, planned: Planned, weights: Mapping[str, Tensor], *, image: bool = False) -> Backbone:
    """What the recipe describes is what the tensors are: names, shapes and types, before anything has memory.

    Args:
        path: For messages.
        planned: The backbone.
        weights: Everything that the file holds, adapters and base together.
        image: Positions are those of a picture, on a grid of their own.

    Returns:
        The backbone on the `meta` device.

    Raises:
        CheckpointError: naming the first tensor that is another, or the option that asks for more than there is.
    """
    theirs = {name.removeprefix("backbone."): value for name, value in weights.items() if name.startswith("backbone.")}
    _check_depth(path, planned, len(theirs))
    backbone = on_meta(path, planned.build, most=len(theirs) + _BESIDE)
    wanted = backbone.state_dict()
    if image and "positions.table" in theirs and theirs["positions.table"].ndim == 3:
        bands, columns, _ = theirs["positions.table"].shape
        wanted["positions.table"] = wanted["positions.table"].new_empty(bands, columns, backbone.width)
    check_tensors(path, theirs, wanted, optional=STATISTICS)
    _check_statistics(path, theirs)
    _check_unsaved(path, backbone)
    return backbone


def check_over_base(path: Path, planned: Planned, own: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> Backbone:
    """What an adapter checkpoint describes is no more than its tensors and those of its base.

    Args:
        path: For messages.
        planned: The backbone, adapters and all.
        own: The tensors of the file, by their names within the backbone.
        base: Those of the base.

    Returns:
        The backbone on the `meta` device.

    Raises:
        CheckpointError: if it asks for more than there is; the message names the tensor.
    """
    _check_depth(path, planned, len(base))
    backbone = on_meta(path, planned.build, most=len(own) + len(base) + _BESIDE)
    for name, wanted in backbone.state_dict().items():
        have = own.get(name, base.get(name))
        if have is None and name not in STATISTICS:
            raise CheckpointError(f"{path}: lacks {name}, and so does its base; it is damaged, take another")
        if have is None or have.shape == wanted.shape:
            continue
        # Positions may be brought to another grid.
        if name == "positions.table" and name not in own and wanted.numel() <= _STRETCHED * max(have.numel(), 2**16):
            continue
        raise CheckpointError(
            f"{path}: {name} is {tuple(have.shape)}, and the backbone of its recipe has one of {tuple(wanted.shape)} "
            "there; it is damaged, or an adapter of another base"
        )
    _check_statistics(path, own)
    _check_unsaved(path, backbone)
    return backbone


def check_task(
    path: Path,
    task: Mapping[str, Any],
    recipe: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    backbone: Backbone,
) -> None:
    """What a checkpoint says of its objective fits the tensors of the objective.

    Args:
        path: For messages.
        task: Target, labels, several, and the objective where the recipe does not say it.
        recipe: Of the run.
        weights: Everything that the file holds.
        backbone: On the `meta` device.

    Raises:
        CheckpointError: naming what does not.
    """
    planned, facts = planned_objective(path, task, recipe)
    prefix = "objective."
    theirs = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}

    def make() -> Any:
        objective = planned.build()
        objective.attach(backbone, facts)
        return objective

    made = on_meta(path, make, most=len(theirs) + _BESIDE)
    check_tensors(path, theirs, made.state_dict(), optional=(), part="objective")


def planned_objective(path: Path, task: Mapping[str, Any], recipe: Mapping[str, Any]) -> tuple[Planned, Facts]:
    """The objective that a checkpoint describes, not yet built, and what it is told of its labels.

    Raises:
        CheckpointError: if an option is of another type.
    """
    labels = task.get("labels")
    try:
        if not isinstance(labels, list) or not labels or len(labels) > _MOST_LABELS:
            raise OptionError("task.labels is no list of labels")
        for label in labels:
            typed(label, str | int, "task.labels")
        several = typed(task.get("several"), bool, "task.several")
        target = typed(task.get("target"), str, "task.target")
        spec = task.get("objective") or recipe["model"].get("objective")
        while isinstance(spec, dict) and isinstance(inner := (spec.get("init_args") or {}).get("objective"), dict):
            spec = inner  # what is around it, such as a teacher, was for training
        planned = plan(spec, Objective, "objective")
        if planned.kind.wraps:  # type: ignore[attr-defined]
            raise OptionError(f"names {planned.kind.__name__}, which answers nothing by itself")
    except OptionError as error:
        raise CheckpointError(f"{path}: {error}; the file is damaged, or not written by ssl-audio") from None
    return planned, Facts(labels=tuple(map(str, labels)), target=target, several=several)


def check_tensors(
    path: Path,
    theirs: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    *,
    optional: tuple[str, ...],
    part: str = "backbone",
) -> None:
    """Tensors have the names, shapes and kinds of number of a module.

    Raises:
        CheckpointError: naming the first that has not.
    """
    missing = [name for name in wanted if name not in theirs and name not in optional]
    unknown = [name for name in theirs if name not in wanted]
    other = [name for name in theirs if name in wanted and theirs[name].shape != wanted[name].shape]
    kind = [
        name
        for name in theirs
        if name in wanted and theirs[name].is_floating_point() != wanted[name].is_floating_point()
    ]
    if other:
        name = other[0]
        what = f"{part}.{name} is {tuple(theirs[name].shape)}, expected {tuple(wanted[name].shape)}"
    elif missing or unknown:
        what = f"{part}.{missing[0]} is missing" if missing else f"{part}.{unknown[0][:100]} is unknown"
    elif kind:
        what = f"{part}.{kind[0]} holds {str(theirs[kind[0]].dtype).removeprefix('torch.')}, expected " + (
            "floats" if wanted[kind[0]].is_floating_point() else "integers"
        )
    else:
        return
    raise CheckpointError(f"{path}: its weights do not fit its recipe: {what}; it is damaged or of another version")


def _check_depth(path: Path, planned: Planned, tensors: int) -> None:
    """The one size that is walked through before anything is registered that could be counted."""
    depth = planned.options["encoder"].options.get("depth", 1)
    if depth > tensors:
        raise CheckpointError(
            f"{path}: its recipe describes {depth} blocks, and there are {tensors} tensors of a backbone; it is "
            "damaged, or not the checkpoint of this recipe"
        )


def _check_unsaved(path: Path, backbone: Backbone) -> None:
    """What no tensor tells: tables that are computed at construction, and the length every clip is cut or padded to."""
    saved = backbone.state_dict()
    unsaved = sum(b.numel() * b.element_size() for name, b in backbone.named_buffers() if name not in saved)
    if unsaved > _UNSAVED_BYTES:
        raise CheckpointError(f"{path}: its frontend would take {unsaved} bytes of tables; expected {_UNSAVED_BYTES}")
    columns = backbone.positions.table.shape[1] * backbone.stride[1] + backbone.patch[1]
    if backbone.fixed_frames is not None and backbone.fixed_frames > _STRETCHED * columns:
        raise CheckpointError(
            f"{path}: fixed_frames is {backbone.fixed_frames}, and its positions are for {columns} frames; expected "
            "about as many"
        )


def _check_statistics(path: Path, theirs: Mapping[str, Tensor]) -> None:
    """Everything is divided by the deviation."""
    for name in STATISTICS:
        value = theirs.get(name)
        if value is None:
            continue
        number = float(value)
        if not abs(number) < 1e6 or (name.endswith("std") and not number > 0):
            raise CheckpointError(
                f"{path}: {name} is {number:g}; expected "
                + ("a deviation above 0" if name.endswith("std") else "a mean of log-mel energies")
            )


def on_meta(path: Path, make: Callable[[], Any], *, most: int) -> Any:
    """A module without memory for its tensors.

    Args:
        path: For messages.
        make: Builds it.
        most: How many parameters and buffers it may have before building stops.

    Raises:
        CheckpointError: if it has more, or its options contradict one another.
    """
    try:
        with _counted(most), torch.device("meta"):
            return make()
    except _TooManyError:
        raise CheckpointError(
            f"{path}: its recipe describes more than {most} tensors, and the file has fewer; it is damaged, or not the "
            "checkpoint of this recipe"
        ) from None
    except SslAudioError as error:
        raise CheckpointError(f"{path}: its recipe does not describe a backbone of this version: {error}") from error
    # Sizes that overflow whatever torch or Python computes with them.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: its recipe does not describe a backbone of this version: {type(error).__name__}: {reason}"
        ) from error


class _TooManyError(Exception):
    """More parameters than there are tensors."""


@contextmanager
def _counted(most: int) -> Iterator[None]:
    """Count what modules of this thread register, and stop at a number."""
    here, count = threading.get_ident(), 0

    def note(module: nn.Module, name: str, value: object) -> None:
        nonlocal count
        if threading.get_ident() != here:
            return
        count += 1
        if count > most:
            raise _TooManyError

    handles = [
        hooks.register_module_parameter_registration_hook(note),
        hooks.register_module_buffer_registration_hook(note),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
