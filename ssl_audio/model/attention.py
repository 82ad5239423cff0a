"""One door to attention: the fastest way for the device and shape, the same numbers to rounding."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From queries, keys and values to what the queries get, as `attend` without a mask: (row, head, token, channel). Keys
beyond the number of queries stand in front of them, and every query sees them."""

EXPLICIT_TOKENS = {torch.bfloat16: 528, torch.float32: 256}
"""Longest row whose scores are written out in training on a CPU, by precision.

Measured with torch 2.14 on 2 cores with AMX, forward and backward: in bf16 torch's fused kernel takes 4 times as long
at 64 and 128 tokens (its backward is 12 times its forward), and makes a step a quarter longer at 514; in fp32 it is
the faster one at 514.
"""


def attend(
    query: Float[Tensor, "row head token channel"],
    key: Float[Tensor, "row head seen channel"],
    value: Float[Tensor, "row head seen channel"],
    mask: Bool[Tensor, "row 1 token seen"] | Float[Tensor, "row 1 token seen"] | None = None,
) -> Float[Tensor, "row head token channel"]:
    """Scaled dot-product attention among the pairs of tokens that the mask allows.

    Args:
        query: What looks.
        key: What it is compared with, by inner products over the root of the number of channels.
        value: What is averaged.
        mask: True where a query may see a key, or what is added to the scores; None where all may see all. Every query
            must see some key.
    """
    if mask is not None and mask.is_floating_point():
        mask = mask.to(query.dtype)
    if query.device.type == "cpu" and torch.is_grad_enabled() and query.shape[2] <= EXPLICIT_TOKENS.get(query.dtype, 0):
        return _explicit(query, key, value, mask)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def _explicit(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    rows, heads, count, channels = query.shape
    query, key, value = (part.reshape(rows * heads, -1, channels) for part in (query, key, value))
    scores = torch.bmm(query * channels**-0.5, key.transpose(1, 2))
    if mask is not None:
        added = mask if mask.is_floating_point() else barrier(mask, scores.dtype)
        scores = (scores.view(rows, heads, count, -1) + added).view_as(scores)
    return torch.bmm(scores.softmax(dim=-1), value).view(rows, heads, count, channels)


def barrier(mask: Bool[Tensor, "*pair"], dtype: torch.dtype) -> Float[Tensor, "*pair"]:
    """What is added to scores: 0 where the mask allows a pair, so little elsewhere that the weight is exactly 0."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min / 2)
