"""The bidirectional Mamba encoder of SSAMBA."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from torch import Tensor, nn

from ssl_audio.errors import LayoutError, RecipeError
from ssl_audio.model.branch import Branch, Context, Mixed
from ssl_audio.model.encoders.encoder import Encoder, Merge
from ssl_audio.model.linear import Linear
from ssl_audio.model.patterns import Pattern
from ssl_audio.scan.backend import State
from ssl_audio.scan.bidirectional import Way, scan_both, scan_on, scan_one
from ssl_audio.scan.convolution import causal_convolution, proceed_convolution
from ssl_audio.tokens import Tokens

Offset = Callable[[], Float[Tensor, "inner state"]]
"""What is added to the states of a scan where they are read."""


@dataclasses.dataclass(slots=True)
class ScanPast:
    """What a stream carries through one block; the mixer replaces it.

    Args:
        state: Of the scan from the first token to the last.
        tail: What the convolution before it has seen last.
    """

    state: State | None = None
    tail: Float[Tensor, "row before inner"] | None = None


class Direction(nn.Module):
    """What one direction of the mixer has for itself: convolution, projections to dt, B and C, rates and skip.

    Args:
        inner: Channels.
        states: States of each channel.
        taps: Taps of the convolution.
        rank: Channels through which dt is projected.
        dt_bias: How the bias of dt begins: `spread` between steps of 0.001 and 0.1, or `zero`.

    Attributes:
        offsets: Added to the scan's states where they are read; empty until adapters fill it.
    """

    def __init__(self, inner: int, *, states: int, taps: int, rank: int, dt_bias: str = "spread") -> None:
        super().__init__()
        self.sizes = (rank, states, states)
        self.taps = nn.Parameter(torch.empty(inner, taps))
        self.taps_bias = nn.Parameter(torch.empty(inner))
        self.project = Linear(inner, rank + 2 * states, bias=False, parts={"dt": rank, "B": states, "C": states})
        self.dt = Linear(rank, inner)
        self.offsets: list[Offset] = []
        self.A_log = nn.Parameter(torch.empty(inner, states))
        self.D = nn.Parameter(torch.ones(inner))
        for parameter in (self.A_log, self.D, self.taps_bias):
            parameter.no_weight_decay = True  # type: ignore[attr-defined]
        if not self.A_log.is_meta:
            self._begin(taps, rank, dt_bias)

    @torch.no_grad()
    def _begin(self, taps: int, rank: int, dt_bias: str) -> None:
        """Initial values. Source: state-spaces/mamba@e9594ce `Mamba.__init__`; torch's Conv1d for the taps."""
        self.A_log.copy_(torch.arange(1, self.A_log.shape[1] + 1, dtype=torch.float32).log())
        nn.init.uniform_(self.taps, -(taps**-0.5), taps**-0.5)
        nn.init.uniform_(self.taps_bias, -(taps**-0.5), taps**-0.5)
        nn.init.uniform_(self.dt.weight, -(rank**-0.5), rank**-0.5)
        if dt_bias == "zero":
            self.dt.bias.zero_()
        else:
            step = torch.exp(torch.empty(len(self.D)).uniform_(math.log(1e-3), math.log(1e-1))).clamp_min(1e-4)
            self.dt.bias.copy_(step + torch.log(-torch.expm1(-step)))  # the inverse of softplus

    def forward(
        self,
        x: Float[Tensor, "row token inner"],
        *,
        reverse: bool,
        borders: Bool[Tensor, "row token"] | None,
        past: ScanPast | None = None,
    ) -> Way:
        """What the scan of this direction is fed with."""
        if past is None:
            u = causal_convolution(x, self.taps, self.taps_bias, reverse=reverse, reset=borders)
        else:
            u, past.tail = proceed_convolution(x, self.taps, self.taps_bias, tail=past.tail)
        dt, B, C = self.project(u).split(self.sizes, dim=-1)
        # The bias is added, in float32, by the scan.
        dt = self.dt.without_bias(dt)
        A = -torch.exp(self.A_log.float())
        return Way(
            u=u, dt=dt.to(u.dtype), A=A, B=B.to(u.dtype), C=C.to(u.dtype), D=self.D.float(), bias=self.dt.bias.float()
        )


