"""The convolution before a scan in torch's operations, for every device and float type."""

import torch.nn.functional as F
from torch import Tensor


def eager_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *, reverse: bool, reset: Tensor | None) -> Tensor:
    """In torch's operations: a shifted product for each tap."""
    taps, length = weight.shape[1], x.shape[1]
    weight = weight.to(x.dtype)
    total = x * weight[:, taps - 1]
    clip = None if reset is None else reset.cumsum(1)
    for back in range(1, min(taps, length)):
        ahead, behind = slice(back, None), slice(None, length - back)
        here, there = (behind, ahead) if reverse else (ahead, behind)
        seen = x[:, there] * weight[:, taps - 1 - back]
        if clip is not None:
            seen = seen * (clip[:, here] == clip[:, there])[..., None]
        shift = (0, 0, 0, back) if reverse else (0, 0, back, 0)
        total = total + F.pad(seen, shift)
    if bias is not None:
        total = total + bias.to(x.dtype)
    return F.silu(total)
