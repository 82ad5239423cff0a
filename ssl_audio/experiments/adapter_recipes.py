"""Recipes of adapters, and whether an encoder has a place for them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.errors import CheckpointError, LayoutError, RecipeError, own_cause
from ssl_audio.experiments.recipe_files import expected
from ssl_audio.experiments.recipes import read_recipe


def adapter_file(name: str) -> Path:
    """The recipe of that name.

    Raises:
        RecipeError: if there is none; the message lists those there are.
    """
    return expected(name, ["adapters"], option="--adapters")


def refusal(encoder: Path, adapter: Path) -> str | None:
    """Why an encoder has no place for an adapter; None if it has one.

    Args:
        encoder: Recipe of `recipes/encoders`.
        adapter: Recipe of `recipes/adapters`.
    """
    options = {
        "frontend": {"class_path": "ssl_audio.audio.fbank.Fbank", "init_args": {}},
        "encoder": read_recipe(encoder),
    }
    return refusal_of({"class_path": "ssl_audio.model.backbone.Backbone", "init_args": options}, adapter)


def refusal_of(spec: Mapping[str, Any], adapter: Path) -> str | None:
    """Why a backbone has no place for an adapter; None if it has one.

    Args:
        spec: Recipe of the backbone.
        adapter: Recipe of `recipes/adapters`.
    """
    adapters = read_recipe(adapter).get("adapters")
    spec = {**spec, "init_args": {**spec["init_args"], "adapters": adapters}}
    try:
        Checkpoint(adapter, {"model": {"backbone": spec}}, {}, 0, "").untrained()
    except CheckpointError as error:
        cause = own_cause(error.__cause__)
        if isinstance(cause, RecipeError | LayoutError):
            return str(cause)
        raise RecipeError(str(error)) from error
    return None
