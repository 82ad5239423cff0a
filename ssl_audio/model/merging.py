"""Token merging: in every block the tokens of a clip that are most alike become one."""

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch import Tensor

from ssl_audio.errors import RecipeError
from ssl_audio.tokens import PROMPT, Origin, Tokens

if TYPE_CHECKING:
    from ssl_audio.model.encoders.encoder import Encoder

Order = Literal["time", "split"]
_LAST = 2**62


@dataclasses.dataclass(frozen=True, kw_only=True)
class Merging:
    """How many tokens of each clip are merged into others in each block, and how.

    In a block the patches of a clip are divided in turn into two sets; each of the first finds the one of the second
    that is most like it, and the `r` most alike pairs become one token each: the mean of both, weighted by how many
    patches each stands for. Class tokens and prompts are never merged, nor are tokens of two clips. No clip loses more
    than half of its patches in a block. Outputs for frames give each patch the state of the token that it became a part
    of (`Tokens.unmerged`).

    Args:
        r: Tokens that each clip loses in a block, or a number for each block that merges; blocks beyond the list merge
            none. 0 changes nothing, bit for bit.
        inflect: Turns a single `r` into a line from `r * (1 - inflect)` to `r * (1 + inflect)` over the blocks: -1
            merges most in the first blocks, 1 in the last.
        every: The last of so many blocks merges; None takes what is published for the encoder: each block of a
            Transformer, every second one of a Mamba. A Mamba merges behind a block, so its last one merges none.
        metric: By what tokens are alike: the `keys` of an attention, for which a Mamba has what its mixer gives; what
            the mixer gets (`input`); or the steps `dt` of a Mamba's scans.
        proportional: Attention counts a merged token as often as it has patches, by the logarithm of its size.
        order: `time` leaves the tokens in their order, and class tokens out of the two sets; `split` puts the first set
            before the second, as ToMe does, with class tokens among them; None takes `time` where the encoder or an
            adapter asks for the order of the tokens.

    Source: arXiv 2210.09461 (ToMe), facebookresearch/ToMe@af95e4b `merge.py`, `utils.parse_r`;
        NUS-HPC-AI-Lab/R-MeeTo@ae376bb `merge.py` (order kept, every second block).
    Differs: hidden state and residual stream of a Mamba are merged as their sum, which is the same; class tokens keep
        their neighbours rather than their share of the row; ties go to the earlier token.
    """

    r: NonNegativeInt | list[NonNegativeInt] = 0
    inflect: float = 0.0
    every: PositiveInt | None = None
    metric: Literal["keys", "input", "dt"] = "keys"
    proportional: bool = True
    order: Order | None = None

    def attach(self, encoder: "Encoder", *, ordered: bool = False, class_tokens: int = 0, front: bool = True) -> None:
        """Give the blocks of an encoder their part in it, in place of what they had.

        Args:
            encoder: Whose blocks merge.
            ordered: Something in the slots of the encoder asks for the order of the tokens.
            class_tokens: How many each clip has.
            front: They stand in front of its patches, as published; else order is kept.

        Raises:
            RecipeError: if the numbers do not fit the blocks, or the encoder has no such metric.
        """
        blocks: list[Any] = list(encoder.blocks)
        every = self.every or encoder.merge_every
        merging = range(every - 1, len(blocks) - encoder.merges_behind, every)
        order = self.order or ("time" if encoder.ordered or ordered else "split")
        if order == "split" and encoder.ordered:
            raise RecipeError(
                f"model.backbone.merging.order is split, but {type(encoder).__name__} mixes tokens in their order; "
                "expected time"
            )
        if class_tokens and not front:
            order = "time"
        if self.r:
            encoder.check_merging()
            if not merging:
                raise RecipeError(
                    f"merging in a {type(encoder).__name__}: none of its {len(blocks)} blocks merges with every "
                    f"{every}; expected a smaller model.backbone.merging.every, or more blocks"
                )
        counts = dict(zip(merging, self.schedule(len(merging)) if merging else [], strict=True))
        self._choose_metric(encoder)
        encoder.proportional = self.proportional
        for number, block in enumerate(blocks):
            r = counts.get(number, 0)
            block.merge = _Merge(r, order, sort=class_tokens > 0) if r else None

    def schedule(self, blocks: int) -> list[int]:
        """Tokens lost in each of the blocks that merge.

        Raises:
            RecipeError: if there are more numbers than blocks, or `inflect` makes some negative.
        """
        if not isinstance(self.r, int):
            if len(self.r) > blocks:
                raise RecipeError(
                    f"model.backbone.merging.r has {len(self.r)} numbers, and {blocks} blocks merge; expected no more"
                )
            return [*self.r, *[0] * (blocks - len(self.r))]
        if not -1 <= self.inflect <= 1:
            raise RecipeError(f"model.backbone.merging.inflect is {self.inflect}; expected -1 to 1")
        least = int(self.r * (1 - self.inflect))
        step = (2 * self.r - 2 * least) / max(1, blocks - 1)
        return [int(least + step * number) for number in range(blocks)] if blocks > 1 else [self.r]

    def _choose_metric(self, encoder: "Encoder") -> None:
        for branch in encoder.branches()["mixer"]:
            transform: Any = branch.transform
            kinds = transform.metrics
            if self.metric not in kinds:
                raise RecipeError(
                    f"model.backbone.merging.metric is {self.metric}, which {type(encoder).__name__} does not "
                    f"have; expected {' or '.join(kinds)}"
                )
            transform.metric = self.metric


