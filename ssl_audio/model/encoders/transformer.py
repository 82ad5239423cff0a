"""The Transformer encoder of SSAST."""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from ssl_audio.errors import RecipeError
from ssl_audio.model.attention import attend
from ssl_audio.model.branch import Branch, Context, Mixed
from ssl_audio.model.clip_attention import among_clips
from ssl_audio.model.encoders.encoder import Encoder, Merge
from ssl_audio.model.linear import Linear
from ssl_audio.model.patterns import Pattern
from ssl_audio.tokens import Tokens

Prefix = Callable[[], tuple[Float[Tensor, "prefix width"], Float[Tensor, "prefix width"]]]
"""Keys and values that every token sees besides those of its clip."""


class Attention(nn.Module):
    """Multi-head self-attention among the tokens that the context's mask lets see each other.

    Attributes:
        metric: Which of `metrics` its keys are: those of the attention, or its input.
        prefixes: Further keys and values, put in front of those of the tokens; empty until adapters fill it.
    """

    metrics = ("keys", "input")

    def __init__(self, width: int, *, heads: int, scaled: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.scaled = scaled
        self.metric: Literal["keys", "input"] = "keys"
        self.qkv = Linear(width, 3 * width, parts={"query": width, "key": width, "value": width})
        self.out = Linear(width, width)
        self.prefixes: list[Prefix] = []

    def forward(self, tokens: Tokens, context: Context) -> Mixed:
        rows, count, width = tokens.states.shape
        heads = self.qkv(tokens.states).view(rows, count, 3, self.heads, width // self.heads)
        query, own, value = heads.permute(2, 0, 3, 1, 4)
        key, mask = own, context.mask
        for prefix in self.prefixes:
            front = [self._heads(part, rows).to(own.dtype) for part in prefix()]
            key, value = torch.cat([front[0], key], dim=2), torch.cat([front[1], value], dim=2)
            mask = None if mask is None else F.pad(mask, (front[0].shape[2], 0), value=mask.dtype == torch.bool)
        if not self.scaled:
            query = query * query.shape[-1] ** 0.5
        mixed = attend(query, key, value, mask) if context.attend is None else context.attend(query, key, value)
        keys = own if self.metric == "keys" else tokens.states[:, None]
        return Mixed(self.out(mixed.transpose(1, 2).reshape(rows, count, width)), keys)

    def _heads(self, states: Float[Tensor, "prefix width"], rows: int) -> Float[Tensor, "row head prefix channel"]:
        return states.view(len(states), self.heads, -1).transpose(0, 1).expand(rows, -1, -1, -1)


class FeedForward(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int, *, hidden: int) -> None:
        super().__init__()
        self.expand = Linear(width, hidden)
        self.contract = Linear(hidden, width)

    def forward(self, tokens: Tokens, context: Context) -> Mixed:
        return Mixed(self.contract(F.gelu(self.expand(tokens.states))))


class Block(nn.Module):
    """Pre-norm residual block with the branches `mixer` and `mlp`."""

    def __init__(self, width: int, *, heads: int, expansion: int, scaled: bool = True) -> None:
        super().__init__()
        self.mixer = Branch(nn.LayerNorm(width, eps=1e-6), Attention(width, heads=heads, scaled=scaled))
        self.mlp = Branch(nn.LayerNorm(width, eps=1e-6), FeedForward(width, hidden=expansion * width))
        self.merge: Merge | None = None

    def forward(self, tokens: Tokens, context: Context) -> Tokens:
        states, keys = self.mixer(tokens, context)
        tokens = tokens.with_states(tokens.states + states)
        if self.merge is not None:
            tokens = self.merge(tokens, keys)
            context = context.renew(tokens)
        return tokens.with_states(tokens.states + self.mlp(tokens, context).states)


class Transformer(Encoder):
    """Pre-norm Transformer with bidirectional attention.

    Published sizes: tiny 192/12/3, small 384/12/6, base 768/12/12 (width/depth/heads).

    Args:
        width: Channels of every token.
        depth: Number of blocks.
        heads: Attention heads a block; must divide `width`.
        expansion: Width of the feed-forward network over `width`.
        scaled: Scores are divided by the root of the channels of a head. ElasticAST's checkpoints were trained without.
        pattern: Which patches of a clip see each other; None lets all do.

    Raises:
        RecipeError: if `heads` does not divide `width`.

    Source: YuanGongND/ssast@a1a3eec through timm 0.4.5's DeiT (LayerNorm eps 1e-6, fused qkv with bias, exact
        GELU, no dropout); initialised with truncated normals of standard deviation 0.02 and zero biases.
    """

    free = frozenset({"pattern"})

    def __init__(
        self,
        *,
        width: PositiveInt = 192,
        depth: PositiveInt = 12,
        heads: PositiveInt = 3,
        expansion: PositiveInt = 4,
        scaled: bool = True,
        pattern: Pattern | None = None,
    ) -> None:
        super().__init__()
        if width % heads:
            raise RecipeError(f"Transformer: width={width} is not divisible by heads={heads}")
        self.width = width
        self.pattern = pattern
        self.blocks = nn.ModuleList(Block(width, heads=heads, expansion=expansion, scaled=scaled) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.apply(_initialise)

    def context(self, tokens: Tokens, past: Any = None) -> Context:
        way = None if self.pattern is None else self.pattern.way(tokens)
        if way is not None:
            return Context(self.context, attend=way, past=past)
        sized = self.proportional and tokens.origin is not None
        if self.pattern is None and not tokens.whole and past is None:
            return Context(self.context, attend=among_clips(tokens, tokens.size.log() if sized else None))
        mask = None if tokens.whole else tokens.same_clip()[:, None]
        if self.pattern is not None:
            mask = self.pattern.mask(tokens)
        if sized:
            mask = proportional(tokens, mask)
        return Context(self.context, mask=mask, past=past)

    def normalise(self, tokens: Tokens) -> Tokens:
        return tokens.with_states(self.norm(tokens.states))

    def branches(self) -> dict[str, list[Branch]]:
        return {
            "mixer": [block.mixer for block in self.blocks],  # type: ignore[misc]
            "mlp": [block.mlp for block in self.blocks],  # type: ignore[misc]
        }


def proportional(tokens: Tokens, mask: Bool[Tensor, "row 1 token token"] | None) -> Float[Tensor, "row 1 token token"]:
    """What is added to attention scores so that a merged token counts as often as it has patches.

    Source: arXiv 2210.09461 section 3 (proportional attention).
    """
    bias = tokens.size.log().to(tokens.states.dtype)[:, None, None, :]
    if mask is None:
        return bias.expand(-1, -1, tokens.size.shape[1], -1)
    return torch.where(mask, bias, torch.finfo(bias.dtype).min / 2)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
