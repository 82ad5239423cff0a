"""What the model makes of hidden patches, as spectrograms to look at."""

import dataclasses

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.model.backbone import Backbone
from ssl_audio.objectives.hiding import hide
from ssl_audio.objectives.masked_patches import MaskedPatches


@dataclasses.dataclass(frozen=True, slots=True)
class Reconstruction:
    """Spectrograms of one clip, (bin, frame), and which patches were hidden.

    Args:
        original: What was there.
        hidden: Which values the model did not see.
        reconstructed: The original with the hidden patches as the model predicts them.
    """

    original: Float[np.ndarray, "bin frame"]
    hidden: Bool[np.ndarray, "bin frame"]
    reconstructed: Float[np.ndarray, "bin frame"]


def reconstruct(
    backbone: Backbone, objective: MaskedPatches, spectrogram: Spectrogram, seeds: Tensor
) -> list[Reconstruction]:
    """Hide, predict, and put the pieces together. Patches must not overlap; clips must be equally long.

    With per-patch normalised targets the model does not say how loud a patch is; level and contrast are taken from
    the original.
    """
    patches = backbone.cut(spectrogram)
    hiding = hide(patches, objective.masking, seeds)
    with torch.inference_mode():
        states, _ = objective.predict(backbone, patches, hiding)
        predicted = objective.reconstruct(states).float()
    pixels = patches.pixels.float()
    if objective.targets == "normalised":
        there = pixels.gather(1, hiding.index[:, :, None].expand_as(predicted))
        variance, mean = torch.var_mean(there, dim=-1, keepdim=True)
        predicted = predicted * (variance + 1e-6).sqrt() + mean
    filled = pixels.scatter(1, hiding.index[:, :, None].expand_as(predicted), predicted)
    shown = hiding.hidden[:, :, None].expand_as(pixels)
    original, hidden, reconstructed = (
        _unpatch(values, patches.grid, backbone.patch).cpu().numpy() for values in (pixels, shown, filled)
    )
    return [Reconstruction(*parts) for parts in zip(original, hidden, reconstructed, strict=True)]


def _unpatch(values: Tensor, grid: tuple[int, int], patch: tuple[int, int]) -> Tensor:
    return rearrange(
        values,
        "clip (band column) (f t) -> clip (band f) (column t)",
        band=grid[0],
        column=grid[1],
        f=patch[0],
        t=patch[1],
    )
