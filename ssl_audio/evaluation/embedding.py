"""Clips to vectors: mean and standard deviation of token states, or of spectrograms."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ssl_audio.audio.cepstrum import cosines
from ssl_audio.audio.frontend import Frontend
from ssl_audio.data.batch import Batch
from ssl_audio.data.index import ShardIndex
from ssl_audio.data.loading import whole_clips
from ssl_audio.model.backbone import Backbone
from ssl_audio.tokens import bands_apart, pool

Embedder = Callable[[Batch], Float[Tensor, "clip feature"]]

MAX_SECONDS = 30.0
"""Longer clips are cut to this where they are embedded whole."""
Progress = Callable[[int, int], None]


def token_statistics(backbone: Backbone, *, window_seconds: float) -> Embedder:
    """Mean and standard deviation over time of the token states of whole clips, band by band.

    Clips are cut in windows of the length the backbone was trained on, the last one shorter; the moments run over all
    windows.

    Args:
        backbone: In evaluation mode.
        window_seconds: Length of a window.
    """
    window = round(window_seconds * backbone.frontend.sample_rate)

    def embed(batch: Batch) -> Tensor:
        waveforms, samples, owner = _windows(batch, window)
        bands = backbone.bands
        tokens = bands_apart(backbone(waveforms, samples), bands)
        parts, clips = len(waveforms) * bands, len(batch.keys) * bands
        owner = (owner[:, None] * bands + torch.arange(bands)).flatten()
        weight = torch.zeros(parts).index_add_(
            0, tokens.clip.clamp_min(0).flatten(), (tokens.size * tokens.is_patch()).flatten()
        )
        first = pool(tokens)
        second = pool(tokens.with_states(tokens.states.float().square()))
        total = torch.zeros(clips).index_add_(0, owner, weight)
        moments = [
            torch.zeros(clips, first.shape[1]).index_add_(0, owner, m * weight[:, None]) / total[:, None]
            for m in (first, second)
        ]
        return _mean_and_deviation(*moments).reshape(len(batch.keys), -1)

    return embed


def frame_statistics(frontend: Frontend, *, cepstra: int | None = None) -> Embedder:
    """Mean and standard deviation over time of the spectrogram itself or of its cepstra: what any encoder should beat.

    Args:
        frontend: Waveform to spectrogram.
        cepstra: How many orders of the orthonormal DCT-II over the bins; None takes the bins as they are.
    """
    basis = None if cepstra is None else cosines(frontend.bins, cepstra)

    def embed(batch: Batch) -> Tensor:
        spectrogram = frontend(batch.waveforms, batch.samples)
        values = spectrogram.values
        if basis is not None:
            with torch.autocast(values.device.type, enabled=False):
                values = values @ basis
        inside = torch.arange(values.shape[1]) < spectrogram.frames[:, None]
        weight = inside[:, :, None] / spectrogram.frames[:, None, None]
        mean = (values * weight).sum(dim=1)
        # In two passes: one bin of 128 is constant, and rounding must not make it look as if it varied.
        variance = ((values - mean[:, None]).square() * weight).sum(dim=1)
        return torch.cat([mean, variance.sqrt()], dim=1)

    return embed


def embed_clips(
    index: ShardIndex,
    embedders: dict[str, Embedder],
    *,
    sample_rate: int,
    batch_clips: int = 16,
    max_seconds: float = MAX_SECONDS,
    bf16: bool = False,
    progress: Progress = lambda done, total: None,
) -> dict[str, Float[np.ndarray, "clip feature"]]:
    """Vectors of every clip, in the order of the index, by each embedder; clips are decoded once.

    Args:
        index: The clips.
        embedders: By name.
        sample_rate: Samples per second that they expect.
        batch_clips: Clips a batch; sorted by length, so that little is padding.
        max_seconds: Longer clips are cut to this.
        bf16: Compute in bfloat16 where that is safe.
        progress: Called with the clips done and their number.
    """
    order = np.argsort(index.seconds, kind="stable")
    rows: dict[str, list[np.ndarray]] = {name: [] for name in embedders}
    done = 0
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        clips = index.select(order)
        for batch in whole_clips(clips, sample_rate=sample_rate, batch_clips=batch_clips, max_seconds=max_seconds):
            for name, embed in embedders.items():
                rows[name].append(embed(batch).float().numpy())
            done += len(batch.keys)
            progress(done, len(index))
    back = np.argsort(order, kind="stable")
    return {name: np.concatenate(parts)[back] for name, parts in rows.items()}


def _windows(batch: Batch, window: int) -> tuple[Tensor, Tensor | None, Tensor]:
    """Waveforms cut in windows: rows, their valid samples, and the clip each belongs to."""
    length = batch.waveforms.shape[1]
    owner = torch.arange(len(batch.waveforms))
    if length <= window:
        return batch.waveforms, batch.samples, owner
    valid = batch.samples if batch.samples is not None else torch.full((len(owner),), length)
    rows, samples, owners = [], [], []
    for start in range(0, length, window):
        left = (valid - start).clamp(0, window)
        # A stub too short to say anything is left out, unless it is all there is of the clip.
        kept = (left >= window // 4) if start else (left > 0)
        piece = batch.waveforms[kept, start : start + window]
        rows.append(torch.nn.functional.pad(piece, (0, window - piece.shape[1])))
        samples.append(left[kept])
        owners.append(owner[kept])
    lengths = torch.cat(samples)
    return torch.cat(rows), None if bool((lengths == window).all()) else lengths, torch.cat(owners)


def _mean_and_deviation(first: Tensor, second: Tensor) -> Tensor:
    deviation = (second - first.square()).clamp_min(0).sqrt()
    return torch.cat([first, deviation], dim=1)
