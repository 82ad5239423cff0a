"""Which patches are hidden.

A masking draws for each clip a set of exactly as many patches as asked, as a pure function of the clip's seed. Ours
give every patch of a clip the same chance and always terminate; `PublishedMasking` reproduces the published sampler.
"""

import random
from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from jsonargparse.typing import PositiveInt
from torch import Tensor

from ssl_audio import randomness
from ssl_audio.errors import RecipeError


class Masking(ABC):
    """Draws hidden patches on a (band, column) grid.

    Args:
        hidden: How many patches of a full clip are hidden: a share below 1 or a whole number of patches. Shorter
            clips of a batch hide the same share of theirs.
    """

    def __init__(self, hidden: float | int) -> None:
        if hidden <= 0 or (hidden >= 1 and hidden != int(hidden)):
            raise RecipeError(
                f"{type(self).__name__}: hidden={hidden}; expected a share between 0 and 1, or a whole "
                "number of patches"
            )
        self.hidden = hidden

    def count(self, patches: int) -> int:
        """How many of a full clip's patches are hidden.

        Raises:
            RecipeError: if that leaves nothing visible or nothing hidden.
        """
        count = round(self.hidden * patches) if self.hidden < 1 else int(self.hidden)
        if not 0 < count < patches:
            raise RecipeError(
                f"{type(self).__name__}: hidden={self.hidden} asks to hide {count} of a clip's {patches} patches; "
                f"expected 1 to {patches - 1}: hide fewer, or use longer clips or smaller patches"
            )
        return count

    def draw(
        self,
        grid: tuple[int, int],
        columns: Int[Tensor, " clip"],
        seeds: Int[Tensor, " clip"],
        *,
        purpose: str = "mask",
    ) -> Bool[Tensor, "clip band column"]:
        """The hidden patches of each clip.

        Args:
            grid: Bands and columns of the longest clip.
            columns: Columns of each clip; patches beyond them are never hidden.
            seeds: One seed a clip; the same seed and purpose draw the same set.
            purpose: Distinguishes independent draws for the same clip.

        Raises:
            RecipeError: if more patches are to be hidden than there are.
        """
        bands, width = grid
        count = self.count(bands * width)
        counts = torch.round(columns * (bands * count / (bands * width))).to(columns.dtype)
        # Something stays visible even of a clip of a patch or two.
        counts = torch.minimum(counts, (bands * columns - 1).clamp_min(0))
        order = self.arrival(grid, columns, seeds, purpose)
        inside = torch.arange(width, device=columns.device) < columns[:, None]
        order = torch.where(inside[:, None], order, torch.inf)
        earliest = order.flatten(1).argsort(dim=1)
        taken = torch.arange(bands * width, device=columns.device) < counts[:, None]
        return torch.zeros_like(taken).scatter(1, earliest, taken).view(-1, bands, width)

    @abstractmethod
    def arrival(
        self, grid: tuple[int, int], columns: Int[Tensor, " clip"], seeds: Int[Tensor, " clip"], purpose: str
    ) -> Float[Tensor, "clip band column"]:
        """When each patch is hidden, in any unit; the earliest ones are."""


class RandomMasking(Masking):
    """Every set of the right size is equally likely. Source: arXiv 2110.09784, section 2.3 (frame-based masking)."""

    def arrival(
        self, grid: tuple[int, int], columns: Int[Tensor, " clip"], seeds: Int[Tensor, " clip"], purpose: str
    ) -> Float[Tensor, "clip band column"]:
        return randomness.uniform(seeds, grid[0] * grid[1], purpose).view(-1, *grid)


class FrameMasking(Masking):
    """Whole columns are hidden, in runs of `span` neighbours.

    Args:
        hidden: Share or number of patches; a column that no longer fits whole is hidden in part.
        span: Columns a run.
    """

    def __init__(self, hidden: float | int, *, span: PositiveInt = 1) -> None:
        super().__init__(hidden)
        self.span = span

    def arrival(
        self, grid: tuple[int, int], columns: Int[Tensor, " clip"], seeds: Int[Tensor, " clip"], purpose: str
    ) -> Float[Tensor, "clip band column"]:
        times = randomness.uniform(seeds, grid[1], purpose)[:, None, :].expand(-1, *grid)
        times = _earliest_around_in_time(times, columns, torch.full_like(columns, self.span), self.span)
        # Columns of a run share their time: the second draw keeps each whole, the third decides within one.
        apart = randomness.uniform(seeds, grid[1], purpose + "/column")[:, None, :]
        within = randomness.uniform(seeds, grid[0] * grid[1], purpose + "/within").view(-1, *grid)
        return _break_ties(times, _break_ties(apart, within))


