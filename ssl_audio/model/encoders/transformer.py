"""The Transformer encoder of SSAST."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from ssl_audio.errors import RecipeError
from ssl_audio.model.attention import attend
from ssl_audio.model.branch import Branch, Context, Mixed
from ssl_audio.model.clip_attention import among_clips
from ssl_audio.model.encoders.encoder import Encoder, Merge
from ssl_audio.model.linear import Linear
from ssl_audio.model.patterns import Pattern
from ssl_audio.tokens import Tokens

NormKind = Literal["layer", "unbiased"]
Activation = Literal["gelu", "relu"]
Begin = Literal["normal", "xavier"]
Prefix = Callable[[], tuple[Float[Tensor, "prefix width"], Float[Tensor, "prefix width"]]]
"""Keys and values that every token sees besides those of its clip."""


@dataclasses.dataclass(slots=True)
class KeysPast:
    """Keys and values that a stream carries through one block; the attention adds its own.

    Args:
        columns: Patch columns of which they are kept.
        keys: Of the tokens before.
        values: Of the tokens before.
        time: Patch column of each.
    """

    columns: int
    keys: Float[Tensor, "row head before channel"] | None = None
    values: Float[Tensor, "row head before channel"] | None = None
    time: Int[Tensor, " before"] | None = None

    def joined(
        self, keys: Float[Tensor, "row head token channel"], values: Float[Tensor, "row head token channel"]
    ) -> tuple[Float[Tensor, "row head seen channel"], Float[Tensor, "row head seen channel"]]:
        """Those of the tokens before, and these behind them."""
        if self.keys is None or self.values is None:
            return keys, values
        return torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2)

    def keep(self, keys: Tensor, values: Tensor, time: Int[Tensor, " token"]) -> None:
        """Take these for the past from now on, as far as it reaches."""
        time = time if self.time is None else torch.cat([self.time, time])
        kept = time > time.max() - self.columns
        self.keys, self.values, self.time = keys[:, :, kept], values[:, :, kept], time[kept]


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
        past: KeysPast | None = context.past
        if past is not None:
            key, value = past.joined(key, value)
            past.keep(key, value, tokens.time[0])
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


class UnbiasedNorm(nn.LayerNorm):
    """Layer norm by the unbiased deviation, to which `eps` is added: the annotated Transformer's."""

    def forward(self, input: Tensor) -> Tensor:
        std, mean = torch.std_mean(input, dim=-1, keepdim=True)
        return self.weight * (input - mean) / (std + self.eps) + self.bias


_NORMS: dict[NormKind, type[nn.LayerNorm]] = {"layer": nn.LayerNorm, "unbiased": UnbiasedNorm}


class FeedForward(nn.Module):
    """Two linear layers with an exact GELU, or a ReLU, between them."""

    def __init__(self, width: int, *, hidden: int, activation: Activation = "gelu", dropout: float = 0.0) -> None:
        super().__init__()
        self.expand = Linear(width, hidden)
        self.contract = Linear(hidden, width)
        self.activation = F.gelu if activation == "gelu" else F.relu
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tokens, context: Context) -> Mixed:
        return Mixed(self.contract(self.dropout(self.activation(self.expand(tokens.states)))))


