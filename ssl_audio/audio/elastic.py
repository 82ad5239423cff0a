"""Clips of one batch with frames at different distances."""

from jaxtyping import Float, Int
from torch import Tensor

from ssl_audio.audio.frontend import Frontend, Spectrogram
from ssl_audio.randomness import uniform

STEP = 0.2
"""From one ratio to the next."""


def draw_ratios(seeds: Int[Tensor, " clip"], largest: float) -> Float[Tensor, " clip"]:
    """One of 1, 1.2, 1.4, ... up to the largest for each clip, all equally often.

    Source: JiuFengSC/ElasticAST@da75493 `src/dataloader.py`; arXiv 2407.08691 section 3.
    """
    count = int((largest - 1) / STEP + 1e-6) + 1
    return 1 + STEP * (uniform(seeds, 1, "frame shift")[:, 0] * count).long()


def elastic_spectrogram(
    frontend: Frontend,
    waveforms: Float[Tensor, "clip sample"],
    samples: Int[Tensor, " clip"] | None,
    ratios: Float[Tensor, " clip"],
) -> Spectrogram:
    """Spectrograms of a batch in which each clip has a hop of its own, with padding behind the shorter ones.

    Args:
        frontend: Whose hop the ratios are of.
        waveforms: As `Frontend.forward` takes them.
        samples: Valid samples of each clip; None means all.
        ratios: Hop of each clip over that of the frontend; hops are whole milliseconds, as published.
    """
    milliseconds = (1000 * frontend.hop_seconds * ratios + 1e-4).long()
    different = milliseconds.unique().tolist()
    rows = [(milliseconds == each).nonzero()[:, 0] for each in different]
    parts = [
        frontend.at_hop(each / 1000)(waveforms[own], None if samples is None else samples[own])
        for each, own in zip(different, rows, strict=True)
    ]
    longest = max(part.values.shape[1] for part in parts)
    values = waveforms.new_full((len(waveforms), longest, frontend.bins), parts[0].fill)
    frames = milliseconds.new_zeros(len(waveforms))
    for own, part in zip(rows, parts, strict=True):
        values[own, : part.values.shape[1]] = part.values
        frames[own] = part.frames
    whole = bool((frames == longest).all())
    return Spectrogram(values, frames, whole, parts[0].fill, hops=milliseconds / 1000)
