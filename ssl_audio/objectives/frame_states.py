"""States of time frames from the tokens of clips, on whatever grid of frames is wanted."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
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
    states: Float[Tensor, "clip frame channel"],
    count: int,
    how: Matching = "pool",
    *,
    have: Int[Tensor, " clip"] | None = None,
    want: Int[Tensor, " clip"] | None = None,
) -> Float[Tensor, "clip {count} channel"]:
    """The same stretch of time in another number of frames.

    Args:
        states: One vector a frame.
        count: How many frames are wanted.
        how: Mean of those that a frame covers (`pool`), or the nearest one (`interpolate`).
        have: Frames of each clip among them; None means that all are of every clip.
        want: Frames of each clip among those wanted; what is behind them is zero.

    Source: CPJKU/cpjku_dcase24@9b5cb78 (adaptive average pooling for ATST, nearest-exact for fPaSST and BEATs).
    Differs: each clip is matched over its own length, so that it does not depend on how long its neighbours are.
    """
    if have is None or want is None:
        if states.shape[1] == count:
            return states
        rows = states.transpose(1, 2)
        if how == "pool":
            return F.adaptive_avg_pool1d(rows, count).transpose(1, 2)
        return F.interpolate(rows, size=count, mode="nearest-exact").transpose(1, 2)
    number = torch.arange(count, device=states.device)[None]
    had, wanted = have.clamp_min(1)[:, None], want.clamp_min(1)[:, None]
    if how == "pool":
        first, behind = number * had // wanted, -(-(number + 1) * had // wanted)
    else:
        first = (2 * number + 1) * had // (2 * wanted)
        behind = first + 1
    inside = number < wanted
    first, behind = (part.clamp(max=states.shape[1]).where(inside, 0) for part in (first, behind))
    total = torch.zeros_like(states[:, :1]).expand(-1, count, -1)
    for step in range(int((behind - first).max())):
        place = first + step
        taken = states.gather(1, place.clamp(max=states.shape[1] - 1)[..., None].expand(-1, -1, states.shape[2]))
        total = total + taken * (place < behind)[..., None]
    return total / (behind - first).clamp_min(1)[..., None]
