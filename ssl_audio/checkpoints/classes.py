"""The classes that a checkpoint may name: of known bases, in this process already, by their exact names."""

import inspect
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from ssl_audio.audio import fbank, mel_spectrogram, mfcc
from ssl_audio.audio.frontend import Frontend
from ssl_audio.model import adapters, encoders
from ssl_audio.model.adapters import Adapter
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders.encoder import Encoder
from ssl_audio.model.patterns import Pattern
from ssl_audio.objectives import (
    altered_frames,
    classification,
    distillation,
    event_detection,
    masked_patches,
    predicted_units,
)
from ssl_audio.objectives.masking import Masking
from ssl_audio.objectives.objective import Objective

KNOWN = (
    *(fbank, mel_spectrogram, mfcc, adapters, encoders),
    *(altered_frames, classification, distillation, event_detection, masked_patches, predicted_units),
)
"""Modules that are imported so that their classes are known; what a file names is never imported."""

MODEL_BASES: tuple[type, ...] = (
    *(Backbone, Frontend, Encoder, Pattern, Adapter),
    *(Objective, Masking),
    torch.optim.Optimizer,
)
"""Bases of the classes that the recipe of a model names."""


def classes_of(base: type) -> dict[str, type]:
    """The concrete classes of a base, itself among them, by every name that leads to them.

    Those are the module that a class is written in, and the packages around it that hand it on.
    """
    found: dict[str, type] = {}
    waiting = [base]
    while waiting:
        one = waiting.pop()
        waiting += one.__subclasses__()
        if inspect.isabstract(one) or "<" in one.__qualname__:
            continue
        parts = one.__module__.split(".")
        for count in range(len(parts), 0, -1):
            module = ".".join(parts[:count])
            if getattr(sys.modules.get(module), one.__name__, None) is one:
                found[f"{module}.{one.__name__}"] = one
    return found


def names_in(tree: Any) -> Iterable[str]:
    """Every class that a recipe names, whatever for."""
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "class_path" in value:
                yield str(value["class_path"])
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value


def expected(base: type, *, most: int = 8) -> str:
    """The classes of a base, for messages."""
    names = sorted({one.__name__ for one in classes_of(base).values()})
    return f"{', '.join(names[:most])}{', ...' if len(names) > most else ''}" or "none"


def unknown(tree: Any, bases: Sequence[type], *, asked: Any = None) -> str | None:
    """The first class that a recipe names and that is of none of these bases, nor named in what the user asked for."""
    known = set(names_in(asked)).union(*map(classes_of, bases))
    return next((name for name in names_in(tree) if name not in known), None)
