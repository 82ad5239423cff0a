"""The Transformer encoder of SSAST."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from ssl_audio.errors import RecipeError
from ssl_audio.model.attention import attend
from ssl_audio.model.branch import Branch
from ssl_audio.model.encoders.encoder import Encoder
from ssl_audio.tokens import Tokens

Mask = Bool[Tensor, "row 1 token token"] | None


class Attention(nn.Module):
    """Multi-head self-attention among the tokens that the mask lets see each other."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tokens, mask: Mask) -> Float[Tensor, "row token width"]:
        rows, count, width = tokens.states.shape
        heads = self.qkv(tokens.states).view(rows, count, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = attend(query, key, value, mask)
        return self.out(mixed.transpose(1, 2).reshape(rows, count, width))


class FeedForward(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int, *, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, tokens: Tokens, mask: Mask) -> Float[Tensor, "row token width"]:
        return self.contract(F.gelu(self.expand(tokens.states)))


class Block(nn.Module):
    """Pre-norm residual block with the branches `mixer` and `mlp`."""

    def __init__(self, width: int, *, heads: int, expansion: int) -> None:
        super().__init__()
        self.mixer: Branch[Mask] = Branch(nn.LayerNorm(width, eps=1e-6), Attention(width, heads=heads))
        self.mlp: Branch[Mask] = Branch(nn.LayerNorm(width, eps=1e-6), FeedForward(width, hidden=expansion * width))

    def forward(self, tokens: Tokens, mask: Mask) -> Tokens:
        tokens = tokens.with_states(tokens.states + self.mixer(tokens, mask))
        return tokens.with_states(tokens.states + self.mlp(tokens, mask))


class Transformer(Encoder):
    """Pre-norm Transformer with bidirectional attention.

    Published sizes: tiny 192/12/3, small 384/12/6, base 768/12/12 (width/depth/heads).

    Args:
        width: Channels of every token.
        depth: Number of blocks.
        heads: Attention heads a block; must divide `width`.
        expansion: Width of the feed-forward network over `width`.

    Raises:
        RecipeError: if `heads` does not divide `width`.

    Source: YuanGongND/ssast@a1a3eec through timm 0.4.5's DeiT (LayerNorm eps 1e-6, fused qkv with bias, exact
        GELU, no dropout); initialised with truncated normals of standard deviation 0.02 and zero biases.
    """

    def __init__(
        self,
        *,
        width: PositiveInt = 192,
        depth: PositiveInt = 12,
        heads: PositiveInt = 3,
        expansion: PositiveInt = 4,
    ) -> None:
        super().__init__()
        if width % heads:
            raise RecipeError(f"Transformer: width={width} is not divisible by heads={heads}")
        self.width = width
        self.blocks = nn.ModuleList(Block(width, heads=heads, expansion=expansion) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.apply(_initialise)

    def forward(self, tokens: Tokens) -> Tokens:
        mask = None if tokens.whole else tokens.same_clip()[:, None]
        for block in self.blocks:
            tokens = block(tokens, mask)
        return tokens.with_states(self.norm(tokens.states))

    def branches(self) -> dict[str, list[Branch]]:
        return {
            "mixer": [block.mixer for block in self.blocks],  # type: ignore[misc]
            "mlp": [block.mlp for block in self.blocks],  # type: ignore[misc]
        }


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
