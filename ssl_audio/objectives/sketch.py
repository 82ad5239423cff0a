"""A clip in a few hundred numbers: what its pooled state is asked for."""

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_audio.audio.cepstrum import cosines
from ssl_audio.audio.frontend import Spectrogram


def sketch(spectrogram: Spectrogram, *, cepstra: int, modulations: int) -> Float[Tensor, "clip value"]:
    """The slow part of each clip's cepstrum: its low-order two-dimensional cosine transform, and deviations over time.

    Every clip is measured over its own valid frames, so that padding does not enter and tempo does not matter.

    Args:
        spectrogram: Batch of clips.
        cepstra: Orders kept along frequency, beginning with the level.
        modulations: Orders kept along time, besides the mean.

    Returns:
        ``cepstra * (modulations + 2)`` values a clip: for each modulation from the mean on, for each cepstrum, its
        coefficient; then the standard deviation of each cepstrum over time.
    """
    values = spectrogram.values.float()
    frames = values.shape[1]
    length = spectrogram.frames.clamp_min(1)[:, None, None]
    place = torch.arange(frames, device=values.device)
    order = torch.arange(modulations + 1, device=values.device)[:, None]
    waves = torch.cos(torch.pi * order * (place + 0.5) / length) * (place < length) / length
    # In bf16 the difference of squares below would be noise.
    with torch.autocast(values.device.type, enabled=False):
        coefficients = values @ cosines(values.shape[2], cepstra, device=values.device)
        slow = torch.bmm(waves, coefficients)
        square = torch.bmm(waves[:, :1], coefficients.square())[:, 0]
    deviation = (square - slow[:, 0].square()).clamp_min(0).sqrt()
    return torch.cat([slow.flatten(1), deviation], dim=1)


def standardise(values: Float[Tensor, "clip value"]) -> Float[Tensor, "clip value"]:
    """Each value with mean 0 and variance 1 over the batch, so that small ones count as much as large ones."""
    variance, mean = torch.var_mean(values, dim=0, correction=0, keepdim=True)
    return (values - mean) * torch.rsqrt(variance + 1e-5)
