"""States of time frames from the tokens of clips, on whatever grid of frames is wanted."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ssl_audio.model.layouts import on_grid
from ssl_audio.tokens import Tokens

Bands = Literal["mean", "apart"]
Matching = Literal["pool", "interpolate"]


def frame_states(
    tokens: Tokens, *, bands: int, columns: int, keep: Bands = "mean"
) -> Float[Tensor, "clip {columns} channel"]:
    """One vector for each patch column of every clip; zeros beyond a clip's end.

    Tokens that were merged are given back to their places first. A column of a clip whose patches were left out takes
    the state of the nearest column that has one.

    Args:
        tokens: Of the encoder.
        bands: Rows of patches.
        columns: Columns of the longest clip.
        keep: The `mean` over bands, or the states of all bands side by side (`apart`).
    """
    tokens = tokens.unmerged()
    width = tokens.states.shape[-1]
    if tokens.grid == (bands, columns):
        laid = on_grid(tokens.with_states(tokens.states.float()), who="frame states").lay(tokens.states.float())
        if keep == "apart":
            return laid.transpose(1, 2).reshape(tokens.clips, columns, bands * width)
        return laid.mean(dim=1)
    if keep == "apart":
        parts = [_scattered(tokens, tokens.is_patch() & (tokens.band == band), columns) for band in range(bands)]
        return torch.cat(parts, dim=2)
    return _scattered(tokens, tokens.is_patch(), columns)


def _scattered(tokens: Tokens, chosen: Tensor, columns: int) -> Float[Tensor, "clip {columns} width"]:
    """Mean of the chosen tokens of each column, weighted by size, with empty columns filled from the nearest."""
    width, room = tokens.states.shape[-1], tokens.clips * columns
    place = (tokens.clip * columns + tokens.time).where(chosen, room).flatten()
    weight = (tokens.size * chosen).flatten()
    states = (tokens.states.float().flatten(0, 1)) * weight[:, None]
    total = states.new_zeros(room + 1, width).index_add_(0, place, states)[:room].view(tokens.clips, columns, width)
    count = weight.new_zeros(room + 1).index_add_(0, place, weight)[:room].view(tokens.clips, columns)
    filled = count > 0
    number = torch.arange(columns, device=place.device).expand(tokens.clips, -1)
    before = number.where(filled, -1).cummax(dim=1).values
    after = number.where(filled, 2 * columns).flip(1).cummin(dim=1).values.flip(1)
    nearest = before.where((before >= 0) & (number - before <= after - number), after).clamp(0, columns - 1)
    # Beyond the last column that has a token lies padding.
    inside = after < 2 * columns
    mean = total / count.clamp_min(1e-6)[..., None]
    return mean.gather(1, nearest[..., None].expand_as(mean)) * inside[..., None]


def matched(
    states: Float[Tensor, "clip frame channel"], count: int, how: Matching = "pool"
) -> Float[Tensor, "clip {count} channel"]:
    """The same stretch of time in another number of frames.

    Args:
        states: One vector a frame.
        count: How many frames are wanted.
        how: Mean of those that a frame covers (`pool`), or the nearest one (`interpolate`).

    Source: CPJKU/cpjku_dcase24@9b5cb78 (adaptive average pooling for ATST, nearest-exact for fPaSST and BEATs).
    """
    if states.shape[1] == count:
        return states
    rows = states.transpose(1, 2)
    if how == "pool":
        return F.adaptive_avg_pool1d(rows, count).transpose(1, 2)
    return F.interpolate(rows, size=count, mode="nearest-exact").transpose(1, 2)
