"""What travels between the floors: token states and where each token comes from."""

import dataclasses

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

CLASS = -1
"""`time` and `band` of class tokens."""
PROMPT = -2
"""`time` and `band` of prompts."""


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """Where the tokens were before some were merged, and which token each became a part of.

    Args:
        place: Of each token as it was, the token of its row that it is in now; -1 if that was taken out.
        clip: Of each token as it was; the other fields are those of `Tokens` too.
        time: See `clip`.
        band: See `clip`.
        whole: See `clip`.
        grid: See `clip`.
    """

    place: Int[Tensor, "row origin"]
    clip: Int[Tensor, "row origin"]
    time: Int[Tensor, "row origin"]
    band: Int[Tensor, "row origin"]
    whole: bool
    grid: tuple[int, int] | None

    def taken(self, index: Int[Tensor, "row kept"], count: int) -> "Origin":
        """The same after `Tokens.take` of `count` tokens a row; as many of the former tokens as went are left out."""
        gone = count - index.shape[1]
        kept = torch.arange(index.shape[1], device=index.device).expand_as(index)
        now = self.place.new_full((len(index), count), -1).scatter(1, index, kept)
        place = torch.where(self.place < 0, -1, now.gather(1, self.place.clamp_min(0)))
        if not gone:
            return dataclasses.replace(self, place=place)
        order = (place < 0).to(torch.int8).argsort(dim=1, stable=True)[:, : place.shape[1] - gone]
        place, clip, time, band = (part.gather(1, order) for part in (place, self.clip, self.time, self.band))
        return dataclasses.replace(self, place=place, clip=clip, time=time, band=band)


@dataclasses.dataclass(frozen=True, slots=True)
class Tokens:
    """Token states with their place of origin.

    A row is a sequence that the encoder mixes. Usually it is one whole clip; it may also be a clip with
    padding behind it, or several clips one after the other (packing).

    Args:
        states: One vector a token.
        clip: Which clip of the batch a token belongs to; -1 is padding.
        time: Patch column, 0 is the earliest; -1 for class tokens and padding, -2 for prompts.
        band: Patch row, 0 is the lowest frequency; negative as `time`, -2 and below for prompts.
        size: How many patches were merged into the token; 1 before merging.
        whole: Every row is exactly one clip and nothing else, so that no mask is needed.
        clips: How many clips the batch has, known without waiting for the device.
        grid: Bands and columns of the longest clip, while the patches of every clip are all those of its grid; None
            once some were left out or merged.
        origin: Where the tokens were before some were merged; None while none are. What asks for the place of a
            token, such as a mean over bands at each time, asks `unmerged()`.
    """

    states: Float[Tensor, "row token width"]
    clip: Int[Tensor, "row token"]
    time: Int[Tensor, "row token"]
    band: Int[Tensor, "row token"]
    size: Float[Tensor, "row token"]
    whole: bool
    clips: int
    grid: tuple[int, int] | None = None
    origin: Origin | None = None

    def with_states(self, states: Float[Tensor, "row token width"]) -> "Tokens":
        """The same tokens in other states."""
        return dataclasses.replace(self, states=states)

    def same_clip(self) -> Bool[Tensor, "row token token"]:
        """Which pairs of a row belong to the same clip; padding pairs with padding."""
        return self.clip[:, :, None] == self.clip[:, None, :]

    def is_patch(self) -> Bool[Tensor, "row token"]:
        """Which tokens stand for patches: not padding, class tokens or prompts."""
        return (self.clip >= 0) & (self.time >= 0)

    def is_class(self) -> Bool[Tensor, "row token"]:
        """Which are class tokens."""
        return (self.clip >= 0) & (self.time == CLASS)

    def take(self, index: Int[Tensor, "row kept"]) -> "Tokens":
        """The tokens at these places of each row, in the order of the index; no longer a full grid."""
        width = self.states.shape[-1]
        return dataclasses.replace(
            self,
            states=self.states.gather(1, index[:, :, None].expand(-1, -1, width)),
            clip=self.clip.gather(1, index),
            time=self.time.gather(1, index),
            band=self.band.gather(1, index),
            size=self.size.gather(1, index),
            grid=None,
            origin=None if self.origin is None else self.origin.taken(index, self.clip.shape[1]),
        )

    def unmerged(self) -> "Tokens":
        """The tokens as they were before any were merged, each in the state of the token that it is a part of."""
        origin = self.origin
        if origin is None:
            return self
        lost = origin.place < 0
        rows, width = len(self.states), self.states.shape[-1]
        # Row by row in one flat index: its gradient adds up in the order of the places.
        first = torch.arange(rows, device=lost.device)[:, None] * self.states.shape[1]
        states = self.states.flatten(0, 1).index_select(0, (origin.place.clamp_min(0) + first).flatten())
        return Tokens(
            states=states.view(rows, -1, width),
            clip=torch.where(lost, -1, origin.clip),
            time=torch.where(lost, -1, origin.time),
            band=torch.where(lost, -1, origin.band),
            size=torch.ones_like(origin.clip, dtype=self.size.dtype),
            whole=origin.whole,
            clips=self.clips,
            grid=origin.grid,
        )


