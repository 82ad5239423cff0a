"""Tokens in other arrangements, and back: one clip a row, or on their (clip, band, time) grid."""

import dataclasses
import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl_audio.errors import LayoutError
from ssl_audio.tokens import Tokens


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """Where each token of a batch stands in another arrangement of it.

    No two tokens have the same place, so that gradients do not depend on the order in which they are added up.

    Args:
        place: Of each token in the flattened arrangement; one beyond its end for tokens that have no place in it. None
            where the rows are the arrangement already.
        sizes: Of the arrangement: clips, and places of each.
    """

    place: Int[Tensor, "row token"] | None
    sizes: tuple[int, ...]

    def lay(self, states: Float[Tensor, "row token channel"]) -> Float[Tensor, "clip *place channel"]:
        """The states in their places, zero where there is no token."""
        if self.place is None:
            return states
        room, channels = math.prod(self.sizes), states.shape[-1]
        laid = states.new_zeros(room + 1, channels).index_copy(0, self.place.flatten(), states.flatten(0, 1))
        return laid[:room].view(*self.sizes, channels)

    def back(self, laid: Float[Tensor, "clip *place channel"]) -> Float[Tensor, "row token channel"]:
        """The states of the tokens, zero for those that have no place."""
        if self.place is None:
            return laid
        channels = laid.shape[-1]
        flat = F.pad(laid.reshape(-1, channels), (0, 0, 0, 1))
        return flat.index_select(0, self.place.flatten()).view(*self.place.shape, channels)

    def filled(self) -> Bool[Tensor, "*place"] | None:
        """Which places have a token; None where all have."""
        if self.place is None:
            return None
        room = math.prod(self.sizes)
        found = torch.zeros(room + 1, dtype=torch.bool, device=self.place.device)
        return found.index_fill(0, self.place.flatten(), True)[:room].view(self.sizes)


def one_clip_a_row(tokens: Tokens) -> Layout:
    """Each clip in a row of its own, its tokens in the order in which they stand, padding left out.

    Where every row is one clip nothing moves. Where several clips share a row, the longest of them is asked of the
    device, except under torch.compile: there each clip gets as much room as a row.
    """
    rows, count = tokens.clip.shape
    if tokens.whole:
        return Layout(None, (rows, count))
    ordered, order = tokens.clip.flatten().sort(stable=True)  # padding comes first
    begin = torch.searchsorted(ordered, torch.arange(tokens.clips, device=ordered.device))
    rank = torch.arange(len(ordered), device=ordered.device) - begin[ordered.clamp_min(0)]
    columns = count
    if tokens.clips > rows and not torch.compiler.is_compiling():
        columns = int((rank.masked_fill(ordered < 0, 0)).max()) + 1
    place = torch.where(ordered < 0, tokens.clips * columns, ordered * columns + rank)
    return Layout(torch.empty_like(place).index_copy(0, order, place).view(rows, count), (tokens.clips, columns))


def on_grid(tokens: Tokens, *, who: str) -> Layout:
    """Each clip's patches on their grid of bands and columns; class tokens, prompts and padding have no place.

    Args:
        tokens: What to lay out.
        who: Needs the grid; for the message.

    Raises:
        LayoutError: if the patches are not all there.
    """
    if tokens.grid is None:
        raise LayoutError(
            f"{who} needs tokens on their (band, time) grid, and some patches of these were left out or merged; let "
            "hidden patches keep their places and do not merge, or use Conformer, which needs no grid"
        )
    bands, columns = tokens.grid
    place = (tokens.clip * bands + tokens.band) * columns + tokens.time
    place = torch.where(tokens.is_patch(), place, tokens.clips * bands * columns)
    return Layout(place, (tokens.clips, bands, columns))


def clips_of_rows(tokens: Tokens) -> Int[Tensor, "row clip"]:
    """The clips of each row, with -1 behind them where others have more; asks the device unless all rows are whole."""
    if tokens.whole:
        return tokens.clip[:, :1]
    found = torch.zeros(len(tokens.clip), tokens.clips + 1, dtype=torch.bool, device=tokens.clip.device)
    found = found.scatter(1, tokens.clip + 1, True)[:, 1:]
    most = int(found.sum(dim=1).max())
    order = found.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    return torch.where(found.gather(1, order), order, -1)