class Mixer(nn.Module):
    """A scan in either direction over the same projection, averaged, gated once and projected back.

    Args:
        width: Channels of a token.
        states: States of each inner channel.
        taps: Taps of the convolutions.
        expansion: Inner channels over `width`.
        depth: Blocks of the encoder, by which the output projection begins smaller.
        turned: Exchange the directions: what this mixer does to a row turned round in time, turned back.
        backward_dt_bias: See `Direction`.
        forward_only: Have no direction from the last token to the first.

    Attributes:
        metric: Which of `metrics` are its keys: what the mixer gives, its input, or the steps of both scans.

    Source: hustvl/Vim@dd0358a `mamba_simple.Mamba` (bimamba_type v2, if_divide_out).
    Differs: gates after summing both directions, which gives the same numbers at half the cost; nothing is flipped.
    """

    metrics = ("keys", "input", "dt")

    def __init__(
        self,
        width: int,
        *,
        states: int,
        taps: int,
        expansion: int,
        depth: int,
        turned: bool = False,
        backward_dt_bias: str = "spread",
        forward_only: bool = False,
    ) -> None:
        super().__init__()
        inner, rank = expansion * width, math.ceil(width / 16)
        self.turned = turned
        self.metric: Literal["keys", "input", "dt"] = "keys"
        self.into = Linear(width, 2 * inner, bias=False, parts={"x": inner, "gate": inner})
        self.ahead = Direction(inner, states=states, taps=taps, rank=rank)
        self.back: Direction | None = None
        if not forward_only:
            self.back = Direction(inner, states=states, taps=taps, rank=rank, dt_bias=backward_dt_bias)
        self.out = Linear(inner, width, bias=False)
        if not self.out.weight.is_meta:
            with torch.no_grad():
                self.out.weight /= math.sqrt(depth)

    def forward(self, tokens: Tokens, context: Context) -> Mixed:
        x, gate = self.into(tokens.states).chunk(2, dim=-1)
        order = context.order
        if order is not None:
            x = _taken(x, order[0])
        past: ScanPast | None = context.past
        ways = [self.ahead(x, reverse=self.turned, borders=context.borders, past=past)]
        if self.back is not None:
            borders = context.borders if context.back_borders is None else context.back_borders
            ways.append(self.back(x, reverse=not self.turned, borders=borders))
        with torch.autocast(x.device.type, enabled=False):
            mixed = self._scanned(ways, context)
        for direction, way in zip((self.ahead, self.back), ways, strict=False):
            for offset in direction.offsets if direction is not None else ():
                mixed = mixed + (way.C @ offset().to(way.C.dtype).T).to(mixed.dtype)
        if order is not None:
            mixed = _taken(mixed, order[1])
        states = self.out(mixed * F.silu(gate) * (1.0 / len(ways)))
        keys = tokens.states if self.metric == "input" else states
        if self.metric == "dt":
            keys = torch.cat([way.dt for way in ways], dim=-1)
            keys = keys if order is None else _taken(keys, order[1])
        return Mixed(states, keys[:, None])

    def _scanned(self, ways: list[Way], context: Context) -> Float[Tensor, "row token inner"]:
        """The sum of the scans."""
        past: ScanPast | None = context.past
        if past is not None:
            mixed, past.state = scan_on(ways[0], past.state)
            return mixed if len(ways) == 1 else mixed + scan_one(ways[1], reverse=True, reset=context.back_borders)
        if len(ways) == 1:
            return scan_one(ways[0], reset=context.borders)
        first, second = reversed(ways) if self.turned else ways
        return scan_both(first, second, reset=context.borders, back_reset=context.back_borders)


