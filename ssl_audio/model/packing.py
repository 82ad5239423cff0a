"""Clips of any length share rows, and each goes back to a row of its own."""

import dataclasses
import heapq
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Int
from jsonargparse.typing import PositiveInt
from torch import Tensor

from ssl_audio.tokens import Tokens

Fit = Literal["next", "decreasing", "balanced"]
Rows = list[list[int]]
"""The clips of each row, by their numbers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packing:
    """How clips of a batch share the rows that the encoder mixes; what comes out is the same.

    Args:
        room: Tokens of a row; a longer clip has a longer row of its own.
        fit: `next` puts each clip behind the one before it where there is room, else into a new row (published);
            `decreasing` puts the longest first, each into the first row with room for it; `balanced` takes as many
            rows as that and puts the longest first, each into the emptiest, so that rows are of about the same length
            and hardly anything is padding.

    Source: JiuFengSC/ElasticAST@da75493 `src/models/elasticast.py` (next fit, 2048 tokens); arXiv 2307.06304 (NaViT).
    Differs: a clip longer than a row is no error.
    """

    room: PositiveInt = 2048
    fit: Fit = "balanced"

    def rows(self, lengths: Sequence[int]) -> Rows:
        """Which clips share which row.

        Args:
            lengths: Tokens of each clip.
        """
        fits = {"next": next_fit, "decreasing": first_fit_decreasing, "balanced": balanced}
        return fits[self.fit](lengths, self.room)


def next_fit(lengths: Sequence[int], room: int) -> Rows:
    """Rows in the order of the clips: a clip that does not fit into the last row begins a new one."""
    rows: Rows = []
    left = 0
    for clip, length in enumerate(lengths):
        if not rows or length > left:
            rows.append([])
            left = room
        rows[-1].append(clip)
        left -= length
    return rows


def first_fit_decreasing(lengths: Sequence[int], room: int) -> Rows:
    """The longest clips first, each in the first row that has room for it; the clips of a row in their order."""
    rows: Rows = []
    left: list[int] = []
    for clip in sorted(range(len(lengths)), key=lambda clip: -lengths[clip]):
        row = next((row for row, room_left in enumerate(left) if lengths[clip] <= room_left), None)
        if row is None:
            row = len(rows)
            rows.append([])
            left.append(room)
        rows[row].append(clip)
        left[row] -= lengths[clip]
    return sorted(sorted(row) for row in rows)


def balanced(lengths: Sequence[int], room: int) -> Rows:
    """As many rows as `first_fit_decreasing` needs, of about the same length; its own where those are shorter."""
    wanted = first_fit_decreasing(lengths, room)
    rows: Rows = [[] for _ in wanted]
    filled = [(0, row) for row in range(len(rows))]
    for clip in sorted(range(len(lengths)), key=lambda clip: -lengths[clip]):
        used, row = heapq.heappop(filled)
        rows[row].append(clip)
        heapq.heappush(filled, (used + lengths[clip], row))
    longest = max(sum(lengths[clip] for clip in row) for row in wanted)
    if max(used for used, _ in filled) > longest:
        return wanted
    return sorted(sorted(row) for row in rows if row)


def waste(lengths: Sequence[int], rows: Rows) -> float:
    """Share of the places that are padding; rows are as long as the longest of them."""
    longest = max(sum(lengths[clip] for clip in row) for row in rows)
    return 1 - sum(lengths) / (longest * len(rows))


def lengths_of(tokens: Tokens) -> list[int]:
    """Tokens of each clip; asks the device."""
    counts = torch.bincount((tokens.clip + 1).flatten(), minlength=tokens.clips + 1)
    return counts[1:].tolist()


def pack(tokens: Tokens, rows: Rows, lengths: Sequence[int]) -> Tokens:
    """The clips of a batch in rows that they share.

    Args:
        tokens: One clip a row, in the order of their numbers, padding behind.
        rows: Which clips share which row.
        lengths: Tokens of each clip.
    """
    count = tokens.clip.shape[1]
    longest = max(sum(lengths[clip] for clip in row) for row in rows)
    device = tokens.clip.device
    place = torch.full((len(rows), longest), -1)
    for number, row in enumerate(rows):
        begin = 0
        for clip in row:
            place[number, begin : begin + lengths[clip]] = torch.arange(lengths[clip]) + clip * count
            begin += lengths[clip]
    return _laid(tokens, place.to(device), whole=False)


def unpack(tokens: Tokens, lengths: Sequence[int], *, width: int) -> Tokens:
    """Each clip in a row of its own again, in the order of their numbers, padding behind; merged tokens are back in
    their places.

    Args:
        tokens: Rows of clips.
        lengths: Tokens of each clip.
        width: Tokens of a row, padding included.
    """
    tokens = tokens.unmerged()
    clip, order = tokens.clip.flatten().sort(stable=True)
    begin = torch.searchsorted(clip, torch.arange(tokens.clips, device=clip.device))
    place = torch.arange(width, device=clip.device)
    own = place < torch.tensor(lengths, device=clip.device)[:, None]
    index = order[(begin[:, None] + place).clamp_max(len(order) - 1)]
    return _laid(tokens, torch.where(own, index, -1), whole=min(lengths) == width)


def _laid(tokens: Tokens, place: Int[Tensor, "row token"], *, whole: bool) -> Tokens:
    """Tokens by their numbers in the flattened rows; -1 is padding."""
    padding, index = place < 0, place.clamp_min(0).flatten()
    states = tokens.states.flatten(0, 1).index_select(0, index).view(*place.shape, -1)
    clip, time, band = (
        torch.where(padding, -1, part.flatten()[index].view(place.shape))
        for part in (tokens.clip, tokens.time, tokens.band)
    )
    size = torch.where(padding, 1.0, tokens.size.flatten()[index].view(place.shape))
    return dataclasses.replace(tokens, states=states, clip=clip, time=time, band=band, size=size, whole=whole)
