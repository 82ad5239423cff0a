"""From the tokens of a clip to one vector."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from ssl_audio.errors import RecipeError
from ssl_audio.tokens import Tokens, pool, pool_bands, pool_moments

Pooling = Literal["mean", "moments", "bands", "class", "attentive"]


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


def pooled_width(width: int, pooling: Pooling, *, bands: int) -> int:
    """Channels of a clip's vector, from those of a token and the rows of patches."""
    if pooling == "bands":
        return 2 * width * bands
    return 2 * width if pooling == "moments" else width


def pool_clips(tokens: Tokens, pooling: Pooling, attentive: nn.Module | None = None, *, bands: int = 1) -> Tensor:
    """The vector of each clip by any of the poolings."""
    if pooling == "class":
        return pool_class_tokens(tokens)
    if pooling == "attentive":
        assert attentive is not None
        pooled: Tensor = attentive(tokens)
        return pooled
    if pooling == "bands":
        return pool_bands(tokens, bands)
    return pool_moments(tokens) if pooling == "moments" else pool(tokens)