class Block(nn.Module):
    """Pre-norm residual block with the branches `mixer` and `mlp`."""

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        expansion: int,
        scaled: bool = True,
        norm: NormKind = "layer",
        activation: Activation = "gelu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        kind = _NORMS[norm]
        feed = FeedForward(width, hidden=expansion * width, activation=activation, dropout=dropout)
        self.mixer = Branch(kind(width, eps=1e-6), Attention(width, heads=heads, scaled=scaled))
        self.mlp = Branch(kind(width, eps=1e-6), feed)
        self.dropout = nn.Dropout(dropout)
        self.merge: Merge | None = None

    def forward(self, tokens: Tokens, context: Context) -> Tokens:
        states, keys = self.mixer(tokens, context)
        tokens = tokens.with_states(tokens.states + self.dropout(states))
        if self.merge is not None:
            tokens = self.merge(tokens, keys)
            context = context.renew(tokens)
        return tokens.with_states(tokens.states + self.dropout(self.mlp(tokens, context).states))


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
        chunk: A patch sees those of its chunk of so many patch columns and of `chunk_past` chunks before it, through
            which more reaches it from block to block: a stream is computed chunk by chunk. None lets it see all.
        chunk_past: See `chunk`.
        norm: `layer` norms, or the `unbiased` ones of the annotated Transformer: by the deviation of n - 1, plus 1e-6.
        activation: Of the feed-forward network.
        dropout: Share of the values that training drops from what a branch adds and within the feed-forward network.
        begin: Weights before training: truncated `normal`, or `xavier` uniform for each projection by itself.

    Raises:
        RecipeError: if `heads` does not divide `width`.

    The encoder of MFCC-gram Transformers is width 512, depth 3, heads 8, norm unbiased, activation relu, dropout 0.1,
    begin xavier: pre-norm too, with a norm behind the last block
    (marcelomatheusgauy/Audio_mfcc_gram_transformers@9fffb55 `transformer_encoder.py`, after the annotated Transformer).
    Differs: dropout leaves attention weights and the tokens that enter alone.

    Source: YuanGongND/ssast@a1a3eec through timm 0.4.5's DeiT (LayerNorm eps 1e-6, fused qkv with bias, exact
        GELU, no dropout); initialised with truncated normals of standard deviation 0.02 and zero biases.
    """

    free = frozenset({"pattern", "chunk", "chunk_past", "dropout", "begin"})

    def __init__(
        self,
        *,
        width: PositiveInt = 192,
        depth: PositiveInt = 12,
        heads: PositiveInt = 3,
        expansion: PositiveInt = 4,
        scaled: bool = True,
        pattern: Pattern | None = None,
        chunk: PositiveInt | None = None,
        chunk_past: NonNegativeInt = 1,
        norm: NormKind = "layer",
        activation: Activation = "gelu",
        dropout: ClosedUnitInterval = 0.0,
        begin: Begin = "normal",
    ) -> None:
        super().__init__()
        if width % heads:
            raise RecipeError(f"Transformer: width={width} is not divisible by heads={heads}")
        self.width = width
        self.pattern = pattern
        self.chunk = chunk
        self.chunk_past = chunk_past
        options: dict[str, Any] = {"norm": norm, "activation": activation, "dropout": float(dropout)}
        self.blocks = nn.ModuleList(
            Block(width, heads=heads, expansion=expansion, scaled=scaled, **options) for _ in range(depth)
        )
        self.norm = _NORMS[norm](width, eps=1e-6)
        self.apply(_initialise if begin == "normal" else _xavier)

    def context(self, tokens: Tokens, past: Any = None) -> Context:
        if past is not None:  # of a stream: the chunk sees itself and what is kept of the chunks before
            return Context(self.context, past=past)
        if self.chunk is not None:
            return Context(self.context, mask=self._chunked(tokens, self.chunk))
        way = None if self.pattern is None else self.pattern.way(tokens)
        if way is not None:
            return Context(self.context, attend=way)
        sized = self.proportional and tokens.origin is not None
        if self.pattern is None and not tokens.whole:
            return Context(self.context, attend=among_clips(tokens, tokens.size.log() if sized else None))
        mask = None if tokens.whole else tokens.same_clip()[:, None]
        if self.pattern is not None:
            mask = self.pattern.mask(tokens)
        if sized:
            mask = proportional(tokens, mask)
        return Context(self.context, mask=mask)

    def _chunked(
        self, tokens: Tokens, columns: int
    ) -> Bool[Tensor, "row 1 token token"] | Float[Tensor, "row 1 token token"]:
        """Who sees whom by chunks; class tokens and prompts see all of their clip and are seen by all of it."""
        chunk = tokens.time // columns
        back = chunk[:, :, None] - chunk[:, None, :]
        patch = tokens.is_patch()
        near = ((back >= 0) & (back <= self.chunk_past)) | ~(patch[:, :, None] & patch[:, None, :])
        mask = (near & tokens.same_clip())[:, None]
        if self.pattern is not None:
            mask = mask & self.pattern.mask(tokens)
        return proportional(tokens, mask) if self.proportional and tokens.origin is not None else mask

    @property
    def stream_columns(self) -> int | None:
        return self.chunk if self.pattern is None else None

    def begin(self) -> list[KeysPast]:
        assert self.chunk is not None
        return [KeysPast(self.chunk * self.chunk_past) for _ in self.blocks]

    def proceed(self, tokens: Tokens, past: list[Any]) -> Iterator[Tokens]:
        """One chunk after the other: see `Encoder.proceed`."""
        assert self.chunk is not None
        sizes = (tokens.time[0] // self.chunk).unique_consecutive(return_counts=True)[1]
        places = torch.arange(tokens.clip.shape[1], device=tokens.clip.device).expand_as(tokens.clip)
        chunks = [
            list(super(Transformer, self).proceed(tokens.take(own), past)) for own in places.split(sizes.tolist(), 1)
        ]
        for layers in zip(*chunks, strict=True):
            yield tokens.with_states(torch.cat([layer.states for layer in layers], dim=1))

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


def _xavier(module: nn.Module) -> None:
    if isinstance(module, Linear):
        # The parts of a fused projection are matrices of their own.
        for part in module.weight.split(list(module.parts.values()) or [module.out_features]):
            nn.init.xavier_uniform_(part)