class Block(nn.Module):
    """A mixer before its norm, with stochastic depth; it has the branch `mixer`."""

    def __init__(self, mixer: Mixer, *, width: int, drop: float) -> None:
        super().__init__()
        self.mixer = Branch(nn.LayerNorm(width, eps=1e-5), mixer)
        self.drop = drop
        self.merge: Merge | None = None

    def forward(self, tokens: Tokens, context: Context) -> Tokens:
        states, keys = self.mixer(tokens, context)
        if self.training and self.drop:
            kept = torch.rand(len(states), 1, 1, device=states.device) >= self.drop
            states = states * (kept / (1.0 - self.drop)).to(states.dtype)
        tokens = tokens.with_states(tokens.states + states)
        return tokens if self.merge is None else self.merge(tokens, keys)


class BiMamba(Encoder):
    """Bidirectional Mamba: cost and memory grow with the number of tokens, not with its square.

    Published sizes: tiny 192, small 384, base 768 wide, all 24 deep.

    Args:
        width: Channels of every token.
        depth: Number of blocks.
        states: States of each inner channel.
        taps: Taps of the convolutions before the scans.
        expansion: Inner channels over `width`.
        drop_path: Stochastic depth: how often the last block leaves out a row in training; earlier ones in proportion.
        paired_flips: Published: blocks work in pairs, both on the same input, the second on it turned round in time,
            and the residual stream doubles at every pair.
        second_final_norm: Published: the final norm is applied twice.
        forward_only: Tokens see those before them alone, in the order of time: a stream is computed token by token.
        chunk: The direction from the last token to the first starts again at every so many patch columns, in the order
            of time: a stream is computed chunk by chunk, and a column waits for the end of its chunk. None lets it run
            through the whole clip.
        zeroed_backward_dt_bias: Published: the bias of dt of the backward direction begins at 0.
        pattern: None: a Mamba has no attention that a pattern could restrict.

    Raises:
        RecipeError: if blocks are to be paired and their number is odd, a pattern is given, or options for streams
            contradict one another or paired blocks.

    Source: SiavashShams/ssamba@019b276 `AMBAModel` over hustvl/Vim@dd0358a `VisionMamba` (LayerNorm eps 1e-5, Vim's v2
        mixer, inter_dpr); initialised as there.
    Differs: stochastic depth leaves out what a block adds; with `paired_flips` the published code draws once more for
        each member of the next pair.
    """

    free = frozenset({"drop_path", "chunk", "pattern"})  # it says itself that it has no place for a pattern
    ordered = True
    merge_every = 2
    merges_behind = True

    def __init__(
        self,
        *,
        width: PositiveInt = 192,
        depth: PositiveInt = 24,
        states: PositiveInt = 16,
        taps: PositiveInt = 4,
        expansion: PositiveInt = 2,
        drop_path: ClosedUnitInterval = 0.0,
        paired_flips: bool = False,
        second_final_norm: bool = False,
        zeroed_backward_dt_bias: bool = False,
        forward_only: bool = False,
        chunk: PositiveInt | None = None,
        pattern: Pattern | None = None,
    ) -> None:
        super().__init__()
        if pattern is not None:
            raise RecipeError(
                f"BiMamba: has no attention for the pattern {type(pattern).__name__}; leave pattern out, or take a "
                "Transformer"
            )
        if paired_flips and depth % 2:
            raise RecipeError(f"BiMamba: paired_flips needs an even depth, not depth={depth}")
        if (forward_only or chunk is not None) and (paired_flips or (forward_only and chunk is not None)):
            raise RecipeError(
                f"BiMamba: forward_only={forward_only}, chunk={chunk} and paired_flips={paired_flips} contradict one "
                "another; a stream needs either forward_only or chunk, and paired_flips false"
            )
        self.width = width
        self.forward_only = forward_only
        self.chunk = chunk
        self.paired_flips = paired_flips
        self.second_final_norm = second_final_norm
        # As published: there each block drops what the one before it added, at rates shifted by one.
        rates = [drop_path * number / max(1, depth - 1) for number in range(depth)]
        self.blocks = nn.ModuleList(
            Block(
                Mixer(
                    width,
                    states=states,
                    taps=taps,
                    expansion=expansion,
                    depth=depth,
                    turned=paired_flips and number % 2 == 1,
                    backward_dt_bias="zero" if zeroed_backward_dt_bias else "spread",
                    forward_only=forward_only,
                ),
                width=width,
                drop=rates[number],
            )
            for number in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-5)

    @property
    def looks_back(self) -> bool:
        return self.forward_only

    def context(self, tokens: Tokens, past: Any = None) -> Context:
        borders = None if tokens.whole else borders_of(tokens)
        if not self.forward_only and self.chunk is None:
            return Context(self.context, borders=borders, past=past)
        # The tokens of a stream come in the order of time.
        order = None if past is not None else order_in_time(tokens)
        back = None
        if self.chunk is not None:
            chunk = tokens.time.clamp_min(0) // self.chunk
            chunk = chunk if order is None else chunk.gather(1, order)
            back = F.pad(chunk[:, 1:] != chunk[:, :-1], (1, 0))
            back = back if borders is None else back | borders
        ways = None if order is None else (order, order.argsort(dim=1))
        return Context(self.context, borders=borders, back_borders=back, order=ways, past=past)

    @property
    def stream_columns(self) -> int | None:
        return 1 if self.forward_only else self.chunk

    def begin(self) -> list[ScanPast]:
        return [ScanPast() for _ in self.blocks]

    def check_merging(self) -> None:
        if self.paired_flips:
            raise RecipeError(
                "BiMamba: with paired_flips two blocks share one input, so no tokens can be merged between them; set "
                "paired_flips to false, or leave out model.backbone.merging"
            )

    def normalise(self, tokens: Tokens) -> Tokens:
        states = self.norm(tokens.states)
        return tokens.with_states(self.norm(states) if self.second_final_norm else states)

    def stream(self, tokens: Tokens) -> Iterator[Tokens]:
        if not self.paired_flips:
            yield from super().stream(tokens)
            return
        if self.before_block or any(block.merge is not None for block in self.blocks):
            raise LayoutError(
                "BiMamba: with paired_flips two blocks share one input, so nothing may change the tokens between them; "
                "set paired_flips to false, or leave out prompts and merging"
            )
        context = self.context(tokens)
        for first, second in zip(self.blocks[0::2], self.blocks[1::2], strict=True):
            one = first(tokens, context)
            yield tokens.with_states(tokens.states + one.states)
            tokens = tokens.with_states(one.states + second(tokens, context).states)
            yield tokens

    def branches(self) -> dict[str, list[Branch]]:
        return {"mixer": [block.mixer for block in self.blocks]}  # type: ignore[misc]


def borders_of(tokens: Tokens) -> Bool[Tensor, "row token"]:
    """Where a token belongs to another clip (or to padding) than the token before it."""
    changed = tokens.clip[:, 1:] != tokens.clip[:, :-1]
    return F.pad(changed, (1, 0))


def order_in_time(tokens: Tokens) -> Int[Tensor, "row token"] | None:
    """Places of the tokens of each row such that those of each clip follow one another in time, class tokens and
    prompts first; None where they do already.
    """
    if tokens.whole and tokens.grid is not None and tokens.grid == (1, tokens.clip.shape[1]):
        return None
    clip = borders_of(tokens).cumsum(dim=1)
    return (clip * (1 << 32) + tokens.time).argsort(dim=1, stable=True)


def _taken(
    x: Float[Tensor, "row token channel"], order: Int[Tensor, "row token"]
) -> Float[Tensor, "row token channel"]:
    return x.gather(1, order[:, :, None].expand_as(x))
