"""Learnt two-dimensional positions and what becomes of them on another grid."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ssl_audio.errors import RecipeError

PositionRule = Literal["start", "centre", "published", "repeat"]
PositionStart = Literal["waves", "noise", "sines"]


def adapt(
    table: Float[Tensor, "band column width"], grid: tuple[int, int], *, rule: PositionRule = "centre"
) -> Float[Tensor, "new_band new_column width"]:
    """A table of positions for another grid: cut where the grid is smaller, interpolate bilinearly where it is larger.

    Args:
        table: Positions of the grid they were learnt on.
        grid: Bands and columns wanted.
        rule: Where a smaller grid is cut from. `start` takes the first columns and the lowest bands, `centre` the
            middle, `published` the middle with the published slip in the frequency cut. `repeat` takes the first too,
            and begins the table again where a larger grid goes beyond its end, as an endless stream does.

    Source: YuanGongND/ssast@a1a3eec, `ASTModel.__init__` (fine-tuning stage): time first, then frequency.
    Differs: the published code ends its frequency cut at ``start + t_dim`` (only `published` does).
    """
    bands, columns = grid
    had_bands, had_columns, _ = table.shape
    if (bands, columns) == (had_bands, had_columns):
        return table
    if columns < had_columns:
        start = 0 if rule in ("start", "repeat") else had_columns // 2 - columns // 2
        table = table[:, start : start + columns]
    elif columns > had_columns and rule == "repeat":
        table = table[:, torch.arange(columns, device=table.device) % had_columns]
    elif columns > had_columns:
        table = _interpolate(table, (had_bands, columns))
    if bands < had_bands:
        start = 0 if rule in ("start", "repeat") else had_bands // 2 - bands // 2
        table = table[start : start + (columns if rule == "published" else bands)]
    elif bands > had_bands:
        table = _interpolate(table, (bands, columns))
    return table


def _interpolate(table: Tensor, grid: tuple[int, int]) -> Tensor:
    resized = F.interpolate(table.permute(2, 0, 1)[None], size=grid, mode="bilinear", align_corners=False)
    return resized[0].permute(1, 2, 0)


def resample_positions(
    table: Float[Tensor, "band column width"],
    grid: tuple[int, int],
    *,
    had: tuple[int, int],
    now: tuple[int, int],
) -> Float[Tensor, "new_band new_column width"]:
    """A table for patches of another stride: each gets the position of the same bins and frames.

    Where the new grid goes beyond the table by more than a patch, the table is stretched over it.

    Args:
        table: Positions of the grid they were learnt on.
        grid: Bands and columns wanted.
        had: Bins and frames from one patch to the next where they were learnt.
        now: The same where they are wanted.

    Differs: the published rule takes positions 16 frames apart for patches 10 frames apart one for one, or stretches
        them over whatever there is (`adapt`).
    """
    for axis in (0, 1):
        size, ratio = table.shape[axis], now[axis] / had[axis]
        covered = int((size - 1) / ratio + 1e-9) + 1
        reach = min(grid[axis], covered + 1)
        place = (torch.arange(reach, device=table.device) * ratio).clamp(max=size - 1)
        below = place.floor().long()
        above = (below + 1).clamp(max=size - 1)
        share = (place - below).to(table.dtype).view(-1, *([1] * (2 - axis)))
        table = torch.lerp(table.index_select(axis, below), table.index_select(axis, above), share)
    return adapt(table, grid, rule="start")


def waves(grid: tuple[int, int], width: int) -> Float[Tensor, "band column {width}"]:
    """Sines and cosines of geometric wavelengths: the first half of the channels for the band, the rest for the column.

    Source: arXiv 1706.03762 section 3.5, in two dimensions as in arXiv 2111.06377.
    """
    table = torch.empty(*grid, width)
    if table.is_meta:
        # On the meta device torch would import its compiler for values that are not used.
        return table
    halves = []
    for places, channels in zip(grid, (width - width // 2, width // 2), strict=True):
        pairs = (channels + 1) // 2
        rate = 10000.0 ** -(torch.arange(pairs) / max(1, pairs))
        angle = torch.arange(places)[:, None] * rate
        halves.append(torch.cat([angle.sin(), angle.cos()], dim=1)[:, :channels])
    band, column = halves
    return torch.cat([band[:, None].expand(-1, grid[1], -1), column[None].expand(grid[0], -1, -1)], dim=2).contiguous()


def sines(grid: tuple[int, int], width: int) -> Float[Tensor, "band column {width}"]:
    """Sines (even channels) and cosines (odd ones) of geometric wavelengths for the column; all bands are alike.

    Source: arXiv 1706.03762 section 3.5, as the annotated Transformer has it.
    """
    pairs = (width + 1) // 2
    rate = torch.exp(torch.arange(pairs) * 2 * (-math.log(10000.0) / width))
    angle = torch.arange(grid[1])[:, None] * rate
    table = torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :width]
    return table.expand(grid[0], -1, -1).contiguous()


def _noise(grid: tuple[int, int], width: int) -> Float[Tensor, "band column {width}"]:
    return nn.init.trunc_normal_(torch.empty(*grid, width), std=0.02)


_STARTS = {"waves": waves, "noise": _noise, "sines": sines}


class Positions(nn.Module):
    """A learnt vector for every place of a (band, column) grid.

    Clips of another length than the table get positions by `adapt` for their own length, whatever else is in
    the batch, so that a clip means the same alone and among others.

    Args:
        grid: Bands and columns of the table.
        width: Channels.
        rule: Where shorter clips take their positions from; see `adapt`.
        begin: What they are before training: `waves` (sines and cosines, as loud as a patch, so that places are told
            apart from the first step on), `noise` (published: truncated normal of standard deviation 0.02) or `sines`
            (waves in all channels for the column, which do not tell bands apart).
    """

    def __init__(
        self,
        grid: tuple[int, int],
        width: int,
        *,
        rule: PositionRule = "start",
        begin: PositionStart = "waves",
    ) -> None:
        super().__init__()
        self.rule = rule
        self.begin = begin
        self.make(_STARTS[begin](grid, width))
        for parameter in self.parameters():
            parameter.no_weight_decay = True  # type: ignore[attr-defined]

    @property
    def endless(self) -> bool:
        """Whether there are positions for clips of any length."""
        return self.rule == "repeat"

    def make(self, start: Float[Tensor, "band column width"]) -> None:
        """Make the parameters, from what the table is before training."""
        self.table = nn.Parameter(start)

    def forward(
        self, grid: tuple[int, int], columns: Int[Tensor, " clip"] | None = None
    ) -> Float[Tensor, "row place width"]:
        """Positions of a flattened (band, column) grid.

        Args:
            grid: Bands and columns of the batch.
            columns: Columns of each clip; None means that every clip has them all.

        Returns:
            One row a clip, or a single row when all clips have the same positions. Places beyond a clip's end
            hold whatever: they are padding.
        """
        table_columns = self.table.shape[1]
        alike = self.rule == "repeat" or (self.rule == "start" and grid[1] <= table_columns)
        if columns is None or alike:
            return adapt(self.table, grid, rule=self.rule).flatten(0, 1)[None]
        rows = self.table.new_zeros(len(columns), *grid, self.table.shape[2])
        for length in columns.unique().tolist():
            fitted = adapt(self.table, (grid[0], length), rule=self.rule)
            rows[columns == length, :, :length] = fitted
        return rows.flatten(1, 2)


class FixedPositions(Positions):
    """What `begin` gives, for ever: nothing is learnt or saved, and clips may be longer than the table.

    Raises:
        RecipeError: if they begin as noise.
    """

    @property
    def endless(self) -> bool:
        return self.rule in ("start", "repeat")

    def make(self, start: Float[Tensor, "band column width"]) -> None:
        if self.begin == "noise":
            raise RecipeError("position_start is noise, which says nothing of places if it is fixed; expected sines")
        self.register_buffer("table", start, persistent=False)

    def forward(
        self, grid: tuple[int, int], columns: Int[Tensor, " clip"] | None = None
    ) -> Float[Tensor, "row place width"]:
        if self.rule != "start":
            return super().forward(grid, columns)
        if grid[1] > self.table.shape[1]:
            table = _STARTS[self.begin](grid, self.table.shape[2]).to(self.table)
        else:
            table = self.table[:, : grid[1]]
        return table.flatten(0, 1)[None]


class FactorisedPositions(Positions):
    """A learnt vector for each band and one for each column of a grid; a place has the sum of both.

    Source: arXiv 2407.08691 section 2; JiuFengSC/ElasticAST@da75493 `src/models/elasticast.py`.
    """

    def make(self, start: Float[Tensor, "band column width"]) -> None:
        width = start.shape[2]
        if self.begin == "waves":
            # Each axis has channels of its own, so that the sum is what a table would begin as.
            of_band = torch.arange(width) < width - width // 2
            bands, columns = start[:, 0] * of_band, start[0] * ~of_band
        else:
            bands, columns = start[:, 0].clone(), nn.init.trunc_normal_(torch.empty_like(start[0]), std=0.02)
        self.bands, self.columns = nn.Parameter(bands), nn.Parameter(columns)

    @property
    def table(self) -> Float[Tensor, "band column width"]:  # type: ignore[override]
        """The vector of every place."""
        return self.bands[:, None] + self.columns[None]


def factors_of(table: Float[Tensor, "band column width"]) -> dict[str, Float[Tensor, "place width"]]:
    """The parameters of `FactorisedPositions` from a table: means over columns and over bands.

    Their sum has the mean of the table twice, as published.

    Source: JiuFengSC/ElasticAST@da75493 (initialised from ViT and SSAST).
    """
    return {"bands": table.mean(dim=1), "columns": table.mean(dim=0)}
