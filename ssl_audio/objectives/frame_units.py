"""Units of sound: k-means clusters of short segments of cepstra, found in training clips."""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_audio.audio.cepstrum import cosines
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.errors import RecipeError

CEPSTRA, CONTEXT, ORDERS = 24, 9, 3
"""Cepstra a frame, frames a segment, and coefficients kept of the cosine transform of a segment in time."""
MOST_SEGMENTS = 60_000
"""Segments that k-means is fitted on, at most."""
_FLOOR, _QUIET = 0.02, 0.02


class FrameUnits(nn.Module):
    """Soft assignments of frames to the centres of a k-means.

    A log-mel spectrogram is turned into cepstra, less their mean over the clip (mostly speaker and channel). Segments
    of 90 ms of the cepstra are described by the low coefficients of their cosine transform in time, and whitened. The
    assignment to a centre is the mean distance to all centres minus the distance to this one, at least 0.

    Args:
        units: Number of centres.
        bins: Mel bins of the spectrogram.
        centred: Whether the mean of the cepstra over the clip is subtracted.

    Source: Coates, Ng and Lee (2011), "An analysis of single-layer networks in unsupervised feature learning", section
        3.2 (k-means of whitened segments, "triangle" activation).
    """

    def __init__(self, units: int, *, bins: int, centred: bool = True) -> None:
        super().__init__()
        self.cepstra = min(CEPSTRA, bins)
        size = self.cepstra * ORDERS
        self.centred = centred
        self.found = False
        for name, value in (
            ("mean", torch.zeros(size)),
            ("whitening", torch.eye(size)),
            ("centres", torch.zeros(units, size)),
            ("average", torch.zeros(units)),
            ("deviation", torch.ones(units)),
            ("ready", torch.zeros(())),
        ):
            self.register_buffer(name, value)

    mean: Tensor
    whitening: Tensor
    centres: Tensor
    average: Tensor
    deviation: Tensor
    ready: Tensor

    @torch.no_grad()
    def find(self, spectrograms: Iterable[Spectrogram], *, seed: int = 0) -> None:
        """Find the centres from segments of valid frames, `MOST_SEGMENTS` of them at most.

        Raises:
            RecipeError: if there is none.
        """
        from sklearn.cluster import MiniBatchKMeans  # scikit-learn takes a second to import

        parts: list[Tensor] = []
        for spectrogram in spectrograms:
            segments = self.segments(spectrogram, every=2)
            place = torch.arange(segments.shape[1], device=segments.device) * 2
            parts.append(segments[place < spectrogram.frames[:, None]].cpu())
            if sum(map(len, parts)) >= MOST_SEGMENTS:
                break
        rows = torch.cat(parts)[:MOST_SEGMENTS] if parts else torch.zeros(0, len(self.mean))
        if len(rows) < 2:
            raise RecipeError("units are found in the training clips, and these have no two frames; expected clips")
        mean = rows.mean(dim=0)
        # float64: small clips give covariances that are all but singular.
        values, vectors = torch.linalg.eigh(torch.cov((rows - mean).T.double()))
        whitening = vectors @ torch.diag((values.clamp_min(0) + values.mean() * _FLOOR + 1e-12).rsqrt())
        white = ((rows - mean).double() @ whitening).float()
        count = min(len(self.centres), len(white))
        means = MiniBatchKMeans(count, batch_size=4096, max_iter=30, n_init=1, random_state=seed).fit(white.numpy())
        # With fewer segments than units, centres are repeated.
        chosen = means.cluster_centers_[np.arange(len(self.centres)) % count]
        for buffer, value in ((self.mean, mean), (self.whitening, whitening), (self.centres, torch.from_numpy(chosen))):
            buffer.copy_(value)
        near = self._near(white.to(self.centres.device))
        self.average.copy_(near.mean(dim=0))
        self.deviation.copy_(near.std(dim=0, correction=0) + _QUIET)
        self.ready.fill_(1.0)

    def segments(self, spectrogram: Spectrogram, *, every: int) -> Float[Tensor, "clip segment value"]:
        """The segment around every `every`-th frame; beyond the ends of a clip its first or last frame is repeated."""
        values, length = spectrogram.values.float(), spectrogram.frames.clamp_min(1)[:, None]
        frames = values.shape[1]
        cepstra = values @ cosines(values.shape[2], self.cepstra, device=values.device)
        if self.centred:
            inside = (torch.arange(frames, device=values.device) < length)[:, :, None]
            cepstra = cepstra - (cepstra * inside).sum(dim=1, keepdim=True) / length[:, :, None]
        around = torch.arange(CONTEXT, device=values.device) - CONTEXT // 2
        place = torch.arange(0, frames, every, device=values.device)[:, None] + around
        place = torch.minimum(place.flatten()[None].clamp_min(0), length - 1)
        windows = cepstra.gather(1, place[:, :, None].expand(-1, -1, self.cepstra)).unflatten(1, (-1, CONTEXT))
        return torch.einsum("nstc,tk->nsck", windows, cosines(CONTEXT, ORDERS, device=values.device)).flatten(2)

    def forward(self, spectrogram: Spectrogram, *, every: int) -> Float[Tensor, "clip segment unit"]:
        """Standardised soft assignments of the segments around every `every`-th frame.

        Raises:
            RecipeError: if `find` was not called.
        """
        if not self.found:  # read once: reading it waits for the device
            self.found = bool(self.ready)
        if not self.found:
            raise RecipeError(
                "the units were not found; expected before_training to be called, as `ssl-audio pretrain` does"
            )
        with torch.autocast(spectrogram.values.device.type, enabled=False):
            segments = self.segments(spectrogram, every=every)
            return (self._near((segments - self.mean) @ self.whitening) - self.average) / self.deviation

    def _near(self, white: Float[Tensor, "*_ value"]) -> Float[Tensor, "*_ unit"]:
        distance = torch.cdist(white, self.centres.expand(*white.shape[:-2], -1, -1))
        return (distance.mean(dim=-1, keepdim=True) - distance).clamp_min(0)


def of_columns(
    values: Float[Tensor, "clip segment unit"], *, columns: int, size: int, step: int
) -> Float[Tensor, "clip column unit"]:
    """Mean over the segments of each patch column.

    Args:
        values: Of segments.
        columns: Columns of a row; those beyond the last segment have the value of the last one.
        size: Segments per column.
        step: Segments from one column to the next.
    """
    place = torch.arange(columns, device=values.device)[:, None] * step + torch.arange(size, device=values.device)
    return values[:, place.clamp_max(values.shape[1] - 1).flatten()].unflatten(1, (columns, size)).mean(dim=2)


def every_of(patch: int, stride: int) -> int:
    """Frames from one segment to the next: 2 if patch and stride (in frames) are even, else 1."""
    return 2 if patch % 2 == 0 and stride % 2 == 0 else 1
