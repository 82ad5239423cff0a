"""Attention patterns: which patches of a clip see each other."""

import dataclasses
from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from jsonargparse.typing import NonNegativeInt
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ssl_audio.errors import LayoutError, RecipeError
from ssl_audio.model.attention import Attend, attend, barrier
from ssl_audio.model.layouts import Layout
from ssl_audio.tokens import Tokens

FEWEST_PATCHES = 512
"""Patches of a clip from which on attention along lines is the faster way; the table of all pairs is below.

Measured with torch 2.14 on one core of a Xeon with AMX in fp32, forward and backward, 8 bands; see docs/continual.md.
"""

FEWEST_RECOMPUTED = 1024
"""Patches of a clip from which on the weights along lines are computed twice in training rather than kept."""


class Pattern(ABC):
    """Which pairs of patches of a clip attend to each other.

    Class tokens and prompts see every token of their clip and are seen by all of them; tokens of different clips never
    see each other. A subclass says by (band, time) which patches do, which works on any tokens; `way` may give a
    faster way for tokens on their full grid.
    """

    @abstractmethod
    def pairs(
        self, band: Int[Tensor, "row token token"], time: Int[Tensor, "row token token"]
    ) -> Bool[Tensor, "row token token"]:
        """Which pairs of patches see each other.

        Args:
            band: How many bands the second of a pair lies above the first.
            time: How many columns it lies behind it.
        """

    def mask(self, tokens: Tokens) -> Bool[Tensor, "row 1 token token"]:
        """Which pairs of tokens see each other, as a table of all pairs."""
        band, time = (place[:, None, :] - place[:, :, None] for place in (tokens.band, tokens.time))
        patch = tokens.is_patch()
        patches = patch[:, :, None] & patch[:, None, :]
        return ((self.pairs(band, time) | ~patches) & tokens.same_clip())[:, None]

    def way(self, tokens: Tokens) -> Attend | None:
        """A way to attend among these tokens that does not need the table of all pairs; None if there is none."""
        return None


class FrequencyTime(Pattern):
    """Each patch sees those of its band and those of its column: f + t - 1 of f * t.

    Args:
        published: Excluded pairs are not excluded: their scores become 0 before the softmax, so they keep a weight, and
            nothing is saved.

    Source: arXiv 2302.14314 (frequency-time factorised attention); NMS05/Adapter-Incremental-Continual-Learning-AST@
        3d28c67 `pet_modules.py` multiplies the scores by the mask.
    Differs: excluded pairs have no weight and are not computed, unless `published`.
    """

    def __init__(self, *, published: bool = False) -> None:
        self.published = published

    def pairs(self, band: Tensor, time: Tensor) -> Tensor:
        return (band == 0) | (time == 0)

    def way(self, tokens: Tokens) -> Attend | None:
        if self.published:
            if tokens.origin is not None:
                raise LayoutError(
                    "FrequencyTime: with published scores are multiplied by the mask, and merged tokens need a bias "
                    "beside it; set published to false, or do not merge"
                )
            return Multiplied(self.mask(tokens), None if tokens.whole else tokens.same_clip()[:, None])
        return lines(tokens, along_time=True, along_band=True)


class SameBand(Pattern):
    """Each patch sees those of its band, at all times."""

    def pairs(self, band: Tensor, time: Tensor) -> Tensor:
        return band == 0

    def way(self, tokens: Tokens) -> Attend | None:
        return lines(tokens, along_time=True, along_band=False)


class SameTime(Pattern):
    """Each patch sees those of its column, of all bands."""

    def pairs(self, band: Tensor, time: Tensor) -> Tensor:
        return time == 0

    def way(self, tokens: Tokens) -> Attend | None:
        return lines(tokens, along_time=False, along_band=True)


class Window(Pattern):
    """Each patch sees those around it; computed as a table of all pairs, so nothing is saved.

    Args:
        columns: How many columns to either side; None for all.
        bands: How many bands above and below; None for all.

    Raises:
        RecipeError: if neither is given.
    """

    def __init__(self, *, columns: NonNegativeInt | None = None, bands: NonNegativeInt | None = None) -> None:
        if columns is None and bands is None:
            raise RecipeError("Window excludes nothing without columns or bands; expected one of them, or no pattern")
        self.columns, self.bands = columns, bands

    def pairs(self, band: Tensor, time: Tensor) -> Tensor:
        near = torch.ones_like(band, dtype=torch.bool)
        if self.columns is not None:
            near &= time.abs() <= self.columns
        if self.bands is not None:
            near &= band.abs() <= self.bands
        return near


