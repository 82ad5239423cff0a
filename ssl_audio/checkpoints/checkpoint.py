"""Our checkpoints: weights with the recipe that made them."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from ssl_audio import __version__
from ssl_audio.errors import CheckpointError
from ssl_audio.model.backbone import Backbone

FORMAT = 1
_TRUSTED = ("ssl_audio.", "torch.", "lightning.")


def describe(recipe: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of itself besides its tensors: plain values only."""
    return {"format": FORMAT, "version": __version__, "recipe": recipe}


@dataclasses.dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint read from disk.

    Args:
        path: Where it came from.
        recipe: The whole recipe of the run: `model`, `data`, `trainer`.
        weights: State dict.
        step: Optimizer steps taken.
        version: Of this package, when it was written.
    """

    path: Path
    recipe: dict[str, Any]
    weights: dict[str, Tensor]
    step: int
    version: str

    def backbone(self) -> Backbone:
        """The backbone with its weights.

        Raises:
            CheckpointError: if the recipe names a class we do not trust, or the weights do not fit.
        """
        backbone = self.untrained()
        prefix = "backbone."
        weights = {name.removeprefix(prefix): value for name, value in self.weights.items() if name.startswith(prefix)}
        try:
            backbone.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(f"{self.path}: its weights do not fit its recipe: {error}") from error
        return backbone

    def untrained(self, *, seed: int = 0) -> Backbone:
        """The backbone of the recipe with fresh weights: what training is to be compared with.

        Raises:
            CheckpointError: if the recipe names a class we do not trust, or describes no backbone.
        """
        spec = self.recipe.get("model", {}).get("backbone")
        if not isinstance(spec, dict):
            raise CheckpointError(f"{self.path}: its recipe describes no backbone")
        _check_classes(spec, self.path)
        _check_parts(spec, self.path)
        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(Backbone, "backbone")
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                built = parser.instantiate_classes(parser.parse_object({"backbone": spec}))
        except Exception as error:
            raise CheckpointError(
                f"{self.path}: its recipe (version {self.version}) does not describe a backbone of this "
                f"version: {error}"
            ) from error
        backbone: Backbone = built.backbone
        return backbone.eval()


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without executing anything in it.

    Raises:
        CheckpointError: if it is missing, damaged, holds more than tensors and plain values, or is not ours.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except IsADirectoryError as error:
        raise CheckpointError(
            f"{path} is a folder; expected a checkpoint file such as checkpoints/last.ckpt"
        ) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than tensors and plain values, or is no checkpoint; it was not loaded"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: damaged or no checkpoint ({reason})") from error
    ours = found.get("ssl_audio") if isinstance(found, dict) else None
    if not isinstance(ours, dict) or "state_dict" not in found:
        raise CheckpointError(f"{path}: not written by ssl-audio; expected a checkpoint of `ssl-audio pretrain`")
    if ours.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {ours.get('format')!r}; this version reads format {FORMAT}")
    return Checkpoint(
        path=path,
        recipe=ours["recipe"],
        weights=found["state_dict"],
        step=int(found.get("global_step", 0)),
        version=str(ours.get("version", "unknown")),
    )


def _check_parts(spec: dict[str, Any], path: Path) -> None:
    """Parts stand in full: a bare name would be looked up, that is imported, by whoever reads it."""
    for owner, names in ((spec, ("init_args",)), (spec.get("init_args"), ("frontend", "encoder"))):
        for name in names:
            part = owner.get(name) if isinstance(owner, dict) else None
            if not isinstance(part, dict) or (name != "init_args" and "class_path" not in part):
                raise CheckpointError(f"{path}: its recipe has no {name} in full; expected class_path and init_args")


def _check_classes(spec: Any, path: Path) -> None:
    """A recipe from outside may only name classes of this package, torch and lightning."""
    if isinstance(spec, dict):
        named = spec.get("class_path")
        if named is not None and not str(named).startswith(_TRUSTED):
            raise CheckpointError(
                f"{path}: its recipe names {named!r}; expected classes of ssl_audio, torch or lightning only"
            )
        for value in spec.values():
            _check_classes(value, path)
    elif isinstance(spec, list):
        for value in spec:
            _check_classes(value, path)
