"""Cutting a spectrogram into patches."""

import dataclasses

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.errors import RecipeError


@dataclasses.dataclass(frozen=True, slots=True)
class Patches:
    """The patches of a batch of spectrograms, one row a clip.

    A row runs through the lowest band from the earliest column to the last, then the next band (the published
    order). In a batch of unequal clips the padding stands behind a clip's patches, so that the row
    begins with exactly what the clip alone would give.

    Args:
        pixels: Spectrogram values of each patch, within a patch by bin first, then by frame.
        clip: Row number, or -1 for padding.
        band: Patch row, 0 is the lowest frequency.
        time: Patch column, 0 is the earliest.
        columns: How many columns each clip has.
        grid: Bands and columns of the longest clip the batch has room for.
        whole: No clip has padding.
    """

    pixels: Float[Tensor, "clip patch pixel"]
    clip: Int[Tensor, "clip patch"]
    band: Int[Tensor, "clip patch"]
    time: Int[Tensor, "clip patch"]
    columns: Int[Tensor, " clip"]
    grid: tuple[int, int]
    whole: bool

    def place(self) -> Int[Tensor, "clip patch"]:
        """Where each patch stands in a flattened (band, column) grid."""
        return self.band * self.grid[1] + self.time


def grid_of(frames: int, bins: int, *, shape: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int]:
    """Bands and columns of the patches that lie wholly inside `bins` × `frames`; at least one column.

    Raises:
        RecipeError: if a patch is taller than the spectrogram.
    """
    if bins < shape[0]:
        raise RecipeError(
            f"a patch of {shape[0]} bins does not fit a spectrogram of {bins} bins; "
            f"use a patch of at most {bins} bins or a frontend with more"
        )
    bands = (bins - shape[0]) // stride[0] + 1
    columns = max(1, (frames - shape[1]) // stride[1] + 1)
    return bands, columns


def cut(spectrogram: Spectrogram, *, shape: tuple[int, int], stride: tuple[int, int]) -> Patches:
    """Cut spectrograms into patches; frames that fill no whole patch at a clip's end are left out.

    A clip shorter than one patch gives one column, filled up with the spectrogram's padding.

    Args:
        spectrogram: Batch of clips.
        shape: Bins and frames of a patch.
        stride: Bins and frames from one patch to the next; smaller than `shape` makes them overlap.
    """
    values = spectrogram.values
    clips, frames, bins = values.shape
    if frames < shape[1]:
        values = torch.nn.functional.pad(values, (0, 0, 0, shape[1] - frames), value=spectrogram.fill)
        frames = shape[1]
    bands, columns = grid_of(frames, bins, shape=shape, stride=stride)
    if shape == stride:
        inside = values[:, : columns * shape[1], : bands * shape[0]]
        pixels = rearrange(inside, "clip (column t) (band f) -> clip (band column) (f t)", f=shape[0], t=shape[1])
    else:
        windows = values.unfold(2, shape[0], stride[0]).unfold(1, shape[1], stride[1])
        pixels = rearrange(windows, "clip column band f t -> clip (band column) (f t)")
    device = values.device
    band = torch.arange(bands, device=device).repeat_interleave(columns).expand(clips, -1)
    time = torch.arange(columns, device=device).repeat(bands).expand(clips, -1)
    clip = torch.arange(clips, device=device)[:, None].expand(-1, bands * columns)
    if spectrogram.whole:
        full = torch.full((clips,), columns, device=device)
        return Patches(pixels, clip, band, time, full, (bands, columns), whole=True)
    valid = ((spectrogram.frames - shape[1]) // stride[1] + 1).clamp(1, columns)
    return _padding_last(Patches(pixels, clip, band, time, valid, (bands, columns), whole=False))


def _padding_last(patches: Patches) -> Patches:
    """Move the patches beyond each clip's end behind those within it, keeping their order."""
    padding = patches.time >= patches.columns[:, None]
    order = torch.argsort(padding.to(torch.int8), dim=1, stable=True)
    pixels = patches.pixels.gather(1, order[:, :, None].expand_as(patches.pixels))
    padding = padding.gather(1, order)
    return dataclasses.replace(
        patches,
        pixels=pixels,
        clip=torch.where(padding, -1, patches.clip),
        band=patches.band.gather(1, order),
        time=patches.time.gather(1, order),
    )
