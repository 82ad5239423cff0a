"""What a model makes of hidden patches, as spectrograms to look at."""

import torch
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor

from ssl_audio.model.patches import Patches
from ssl_audio.objectives.hiding import Hiding
from ssl_audio.objectives.objective import Panel, Picture


def reconstruction(
    patches: Patches,
    hiding: Hiding,
    predicted: Float[Tensor, "clip hidden pixel"],
    size: tuple[int, int],
    *,
    normalised: bool,
) -> Picture:
    """Of each clip the original, what the encoder saw, and the original with the hidden patches as they are predicted.

    Args:
        patches: All patches; they must not overlap, and clips must be equally long.
        hiding: Which of them were hidden.
        predicted: Their reconstruction.
        size: Bins and frames of a patch.
        normalised: Each patch was predicted without its level and contrast, which are taken from the original.
    """
    pixels = patches.pixels.float()
    if normalised:
        there = pixels.gather(1, hiding.index[:, :, None].expand_as(predicted))
        variance, mean = torch.var_mean(there, dim=-1, keepdim=True)
        predicted = predicted * (variance + 1e-6).sqrt() + mean
    filled = pixels.scatter(1, hiding.index[:, :, None].expand_as(predicted), predicted)
    shown = hiding.hidden[:, :, None].expand_as(pixels)
    original, hidden, reconstructed = (
        unpatched(values, patches.grid, size).detach().cpu().numpy() for values in (pixels, shown, filled)
    )
    known = " (level and contrast of each patch are the original's)" if normalised else ""
    return Picture(
        title=f"Hidden patches{known}",
        rows=[
            [
                Panel(title="original", values=one),
                Panel(title="what the encoder saw", values=one, missing=gone),
                Panel(title="reconstruction of the rest", values=made),
            ]
            for one, gone, made in zip(original, hidden, reconstructed, strict=True)
        ],
    )


def unpatched(
    values: Shaped[Tensor, "clip patch pixel"], grid: tuple[int, int], patch: tuple[int, int]
) -> Shaped[Tensor, "clip bin frame"]:
    """Patches of a grid, put together again; they must not overlap."""
    return rearrange(
        values,
        "clip (band column) (f t) -> clip (band f) (column t)",
        band=grid[0],
        column=grid[1],
        f=patch[0],
        t=patch[1],
    )