class ClusterMasking(Masking):
    """Square clusters of `smallest` to `largest` patches a side, one side a clip, until enough are hidden.

    Each possible cluster has a random time of arrival, a patch is hidden when the first cluster that covers it
    arrives, and the earliest patches are taken; the last cluster is cut at random. Clusters run round the edges of
    the clip's own grid, so no patch is favoured: each is hidden with the same probability, on any grid.

    Args:
        hidden: Share or number of patches.
        smallest: Side of the smallest cluster, in patches.
        largest: Side of the largest.

    Source: arXiv 2110.09784 section 2.3 (C between 3 and 5).
    Differs: YuanGongND/ssast@a1a3eec hides the lowest band half as often as the others, never hides patch 0, and
        does not end when as many are to be hidden as there are (see `PublishedMasking`).
    """

    def __init__(self, hidden: float | int, *, smallest: PositiveInt = 3, largest: PositiveInt = 5) -> None:
        super().__init__(hidden)
        if smallest > largest:
            raise RecipeError(f"ClusterMasking: smallest={smallest} is more than largest={largest}")
        self.smallest, self.largest = smallest, largest

    def arrival(
        self, grid: tuple[int, int], columns: Int[Tensor, " clip"], seeds: Int[Tensor, " clip"], purpose: str
    ) -> Float[Tensor, "clip band column"]:
        sides = self.largest - self.smallest + 1
        side = self.smallest + (randomness.uniform(seeds, 1, purpose + "/side")[:, 0] * sides).long()
        times = randomness.uniform(seeds, grid[0] * grid[1], purpose).view(-1, *grid)
        times = _earliest_around_in_time(times, columns, side, self.largest)
        bands = torch.full_like(columns, grid[0])
        times = _earliest_around_in_time(times.transpose(1, 2), bands, side, self.largest).transpose(1, 2)
        within = randomness.uniform(seeds, grid[0] * grid[1], purpose + "/within").view(-1, *grid)
        return _break_ties(times, within)


def _break_ties(times: Tensor, within: Tensor) -> Tensor:
    """`times` with equal ones ordered by `within`, both multiples of 2**-24 in [0, 1); float64 holds both exactly."""
    return times.double() + within.double() * 2.0**-24


def _earliest_around_in_time(
    times: Float[Tensor, "clip a b"], length: Int[Tensor, " clip"], side: Int[Tensor, " clip"], largest: int
) -> Float[Tensor, "clip a b"]:
    """Minimum over each place and the `side` - 1 places before it in the last axis, round the first `length` places."""
    places = torch.arange(times.shape[2], device=times.device)
    earliest = times
    for step in range(1, largest):
        index = (places - step) % length[:, None]
        before = times.gather(2, index[:, None, :].expand_as(times))
        earliest = torch.where((side > step)[:, None, None], torch.minimum(earliest, before), earliest)
    return earliest


class PublishedMasking(Masking):
    """The published sampler on Python's `random`, slips included: for reproducing it, not for use.

    Clips of a batch must be equally long. Grids of one band draw unclustered patches, all others clusters.

    Raises:
        RecipeError: where the published code would run for ever (as many hidden as there are patches it can hide).

    Source: YuanGongND/ssast@a1a3eec `ast_models.py`, `gen_maskid_patch` and `gen_maskid_frame`.
    """

    def draw(
        self,
        grid: tuple[int, int],
        columns: Int[Tensor, " clip"],
        seeds: Int[Tensor, " clip"],
        *,
        purpose: str = "mask",
    ) -> Bool[Tensor, "clip band column"]:
        bands, width = grid
        hidden = torch.zeros(len(seeds), bands * width, dtype=torch.bool)
        for row, seed in enumerate(seeds.tolist()):
            draws = random.Random(randomness.derive(seed, purpose))
            hidden[row, self.sample(grid, draws)] = True
        return hidden.view(-1, bands, width).to(seeds.device)

    def sample(self, grid: tuple[int, int], draws: random.Random) -> list[int]:
        """One clip's hidden patches, in the published code's order."""
        patches = grid[0] * grid[1]
        count = self.count(patches)
        if grid[0] == 1:
            return draws.sample(range(patches), count)
        if count >= patches - 1:
            raise RecipeError(
                f"PublishedMasking: hidden={count} of {patches} patches never ends in the published sampler, "
                f"which cannot hide patch 0; expected at most {patches - 2}, or another masking"
            )
        side = draws.randrange(3) + 3
        found: list[int] = []
        while len(set(found)) <= count:
            start = draws.randrange(patches)
            cluster = (start + grid[1] * i + j for i in range(side) for j in range(side))
            found.extend(place for place in cluster if 0 < place < patches)
        return list(set(found))[:count]

    def arrival(
        self, grid: tuple[int, int], columns: Int[Tensor, " clip"], seeds: Int[Tensor, " clip"], purpose: str
    ) -> Float[Tensor, "clip band column"]:
        raise NotImplementedError("the published sampler draws whole sets")
