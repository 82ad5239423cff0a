"""A checkpoint without adapters: what they do, folded into the weights of the base."""

import dataclasses

import torch

from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.errors import CheckpointError, RecipeError
from ssl_audio.model.backbone import Backbone

_PREFIX = "backbone."
_MOST_DIFFERENT = 1e-4
_SECONDS = 1.5


def merged(found: Checkpoint) -> tuple[Checkpoint, float]:
    """A whole checkpoint without adapters, and by how much its outputs differ.

    Args:
        found: With adapters, each of which can be folded into weights.

    Returns:
        The checkpoint; and the largest difference of a token's channels on a noise, over the largest channel.

    Raises:
        CheckpointError: if it has no adapters, or the merged weights do not answer as the adapters did.
        RecipeError: if an adapter cannot be merged; the message says why.
    """
    backbone = found.backbone()
    if not len(backbone.adapters):
        raise CheckpointError(
            f"{found.path}: has no adapters to merge; it is plain weights already, whatever model.tuning trained: use "
            "it as it is"
        )
    for adapter in backbone.adapters:
        try:
            adapter.merge()  # type: ignore[operator]
        except RecipeError as error:
            raise RecipeError(f"{found.path}: {error}") from None
    spec = dict(found.spec)
    spec["init_args"] = {name: value for name, value in spec["init_args"].items() if name != "adapters"}
    model = {name: value for name, value in found.recipe["model"].items() if name != "tuning"}
    plain = {name: value for name, value in backbone.state_dict().items() if not name.startswith("adapters.")}
    weights = {name: value for name, value in found.weights.items() if not name.startswith(_PREFIX)}
    weights |= {_PREFIX + name: value for name, value in plain.items()}
    whole = dataclasses.replace(
        found, recipe={**found.recipe, "model": {**model, "backbone": spec}}, weights=weights, base=None
    )
    differs = difference(found.backbone(), whole.backbone())
    if not differs < _MOST_DIFFERENT:
        raise CheckpointError(
            f"{found.path}: merged, its outputs differ by {differs:.1e} of the largest; expected less than "
            f"{_MOST_DIFFERENT:.0e}, keep the adapters"
        )
    return whole, differs


def difference(one: Backbone, other: Backbone) -> float:
    """The largest difference of two backbones' states of a noise, over the largest state."""
    samples = round(_SECONDS * one.frontend.sample_rate)
    covered = one.positions.table.shape[1] * one.stride[1] * one.frontend.hop_seconds * one.frontend.sample_rate
    count = samples if one.positions.endless else min(samples, int(covered))
    noise = torch.randn(2, count, generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.inference_mode():
        first, second = one(noise).states, other(noise).states
    return float((first - second).abs().max() / first.abs().max())
