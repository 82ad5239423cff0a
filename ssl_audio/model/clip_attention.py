"""Attention among the tokens of each clip, where several share a row or padding stands behind them."""

import dataclasses
import functools
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl_audio.model.attention import Attend, attend
from ssl_audio.tokens import Tokens

_STEP = 1.15
"""Longest over shortest clip of a group: no more than an eighth of its places is padding."""


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Clips of about the same length.

    Args:
        index: Of each place, the number of its token in the flattened rows; of padding, any.
        filled: Which places have a token; None where all have.
        bias: Added to the scores of each key.
    """

    index: Int[Tensor, "clip place"]
    filled: Bool[Tensor, "clip place"] | None
    bias: Float[Tensor, "clip place"] | None


@dataclasses.dataclass(frozen=True, slots=True)
class ByClip:
    """Attention of each clip alone, computed for clips of about the same length at once.

    Cost grows with the squares of the clips' lengths, not with that of the rows' length.

    Args:
        groups: All clips of the batch; padding is in none, and gets zeros.
    """

    groups: tuple[Group, ...]

    def __call__(
        self,
        query: Float[Tensor, "row head token channel"],
        key: Float[Tensor, "row head seen channel"],
        value: Float[Tensor, "row head seen channel"],
    ) -> Float[Tensor, "row head token channel"]:
        rows, heads, count, channels = query.shape
        front = key.shape[2] - count  # keys of adapters, which every token sees, the same in all rows
        before = [part[:1, :, :front] for part in (key, value)]
        flat = [_flat(part) for part in (query, key[:, :, front:], value[:, :, front:])]
        parts, places = [], []
        for group in self.groups:
            clips, longest = group.index.shape
            index = group.index.flatten()
            q, k, v = (
                part.index_select(0, index).view(clips, longest, heads, channels).transpose(1, 2) for part in flat
            )
            if front:
                k, v = (
                    torch.cat([first.expand(clips, -1, -1, -1), own], dim=2)
                    for first, own in zip(before, (k, v), strict=True)
                )
            mixed = attend(q, k, v, self._mask(group, longest, front, q.dtype)).transpose(1, 2).flatten(0, 1)
            if group.filled is not None:
                kept = group.filled.flatten()
                mixed, index = mixed[kept], index[kept]
            parts.append(mixed.flatten(1))
            places.append(index)
        found = flat[0].new_zeros(rows * count, heads * channels).index_copy(0, torch.cat(places), torch.cat(parts))
        return found.view(rows, count, heads, channels).transpose(1, 2)

    @staticmethod
    def _mask(group: Group, longest: int, front: int, dtype: torch.dtype) -> Tensor | None:
        mask = group.filled
        if group.bias is not None:
            mask = group.bias.to(dtype)
            if group.filled is not None:
                mask = mask.masked_fill(~group.filled, torch.finfo(dtype).min / 2)
        if mask is None:
            return None
        seen = F.pad(mask, (front, 0), value=mask.dtype == torch.bool)
        return seen[:, None, None].expand(-1, 1, longest, -1)


def among_clips(tokens: Tokens, bias: Float[Tensor, "row token"] | None = None) -> Attend:
    """The way to attend among the tokens of each clip that suits the device."""
    if tokens.clip.device.type == "cuda":
        return Blocks(tokens.clip, bias, compiled=True)
    return by_clip(tokens, bias)


def by_clip(tokens: Tokens, bias: Float[Tensor, "row token"] | None = None) -> ByClip:
    """A way to attend for these tokens; asks the device how long the clips are.

    Args:
        tokens: Rows of clips and padding; the tokens of a clip may stand anywhere in them.
        bias: Added to the scores of each key.
    """
    clip, order = tokens.clip.flatten().sort(stable=True)  # padding comes first, and takes no part
    clips = clip.new_tensor(range(tokens.clips + 1))
    begin = torch.searchsorted(clip, clips)
    length = begin.diff()
    lengths = length.tolist()
    ranked = sorted((number for number in range(tokens.clips) if lengths[number]), key=lambda number: lengths[number])
    groups = []
    start = 0
    for end in range(1, len(ranked) + 1):
        if end < len(ranked) and lengths[ranked[end]] <= _STEP * lengths[ranked[start]]:
            continue
        members = torch.tensor(ranked[start:end], device=clip.device)
        shortest, longest = lengths[ranked[start]], lengths[ranked[end - 1]]
        place = torch.arange(longest, device=clip.device)
        index = order[(begin[members][:, None] + place).clamp_max(len(order) - 1)]
        filled = None if shortest == longest else place < length[members][:, None]
        groups.append(Group(index, filled, None if bias is None else bias.flatten()[index]))
        start = end
    return ByClip(tuple(groups))


@dataclasses.dataclass(frozen=True, slots=True)
class Blocks:
    """The same by torch's flex attention, which leaves out the blocks of pairs of which none is of one clip.

    Args:
        clip: Of each token.
        bias: Added to the scores of each key.
        compiled: Whether the kernel is compiled, which a GPU needs.
    """

    clip: Int[Tensor, "row token"]
    bias: Float[Tensor, "row token"] | None
    compiled: bool

    def __call__(
        self,
        query: Float[Tensor, "row head token channel"],
        key: Float[Tensor, "row head seen channel"],
        value: Float[Tensor, "row head seen channel"],
    ) -> Float[Tensor, "row head token channel"]:
        from torch.nn.attention.flex_attention import create_block_mask

        front = key.shape[2] - query.shape[2]

        # Padded by the keys in front, so that the number of a key is its index.
        clip = F.pad(self.clip, (front, 0))
        bias = None if self.bias is None else F.pad(self.bias.to(query.dtype), (front, 0))
        blocks = create_block_mask(
            lambda row, _, token, seen: (seen < front) | (clip[row, front + token] == clip[row, seen]),
            *(len(query), None, query.shape[2], key.shape[2]),
            device=str(query.device),
        )
        added: Any = None if bias is None else lambda score, row, _, token, seen: score + bias[row, seen]
        return _flex(compiled=self.compiled)(query, key, value, score_mod=added, block_mask=blocks)


@functools.cache
def _flex(*, compiled: bool) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True) if compiled else flex_attention


def _flat(states: Float[Tensor, "row head token channel"]) -> Float[Tensor, "place channels"]:
    return states.transpose(1, 2).flatten(2).flatten(0, 1)