@dataclasses.dataclass(frozen=True, slots=True)
class Multiplied:
    """Attention with scores multiplied by a mask (published).

    Args:
        mask: 1 where a token sees another, 0 where its score becomes 0.
        clips: Which pairs are of the same clip; the others are excluded. None where all are.
    """

    mask: Bool[Tensor, "row 1 token token"]
    clips: Bool[Tensor, "row 1 token token"] | None

    def __call__(
        self,
        query: Float[Tensor, "row head token channel"],
        key: Float[Tensor, "row head seen channel"],
        value: Float[Tensor, "row head seen channel"],
    ) -> Float[Tensor, "row head token channel"]:
        front = key.shape[2] - query.shape[2]
        factor = torch.nn.functional.pad(self.mask, (front, 0), value=True)
        scores = query @ key.transpose(2, 3) * factor * query.shape[3] ** -0.5
        if self.clips is not None:
            scores = scores + barrier(torch.nn.functional.pad(self.clips, (front, 0), value=True), scores.dtype)
        return scores.softmax(dim=-1).to(value.dtype) @ value


def lines(tokens: Tokens, *, along_time: bool, along_band: bool) -> Attend | None:
    """Attention along the lines of the grid; None if the tokens are not all there, or too few for it to save anything.

    Args:
        tokens: Padded or packed clips, with class tokens and prompts anywhere.
        along_time: A patch sees those of its band.
        along_band: A patch sees those of its column.
    """
    if tokens.grid is None:
        return None
    bands, columns = tokens.grid
    patches = bands * columns
    if patches < FEWEST_PATCHES:
        return None
    other = ~tokens.is_patch() & (tokens.clip >= 0)
    # Class tokens and prompts of a clip have places behind its patches, in their order.
    ordered, order = torch.where(other, tokens.clip, tokens.clips).flatten().sort(stable=True)
    begin = torch.searchsorted(ordered, torch.arange(tokens.clips + 1, device=ordered.device))
    rank = torch.arange(len(ordered), device=ordered.device) - begin[ordered]
    if tokens.whole:
        others = tokens.clip.shape[1] - patches
    else:
        others = int(rank.masked_fill(ordered == tokens.clips, -1).max()) + 1
    rank = torch.empty_like(rank).index_copy(0, order, rank).view_as(tokens.clip)
    room = patches + others
    place = torch.where(other, patches + rank, tokens.band * columns + tokens.time) + tokens.clip * room
    place = torch.where(tokens.clip < 0, tokens.clips * room, place)
    if tokens.whole:  # every row has the same order
        place, order = place[0], place[0].argsort()
        here = order.device.type == "cpu" and torch.equal(order[:patches] - others, torch.arange(patches))
        return Lines(others if here else order, place, tokens.grid, None, along_time, along_band)
    layout = Layout(place, (tokens.clips, room))
    return Lines(layout, None, tokens.grid, layout.filled(), along_time, along_band)


