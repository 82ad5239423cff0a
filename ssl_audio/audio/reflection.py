"""Waveforms continued at both ends by their reflection, each clip from its own end."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def reflected(
    waveforms: Float[Tensor, "clip sample"], samples: Int[Tensor, " clip"], count: int
) -> Float[Tensor, "clip continued"]:
    """The samples of each clip, and `count` more before and behind them; what is shorter is reflected again.

    A clip is continued from its own end, not from that of the batch, so that it is the same alone and padded. Nothing
    waits for the device.

    Args:
        waveforms: Padded to one length.
        samples: How many of them belong to each clip.
        count: Samples at each end.

    Returns:
        As many as the waveforms have, and two times `count`; those behind a clip's own are reflections too.
    """
    width = waveforms.shape[1]
    last = (samples.to(waveforms.device) - 1).clamp_min(0)[:, None]
    place = torch.arange(-count, width + count, device=waveforms.device).remainder((2 * last).clamp_min(1))
    return waveforms.gather(1, torch.where(place > last, 2 * last - place, place))
