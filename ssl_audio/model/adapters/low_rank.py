"""LoRA: a low-rank change of the weight of named projections."""

import fnmatch
import math
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor, nn

from ssl_audio.errors import RecipeError
from ssl_audio.model.adapters.adapter import Adapter
from ssl_audio.model.adapters.sizes import hidden_channels
from ssl_audio.model.linear import Linear

if TYPE_CHECKING:
    from ssl_audio.model.backbone import Backbone

Scaling = Literal["rank", "root", "reduction"]


class LowRank(Adapter):
    """Adds ``scale * up(down(x))`` to projections that are chosen by name.

    A target is the end of a projection's name within the encoder, with `*` and `?` for anything, and in brackets one of
    its parts: `qkv[query]`, `qkv`, `out`, `expand` on a Transformer; `into[x]`, `project`, `dt`, `ahead.dt`, `out` on a
    Mamba; `blocks.0.*` for all of the first block.

    Args:
        rank: Channels in the middle.
        reduction: The same as the encoder's width over this, rounded; one of the two.
        targets: Which projections, or parts of them.
        alpha: Over what `scaling` says, the factor of what is added.
        scaling: `rank` divides alpha by the rank; `root` by its square root (rank-stabilised); `reduction` by
            `reduction` (published with it).
        magnitude: Learn the length of the rows of the changed weight as well (DoRA).

    Raises:
        RecipeError: if a target names no projection, or one that is adapted already.

    Source: arXiv 2106.09685 (LoRA); arXiv 2312.03732 (rank-stabilised); arXiv 2402.09353 (DoRA, sections 4.1 and 4.3:
        the norm takes no gradient; the length is stored relative to the base's, whose weights come later);
        umbertocappellazzo/PETL_AST@1fe23af (alpha / reduction); for the Mamba's projections arXiv 2411.03855.
    Differs: on a part of a fused projection the low-rank product is for that part alone.
    """

    apart = True

    def __init__(
        self,
        *,
        rank: PositiveInt | None = None,
        reduction: PositiveFloat | None = None,
        targets: list[str],
        alpha: PositiveFloat = 8.0,
        scaling: Scaling = "rank",
        magnitude: bool = False,
    ) -> None:
        super().__init__()
        self.rank = rank
        self.reduction = reduction
        self.targets = list(targets)
        self.alpha = float(alpha)
        self.scaling: Scaling = scaling
        self.magnitude = magnitude

    def attach(self, backbone: "Backbone") -> None:
        rank = hidden_channels(backbone.width, hidden=self.rank, reduction=self.reduction, who="LowRank", name="rank")
        if self.scaling == "reduction" and self.reduction is None:
            raise RecipeError("LowRank: scaling reduction divides alpha by reduction, which is not given")
        divisor = {"rank": rank, "root": math.sqrt(rank), "reduction": self.reduction or 1.0}[self.scaling]
        linears = {name: module for name, module in backbone.encoder.named_modules() if isinstance(module, Linear)}
        self.parts = nn.ModuleDict()
        adapted = set()
        if not self.targets:
            raise RecipeError(f"LowRank: targets is empty; expected some of {', '.join(_names(linears))}")
        for target in self.targets:
            pattern, bracket, part = target.partition("[")
            if bracket and not part.endswith("]"):
                raise RecipeError(
                    f"LowRank: target {target!r} has a bracket that is not closed; expected {pattern}[PART]"
                )
            found = [name for name in linears if _matches(name, pattern)]
            if not found:
                raise RecipeError(
                    f"LowRank: no projection of {type(backbone.encoder).__name__} is named {target!r}; expected some "
                    f"of {', '.join(_names(linears))}"
                )
            for name in found:
                rows = _rows(linears[name], name, part.removesuffix("]") if part else None)
                delta = LowRankDelta(
                    linears[name], rows=rows, rank=rank, scale=self.alpha / divisor, magnitude=self.magnitude
                )
                _check_alone(linears[name], delta, name)
                linears[name].deltas.append(delta)
                self.parts[f"{name}[{part}".replace(".", "/") if part else name.replace(".", "/")] = delta
                adapted.add(name)
        self.coverage = f"adapts {len(adapted)} of {len(linears)} projections"

    def merge(self) -> None:
        for delta in self.parts.values():
            assert isinstance(delta, LowRankDelta)
            delta.merge()


class LowRankDelta(nn.Module):
    """The change of one projection, or of some of its output channels.

    Args:
        linear: The projection.
        rows: Its output channels that are changed.
        rank: Channels in the middle.
        scale: Factor of what is added.
        magnitude: Learn the length of the rows of the changed weight too.

    Attributes:
        down: Drawn as `torch.nn.Linear` draws its weight.
        up: Zero at first, so that nothing is changed.
        stretch: With `magnitude`, each row's length over that of the base's weight, less 1.
    """

    def __init__(self, linear: Linear, *, rows: slice, rank: int, scale: float, magnitude: bool) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, linear.in_features))
        self.up = nn.Parameter(torch.zeros(rows.stop - rows.start, rank))
        self.stretch = nn.Parameter(torch.zeros(rows.stop - rows.start)) if magnitude else None
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.rows = rows
        self.scale = scale
        self._linear = [linear]  # a plain reference: the projection belongs to the base

    @property
    def linear(self) -> Linear:
        """The projection that is changed."""
        return self._linear[0]

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        if self.stretch is None:
            added = F.linear(F.linear(x, self.down), self.up) * self.scale
        else:
            added = F.linear(x, self.change())
        before, behind = self.rows.start, self.linear.out_features - self.rows.stop
        return F.pad(added, (before, behind)) if before or behind else added

    def change(self) -> Float[Tensor, "changed inputs"]:
        """What is added to the rows of the weight."""
        product = self.scale * self.up @ self.down
        if self.stretch is None:
            return product
        weight = self.linear.weight[self.rows]
        turned = weight + product
        length = weight.norm(dim=1) * (1.0 + self.stretch) / turned.detach().norm(dim=1).clamp_min(1e-12)
        return turned * length[:, None] - weight

    def merge(self) -> None:
        """Add the change to the weight, and leave the projection's deltas."""
        with torch.no_grad():
            self.linear.weight[self.rows] += self.change()
        self.linear.deltas.remove(self)


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"*.{pattern}")


def _names(linears: dict[str, Linear]) -> list[str]:
    """The last names of all projections, with those of their parts."""
    found: dict[str, None] = {}
    for name, linear in linears.items():
        last = name.rpartition(".")[2]
        found |= dict.fromkeys([last, *(f"{last}[{part}]" for part in linear.parts)])
    return list(found)


def _rows(linear: Linear, name: str, part: str | None) -> slice:
    if part is None:
        return slice(0, linear.out_features)
    try:
        return linear.rows(part)
    except RecipeError as error:
        raise RecipeError(f"LowRank: target {name}[{part}]: {error}") from None


def _check_alone(linear: Linear, delta: LowRankDelta, name: str) -> None:
    for other in linear.deltas:
        if (
            isinstance(other, LowRankDelta)
            and other.rows.start < delta.rows.stop
            and delta.rows.start < other.rows.stop
        ):
            raise RecipeError(
                f"LowRank: {name} is adapted twice in the same channels; expected each projection, or part of one, in "
                "one target of one LowRank adapter"
            )