@dataclasses.dataclass(frozen=True, slots=True)
class Lines:
    """Attention of each patch along its lines of the grid and to the class tokens and prompts of its clip.

    Rows and columns are batches of small matrix products, with one softmax over both: N (f + t) scores for N = f * t
    patches in place of N * N.

    Args:
        layout: Of tokens as (clip, place): the grid, then class tokens and prompts. Where every row is a clip, the
            order of its tokens; where only class tokens stand before the grid, their number: then nothing moves.
        back: Of each token its place, where every row is a clip.
        grid: Bands and columns.
        filled: Which places have a token; None where all have.
        along_time: A patch sees those of its band.
        along_band: A patch sees those of its column.
    """

    layout: Layout | Int[Tensor, " token"] | int
    back: Int[Tensor, " token"] | None
    grid: tuple[int, int]
    filled: Bool[Tensor, "clip place"] | None
    along_time: bool
    along_band: bool

    def __call__(
        self,
        query: Float[Tensor, "row head token channel"],
        key: Float[Tensor, "row head seen channel"],
        value: Float[Tensor, "row head seen channel"],
    ) -> Float[Tensor, "row head token channel"]:
        front = key.shape[2] - query.shape[2]  # keys of adapters, the same for every row, which every token sees
        (q, asking), (k, keys), (v, values) = map(self._lay, (query, key[:, :, front:], value[:, :, front:]))
        if front:
            keys, values = (
                torch.cat([part[:1, :, :front].expand(len(own), -1, -1, -1), own], dim=2)
                for part, own in ((key, keys), (value, values))
            )
        patches = q.shape[2]
        known = None  # of these keys
        if self.filled is not None:
            known = torch.nn.functional.pad(self.filled[:, patches:], (front, 0), value=True)
        others = []
        if asking.shape[2]:
            mask = None
            if known is not None and self.filled is not None:
                mask = torch.cat([self.filled[:, :patches], known], dim=1)[:, None, None]
                mask = mask.expand(-1, 1, asking.shape[2], -1)
            others.append(attend(asking, torch.cat([k, keys], dim=2), torch.cat([v, values], dim=2), mask))
        q, k, v = (part.unflatten(2, self.grid) for part in (q, k, v))
        if torch.is_grad_enabled() and patches >= FEWEST_RECOMPUTED:
            # Weights and transposed copies are made again on the way back: what is kept is what attention is given.
            along = checkpoint(self._along, q, k, v, keys, values, known, use_reentrant=False, preserve_rng_state=False)
        else:
            along = self._along(q, k, v, keys, values, known)
        return self._back(along.flatten(2, 3), others)

    def _along(
        self,
        q: Float[Tensor, "clip head band column channel"],
        k: Float[Tensor, "clip head band column channel"],
        v: Float[Tensor, "clip head band column channel"],
        seen: Float[Tensor, "clip head seen channel"],
        seen_values: Float[Tensor, "clip head seen channel"],
        known: Bool[Tensor, "clip seen"] | None,
    ) -> Float[Tensor, "clip head band column channel"]:
        """What patches get: from their lines, and from what every token of their clip sees."""
        bands, columns = self.grid
        filled = None if self.filled is None else self.filled[:, : bands * columns].view(-1, 1, bands, columns)
        q = q * q.shape[-1] ** -0.5
        scores = [(q.flatten(2, 3) @ seen.transpose(2, 3)).unflatten(2, self.grid)]
        if known is not None:
            scores[0] += barrier(known, q.dtype)[:, None, None, None]
        if self.along_time:
            scores.append(q @ k.transpose(3, 4))
            if filled is not None:
                scores[-1] += barrier(filled, q.dtype)[:, :, :, None]
        if self.along_band:
            column = q.transpose(2, 3) @ k.permute(0, 1, 3, 4, 2)
            if filled is not None:
                column += barrier(filled, q.dtype).transpose(2, 3)[:, :, :, None]
            if self.along_time:  # the patch itself is in its row already
                own = torch.eye(bands, dtype=torch.bool, device=q.device)
                column += barrier(~own, q.dtype)
            scores.append(column.transpose(2, 3))
        weights = torch.cat(scores, dim=-1).softmax(dim=-1).to(v.dtype)
        parts = list(weights.split([part.shape[-1] for part in scores], dim=-1))
        mixed = (parts[0].flatten(2, 3) @ seen_values).unflatten(2, self.grid)
        if self.along_time:
            mixed = mixed + parts[1] @ v
        if self.along_band:
            mixed = mixed + (parts[-1].transpose(2, 3) @ v.transpose(2, 3)).transpose(2, 3)
        return mixed

    def _lay(
        self, states: Float[Tensor, "row head token channel"]
    ) -> tuple[Float[Tensor, "clip head patch channel"], Float[Tensor, "clip head other channel"]]:
        """The states of the grid, and those of class tokens and prompts."""
        patches = self.grid[0] * self.grid[1]
        if isinstance(self.layout, int):
            return states[:, :, self.layout :], states[:, :, : self.layout]
        if isinstance(self.layout, Tensor):
            laid = states.index_select(2, self.layout)
        else:
            flat = states.transpose(1, 2).flatten(2)
            laid = self.layout.lay(flat).unflatten(2, (states.shape[1], -1)).transpose(1, 2)
        return laid[:, :, :patches], laid[:, :, patches:]

    def _back(
        self,
        patches: Float[Tensor, "clip head patch channel"],
        others: list[Float[Tensor, "clip head other channel"]],
    ) -> Float[Tensor, "row head token channel"]:
        """The states of tokens as they lay."""
        if isinstance(self.layout, int):
            return torch.cat([*others, patches], dim=2)
        laid = torch.cat([patches, *others], dim=2)
        if self.back is not None:
            return laid.index_select(2, self.back)
        assert isinstance(self.layout, Layout)
        flat = laid.transpose(1, 2).flatten(2)
        return self.layout.back(flat).unflatten(2, (laid.shape[1], -1)).transpose(1, 2)