def concatenate(front: Tokens, back: Tokens) -> Tokens:
    """Rows of `front` followed by the rows of `back`, of the same clips; at most one of them has patches on a grid, and
    nothing in them was merged yet.
    """
    return Tokens(
        states=torch.cat([front.states, back.states], dim=1),
        clip=torch.cat([front.clip, back.clip], dim=1),
        time=torch.cat([front.time, back.time], dim=1),
        band=torch.cat([front.band, back.band], dim=1),
        size=torch.cat([front.size, back.size], dim=1),
        whole=front.whole and back.whole,
        clips=max(front.clips, back.clips),
        grid=front.grid or back.grid,
    )


def pool(tokens: Tokens) -> Float[Tensor, "clip width"]:
    """Mean state of each clip's patches, weighted by `size`; a clip without patches gives zeros."""
    clips = tokens.clips
    weight = tokens.size * tokens.is_patch()
    index = tokens.clip.clamp_min(0).flatten()
    weighted = (tokens.states.float() * weight[..., None]).flatten(0, 1)
    total = weighted.new_zeros(clips, weighted.shape[-1]).index_add_(0, index, weighted)
    count = weight.new_zeros(clips).index_add_(0, index, weight.flatten())
    return total / count.clamp_min(1e-6)[:, None]


def pool_moments(tokens: Tokens) -> Float[Tensor, "clip moments"]:
    """Mean and standard deviation of the states of each clip's patches, one after the other; weighted as in `pool`."""
    mean = pool(tokens)
    square = pool(tokens.with_states(tokens.states.float().square()))
    deviation = (square - mean.square()).clamp_min(1e-6).sqrt()
    return torch.cat([mean, deviation], dim=1)


def pool_bands(tokens: Tokens, bands: int) -> Float[Tensor, "clip band_moments"]:
    """The moments of each band's patches over time, one band after the other: a mean over bands would lose which of
    them a state belongs to.

    Args:
        tokens: What to pool.
        bands: How many rows of patches a clip has; one without patches gives zeros for means.

    Source: arXiv 2204.12260, section 3.2 (features of all bands side by side), with deviations added.
    """
    return pool_moments(bands_apart(tokens, bands)).reshape(tokens.clips, -1)


def bands_apart(tokens: Tokens, bands: int) -> Tokens:
    """The same tokens as if every band of a clip were a clip of its own: band `b` of clip `c` is `c * bands + b`.

    Merged tokens go back to their places first.
    """
    tokens = tokens.unmerged()
    clip = torch.where(tokens.is_patch(), tokens.clip * bands + tokens.band, -1)
    return dataclasses.replace(tokens, clip=clip, whole=False, clips=tokens.clips * bands, grid=None)