class _Merge:
    """The merging of one block; no module: nothing in it is learnt."""

    def __init__(self, r: int, order: Order, *, sort: bool) -> None:
        self.r = r
        self.order: Order = order
        self.sort = sort

    def __call__(self, tokens: Tokens, keys: Float[Tensor, "row head token channel"]) -> Tokens:
        found = match(tokens, keys, r=self.r, order=self.order, sort=self.sort)
        return tokens if found is None else combine(tokens, found, order=self.order)


@dataclasses.dataclass(frozen=True, slots=True)
class Matching:
    """Which tokens are merged into which, by their numbers in the flattened rows.

    Args:
        target: Of each token, the one that it becomes a part of; itself if it stays.
        sources: Those that go; some that stay are among them where clips lose different numbers.
        rank: Where a token stands among those of its clip, and whether it is of the second set.
        second: See `rank`.
        lost: How many tokens each row loses, if all lose as many.
    """

    target: Int[Tensor, " token"]
    sources: Int[Tensor, " source"]
    rank: Int[Tensor, " token"]
    second: Bool[Tensor, " token"]
    lost: int | None


@torch.no_grad()
def match(
    tokens: Tokens, keys: Float[Tensor, "row head token channel"], *, r: int, order: Order, sort: bool = True
) -> Matching | None:
    """The `r` most alike pairs of each clip; None if no clip has two patches.

    Args:
        tokens: Among which.
        keys: What is compared, by cosines of the mean over heads.
        r: Tokens that each clip is to lose, at most half of its patches.
        order: With `split` class tokens are in the two sets too, and never matched.
        sort: With `split`, those of the first set that stay are in their order; else, as published where there are no
            class tokens, in that of their scores.
    """
    patch = tokens.is_patch()
    among = patch if order == "time" else patch | tokens.is_class()
    index, filled = _by_clip(tokens, among)
    longest = index.shape[1]
    first, second = index[:, ::2], index[:, 1::2]
    if not second.shape[1]:
        return None
    own = patch.flatten()
    # Clips of a batch of whole rows have equally many patches; else each clip has its own number.
    patches = own[index].sum(dim=1) if filled is None else (own[index] & filled).sum(dim=1)
    each = (patches // 2).clamp_max(r)
    most = int(each[0]) if tokens.whole else min(r, longest // 2)
    if not most:
        return None
    metric = F.normalize(keys.float().mean(dim=1), dim=-1).flatten(0, 1)[index]
    fit = own[index] if filled is None else own[index] & filled
    if (order == "split" and sort) or filled is not None:
        # Added by the product itself: to fill a table of all pairs would cost as much again.
        barred = metric.new_zeros(fit[:, 1::2].shape).masked_fill(~fit[:, 1::2], -torch.inf)
        with torch.autocast(metric.device.type, enabled=False):
            scores = torch.baddbmm(barred[:, None], metric[:, ::2], metric[:, 1::2].transpose(1, 2))
        best, partner = scores.max(dim=2)
        best = best.masked_fill(~fit[:, ::2], -torch.inf)
    else:
        with torch.autocast(metric.device.type, enabled=False):
            best, partner = (metric[:, ::2] @ metric[:, 1::2].transpose(1, 2)).max(dim=2)
    ranked = best.argsort(dim=1, descending=True, stable=True)
    chosen = ranked[:, :most]
    sources = first.gather(1, chosen)
    targets = second.gather(1, partner.gather(1, chosen))
    if not tokens.whole:
        takes_part = torch.arange(most, device=index.device) < each[:, None]
        targets = torch.where(takes_part, targets, sources)
    total = tokens.clip.numel()
    target = torch.arange(total, device=index.device)
    if filled is not None:
        # Places that no token fills are sent beyond the end.
        sources, targets = (torch.where(filled[:, ::2].gather(1, chosen), part, total) for part in (sources, targets))
        target = torch.cat([target, target.new_tensor([total])])
    target[sources.flatten()] = targets.flatten()
    rank = target.new_zeros(len(target))
    place = torch.arange(longest, device=index.device).expand_as(index)
    if not sort:
        place = place.clone()
        place[:, ::2] = ranked.argsort(dim=1)
    inside = index if filled is None else torch.where(filled, index, total)
    rank[inside.flatten()] = place.flatten()
    is_second = torch.zeros(len(target), dtype=torch.bool, device=index.device)
    is_second[inside[:, 1::2].flatten()] = True
    sources = sources.flatten()
    if filled is not None:
        sources, target, rank, is_second = sources[sources < total], target[:total], rank[:total], is_second[:total]
    return Matching(target, sources, rank, is_second, most if tokens.whole else None)


def combine(tokens: Tokens, found: Matching, *, order: Order) -> Tokens:
    """The tokens that stay, with what was merged into them.

    Args:
        tokens: Before.
        found: Which become parts of which.
        order: Of the tokens that stay.
    """
    rows, count = tokens.clip.shape
    numbers = torch.arange(rows * count, device=tokens.clip.device)
    stays = (found.target == numbers).view(rows, count)
    kept = _kept(tokens, found, stays, order)
    flat = (kept + torch.arange(rows, device=kept.device)[:, None] * count).flatten()
    now = kept.shape[1]
    place = torch.full_like(numbers, -1).index_copy(0, flat, torch.arange(rows * now, device=kept.device))
    place = place[found.target]  # of every token: where it is now

    sources = found.sources
    size = tokens.size.flatten()
    moved = size[sources] * (found.target[sources] != sources)
    sizes = size.index_add(0, found.target[sources], moved)
    scale = (size / sizes)[flat, None]
    share = (moved / sizes[found.target[sources]])[:, None]
    old = tokens.states.flatten(0, 1)
    states = old.index_select(0, flat) * scale.to(old.dtype)
    states = states.index_add(0, place[sources], old.index_select(0, sources) * share.to(old.dtype))

    within = torch.where(place < 0, -1, place % now).view(rows, count)
    if tokens.origin is None:
        origin = Origin(within, tokens.clip, tokens.time, tokens.band, tokens.whole, tokens.grid)
    else:
        before = tokens.origin.place
        moved_to = torch.where(before < 0, -1, within.gather(1, before.clamp_min(0)))
        origin = dataclasses.replace(tokens.origin, place=moved_to)
    clip, time, band = (part.gather(1, kept) for part in (tokens.clip, tokens.time, tokens.band))
    sizes = sizes[flat].view(rows, now)
    if not tokens.whole:
        # Where a row lost more than others and has no padding, what was merged away fills it, as padding.
        gone = ~stays.gather(1, kept)
        clip, time, band = (torch.where(gone, -1, part) for part in (clip, time, band))
        sizes = torch.where(gone, 1.0, sizes)
    return Tokens(
        states=states.view(rows, now, -1),
        clip=clip,
        time=time,
        band=band,
        size=sizes,
        whole=tokens.whole,
        clips=tokens.clips,
        grid=None,
        origin=origin,
    )


def _by_clip(
    tokens: Tokens, among: Bool[Tensor, "row token"]
) -> tuple[Int[Tensor, "clip place"], Bool[Tensor, "clip place"] | None]:
    """The numbers of some tokens in the flattened rows, those of a clip in a row; and which places of it are filled,
    None if all are.
    """
    rows, count = tokens.clip.shape
    if tokens.whole:
        order = (~among).to(torch.int8).argsort(dim=1, stable=True)[:, : int(among[0].sum())]
        return order + torch.arange(rows, device=order.device)[:, None] * count, None
    clip, order = torch.where(among, tokens.clip, -1).flatten().sort(stable=True)
    begin = torch.searchsorted(clip, torch.arange(tokens.clips + 1, device=clip.device))
    length = begin[1:] - begin[:-1]
    place = torch.arange(int(length.max()), device=clip.device)
    index = order[(begin[:-1, None] + place).clamp_max(len(order) - 1)]
    return index, place < length[:, None]


def _kept(tokens: Tokens, found: Matching, stays: Bool[Tensor, "row token"], order: Order) -> Int[Tensor, "row kept"]:
    """Places of the tokens that stay, in their new order, with as much padding behind as the longest row needs."""
    rows, count = stays.shape
    place = torch.arange(count, device=stays.device).expand(rows, -1)
    padding = (tokens.clip < 0) & (tokens.time != PROMPT)
    if found.lost is not None:
        longest = count - found.lost
    else:
        longest = int((stays & ~padding).sum(dim=1).max())
    key = place
    if order == "split":
        key = _split_key(tokens, found, place)
    key = torch.where(stays, torch.where(padding, _LAST, key), _LAST + 1)
    return key.argsort(dim=1, stable=True)[:, :longest]


def _split_key(tokens: Tokens, found: Matching, place: Int[Tensor, "row token"]) -> Int[Tensor, "row token"]:
    """Clips in their order; in each class tokens, then the first set, then the second; prompts behind all."""
    rows, count = place.shape
    start = torch.zeros_like(place)
    if not tokens.whole:
        own = torch.arange(tokens.clips + 1, device=place.device)
        begin = own.new_full((tokens.clips + 1,), count)
        begin = begin.scatter_reduce(0, (tokens.clip + 1).flatten(), place.flatten(), "amin")
        start = begin[tokens.clip + 1]
    group = torch.where(tokens.is_class(), 0, torch.where(found.second.view(rows, count), 2, 1))
    key = (start * 3 + group) * count + found.rank.view(rows, count)
    return torch.where(tokens.time == PROMPT, _LAST - count + place, key)
