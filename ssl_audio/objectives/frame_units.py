"""Units of sound: which typical stretches of cepstra each frame is like, as k-means finds them in training clips."""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_audio.audio.cepstrum import cosines
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.errors import RecipeError

CEPSTRA, CONTEXT, ORDERS = 24, 9, 3
"""Cepstra of a frame, frames of a stretch, and orders kept of the cosine transform of a stretch in time."""
MOST_STRETCHES = 60_000
"""So many stretches decide the units."""
_FLOOR, _QUIET = 0.02, 0.02


class FrameUnits(nn.Module):
    """Soft assignments of frames to the centres of a k-means.

    Of a clip's log-mel spectrogram, cepstra without their mean over the clip (which is mostly speaker and channel); of
    the cepstra, stretches of 90 ms, as the low orders of their cosine transform in time; of these, whitened, how much
    closer each centre is than the mean of all centres (0 where it is farther).

    Args:
        units: How many centres.
        bins: Of the spectrogram.
        centred: Whether cepstra lose their mean over the clip.

    Source: Coates, Ng and Lee (2011), "An analysis of single-layer networks in unsupervised feature learning", section
        3.2 (k-means of whitened stretches, "triangle" activation).
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
        """Find the centres, from as many stretches of valid frames as are needed.

        Raises:
            RecipeError: if there is none.
        """
        from sklearn.cluster import MiniBatchKMeans  # scikit-learn takes a second to import

        parts: list[Tensor] = []
        for spectrogram in spectrograms:
            stretches = self.stretches(spectrogram, every=2)
            place = torch.arange(stretches.shape[1], device=stretches.device) * 2
            parts.append(stretches[place < spectrogram.frames[:, None]].cpu())
            if sum(map(len, parts)) >= MOST_STRETCHES:
                break
        rows = torch.cat(parts)[:MOST_STRETCHES] if parts else torch.zeros(0, len(self.mean))
        if len(rows) < 2:
            raise RecipeError("units are found in the training clips, and these have no two frames; expected clips")
        mean = rows.mean(dim=0)
        # float64: small clips give covariances that are all but singular.
        values, vectors = torch.linalg.eigh(torch.cov((rows - mean).T.double()))
        whitening = vectors @ torch.diag((values.clamp_min(0) + values.mean() * _FLOOR + 1e-12).rsqrt())
        white = ((rows - mean).double() @ whitening).float()
        count = min(len(self.centres), len(white))
        means = MiniBatchKMeans(count, batch_size=4096, max_iter=30, n_init=1, random_state=seed).fit(white.numpy())
        # Where there are fewer stretches than units, units come several times.
        chosen = means.cluster_centers_[np.arange(len(self.centres)) % count]
        for buffer, value in ((self.mean, mean), (self.whitening, whitening), (self.centres, torch.from_numpy(chosen))):
            buffer.copy_(value)
        near = self._near(white.to(self.centres.device))
        self.average.copy_(near.mean(dim=0))
        self.deviation.copy_(near.std(dim=0, correction=0) + _QUIET)
        self.ready.fill_(1.0)

    def stretches(self, spectrogram: Spectrogram, *, every: int) -> Float[Tensor, "clip stretch value"]:
        """A stretch round every `every`-th frame; what lies beyond a clip's ends is its first or last frame."""
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

    def forward(self, spectrogram: Spectrogram, *, every: int) -> Float[Tensor, "clip stretch unit"]:
        """Standardised soft assignments round every `every`-th frame.

        Raises:
            RecipeError: if `find` was not called.
        """
        if not self.found:  # asked once: it waits for the device
            self.found = bool(self.ready)
        if not self.found:
            raise RecipeError(
                "the units were not found; expected before_training to be called, as `ssl-audio pretrain` does"
            )
        with torch.autocast(spectrogram.values.device.type, enabled=False):
            stretches = self.stretches(spectrogram, every=every)
            return (self._near((stretches - self.mean) @ self.whitening) - self.average) / self.deviation

    def _near(self, white: Float[Tensor, "*_ value"]) -> Float[Tensor, "*_ unit"]:
        distance = torch.cdist(white, self.centres.expand(*white.shape[:-2], -1, -1))
        return (distance.mean(dim=-1, keepdim=True) - distance).clamp_min(0)


def of_columns(
    values: Float[Tensor, "clip stretch unit"], *, columns: int, size: int, step: int
) -> Float[Tensor, "clip column unit"]:
    """Means over the stretches of each patch column.

    Args:
        values: Of stretches.
        columns: How many columns a row has room for; those beyond the last stretch have the value of the last one.
        size: Stretches a column.
        step: Stretches from one column to the next.
    """
    place = torch.arange(columns, device=values.device)[:, None] * step + torch.arange(size, device=values.device)
    return values[:, place.clamp_max(values.shape[1] - 1).flatten()].unflatten(1, (columns, size)).mean(dim=2)


def every_of(patch: int, stride: int) -> int:
    """Frames from one stretch to the next, for columns of so many frames so far apart: 2 where that fits, else 1."""
    return 2 if patch % 2 == 0 and stride % 2 == 0 else 1
