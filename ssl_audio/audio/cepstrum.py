"""The cosine transform that turns log-mel spectra into cepstra."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def cosines(size: int, count: int, *, device: torch.device | None = None) -> Float[Tensor, "{size} {count}"]:
    """The first `count` vectors of the orthonormal DCT-II of `size` points, as columns."""
    angle = torch.pi / size * (torch.arange(size, device=device) + 0.5)[:, None] * torch.arange(count, device=device)
    basis = torch.cos(angle) * math.sqrt(2.0 / size)
    basis[:, 0] *= math.sqrt(0.5)
    return basis
