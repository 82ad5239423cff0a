"""From the tokens of a clip to one vector."""

import dataclasses
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_audio.errors import RecipeError
from ssl_audio.model.encoders.encoder import Encoder
from ssl_audio.tokens import Tokens, pool, pool_bands, pool_moments

Pooling = Literal["mean", "moments", "bands", "class", "first", "attentive", "query"]


def pool_class_tokens(tokens: Tokens) -> Float[Tensor, "clip width"]:
    """Mean of each clip's class tokens.

    Raises:
        RecipeError: if there are none.

    Source: YuanGongND/ssast@a1a3eec, `finetuningcls`; AST's output is the same.
    """
    chosen, clips = tokens.is_class(), tokens.clips
    if not bool(chosen.any()):
        raise RecipeError("pooling is class, but this backbone has no class tokens; expected mean or attentive")
    only = tokens.with_states(tokens.states.float())
    weight = chosen.float()
    index = only.clip.clamp_min(0).flatten()
    total = only.states.new_zeros(clips, only.states.shape[-1])
    total = total.index_add_(0, index, (only.states * weight[..., None]).flatten(0, 1))
    return total / weight.new_zeros(clips).index_add_(0, index, weight.flatten())[:, None]


def pool_first(tokens: Tokens) -> Float[Tensor, "clip width"]:
    """Mean state of the first patch column of each clip, as published for MFCC-gram Transformers.

    Source: marcelomatheusgauy/Audio_mfcc_gram_transformers@9fffb55 `LossCompute`.
    """
    tokens = tokens.unmerged()
    return pool(dataclasses.replace(tokens, clip=torch.where(tokens.time == 0, tokens.clip, -1), whole=False))


class AttentivePooling(nn.Module):
    """A weighted mean of each clip's patches, with weights that are learnt: one query a head.

    Args:
        width: Channels of a token.
        heads: How many weightings, each for its share of the channels.

    Source: arXiv 1810.00825 (pooling by multi-head attention), without its feed-forward part.
    """

    def __init__(self, width: int, *, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads if width % heads == 0 else 1
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, self.heads)

    def forward(self, tokens: Tokens) -> Float[Tensor, "clip width"]:
        """One vector a clip; class tokens and padding take no part."""
        states, clips = self.norm(tokens.states.float()), tokens.clips
        # The weights are normalised over a clip's patches, wherever they lie: exp(score) over its sum.
        scores = self.score(states).clamp(-30, 30)
        weight = scores.exp() * (tokens.is_patch() * tokens.size)[..., None]
        channels = states.shape[-1] // self.heads
        spread = weight.repeat_interleave(channels, dim=-1)
        index = tokens.clip.clamp_min(0).flatten()
        width = states.shape[-1]
        total = states.new_zeros(clips, width).index_add_(0, index, (states * spread).flatten(0, 1))
        norm = states.new_zeros(clips, width).index_add_(0, index, spread.flatten(0, 1))
        return total / norm.clamp_min(1e-12)


class QueryPooling(nn.Module):
    """One learnt query that attends to each clip's patches, by multi-head attention with projections of its own.

    Args:
        width: Channels of a token.
        heads: Of the attention; None takes one for 64 channels.

    Source: JiuFengSC/ElasticAST@da75493 `src/models/elasticast.py` (a query a clip, which sees its tokens alone).
    Differs: scores are divided by the root of the channels of a head, unless `scaled` is false; a merged token counts
        as often as it has patches.
    """

    def __init__(self, width: int, *, heads: int | None = None, scaled: bool = True) -> None:
        super().__init__()
        self.heads = heads or max(1, width // 64)
        if width % self.heads:
            self.heads = 1
        self.scale = (width // self.heads) ** -0.5 if scaled else 1.0
        self.query = nn.Parameter(torch.randn(width))
        self.query.no_weight_decay = True  # type: ignore[attr-defined]
        self.norm = nn.LayerNorm(width)
        self.ask = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tokens) -> Float[Tensor, "clip width"]:
        """One vector a clip; class tokens and padding take no part."""
        states, clips = tokens.states.float(), tokens.clips
        width = states.shape[-1]
        query = self.ask(self.norm(self.query)).view(self.heads, -1) * self.scale
        scores = torch.einsum("rthc,hc->rth", self.key(states).unflatten(-1, (self.heads, -1)), query)
        index = tokens.clip.clamp_min(0).flatten()
        patch = tokens.is_patch().flatten()
        flat = scores.flatten(0, 1).masked_fill(~patch[:, None], -torch.inf)
        # The softmax of each clip over its own patches, wherever they lie.
        highest = flat.detach().new_full((clips, self.heads), -torch.inf)
        highest = highest.scatter_reduce(0, index[:, None].expand(-1, self.heads), flat.detach(), "amax")
        highest = highest.nan_to_num(neginf=0.0)
        weight = (flat - highest[index]).exp() * tokens.size.flatten()[:, None]
        values = self.value(states).flatten(0, 1).unflatten(-1, (self.heads, -1)) * weight[..., None]
        total = values.new_zeros(clips, width).index_add_(0, index, values.flatten(1))
        norm = weight.new_zeros(clips, self.heads).index_add_(0, index, weight)
        pooled = total.unflatten(-1, (self.heads, -1)) / norm.clamp_min(1e-12)[..., None]
        return self.out(pooled.flatten(1))

    @torch.no_grad()
    def begin_at_blocks(self, encoder: Encoder) -> None:
        """Begin with the sum of the attentions of all blocks over six times their number (published).

        Raises:
            RecipeError: if the encoder's mixers are no attentions of this width.

        Source: JiuFengSC/ElasticAST@da75493 (a counter of six tensors a block).
        """
        mixers: list[Any] = [branch.transform for branch in encoder.branches()["mixer"]]
        if not all(hasattr(mixer, "qkv") for mixer in mixers):
            raise RecipeError(
                f"model.head.begin is blocks, but {type(encoder).__name__} has no attention; expected random"
            )
        for name, own in (("query", self.ask), ("key", self.key), ("value", self.value), ("out", self.out)):
            theirs = [mixer.out if name == "out" else mixer.qkv for mixer in mixers]
            rows = slice(None) if name == "out" else mixers[0].qkv.rows(name)
            for part in ("weight", "bias"):
                every = torch.stack([getattr(linear, part)[rows] for linear in theirs])
                getattr(own, part).copy_(every.sum(dim=0) / (6 * len(mixers)))


def pooled_width(width: int, pooling: Pooling, *, bands: int) -> int:
    """Channels of a clip's vector, from those of a token and the rows of patches."""
    if pooling == "bands":
        return 2 * width * bands
    return 2 * width if pooling == "moments" else width


def pool_clips(tokens: Tokens, pooling: Pooling, attentive: nn.Module | None = None, *, bands: int = 1) -> Tensor:
    """The vector of each clip by any of the poolings."""
    if pooling == "class":
        return pool_class_tokens(tokens)
    if pooling == "first":
        return pool_first(tokens)
    if pooling in ("attentive", "query"):
        assert attentive is not None
        pooled: Tensor = attentive(tokens)
        return pooled
    if pooling == "bands":
        return pool_bands(tokens, bands)
    return pool_moments(tokens) if pooling == "moments" else pool(tokens)
