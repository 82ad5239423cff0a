"""Mixtures of labelled clips: spectrograms, labels, what is known of them, and scores by other models, together."""

import dataclasses
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.batch import Batch
from ssl_audio.randomness import uniform

_LEAST = 1e-6


@dataclasses.dataclass(frozen=True, slots=True)
class Mixture:
    """Which row each row is mixed with, and how much of itself it keeps.

    Args:
        partner: Number of the other row; its own where it is left alone.
        share: From 0.5 to 1.
    """

    partner: Int[Tensor, " row"]
    share: Float[Tensor, " row"]

    def of(self, values: Float[Tensor, "row ..."]) -> Float[Tensor, "row ..."]:
        """Rows mixed linearly."""
        share = self.share.view(-1, *[1] * (values.ndim - 1)).to(values.dtype)
        return share * values + (1.0 - share) * values[self.partner]


def within_groups(groups: Int[Tensor, " row"], seeds: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
    """A partner of the same group for each row: the next one of the group in an order that seeds decide.

    Args:
        groups: Number of the group of each row.
        seeds: One a row.
    """
    count = len(groups)
    draws = uniform(seeds, 1, "mixture/partner")[:, 0].double()
    order = (groups + draws * 0.999).argsort(stable=True)
    sorted_groups = groups[order]
    following = torch.arange(1, count + 1, device=groups.device)
    first = torch.searchsorted(sorted_groups.contiguous(), sorted_groups.contiguous())
    last = torch.cat([sorted_groups[1:] != sorted_groups[:-1], sorted_groups.new_ones(1, dtype=torch.bool)])
    following = torch.where(last, first, following)
    return torch.empty_like(order).scatter(0, order, order[following])


def mixed_labels(batch: Batch, mixture: Mixture) -> Batch:
    """A batch with the labels of mixtures.

    Something is known of a label of a mixture where it is of the clip itself, or where the label is active in the other
    one. Scores by other models are mixed as probabilities; where one of the two has none, the mixture has none.

    Args:
        batch: Rows whose partners have labels of the same kind: both strong, both weak or both none.
        mixture: How they are mixed.

    Source: CPJKU/cpjku_dcase24@9b5cb78 (valid classes of a mixture).
    """
    partner = mixture.partner
    changed: dict[str, Any] = {}
    if batch.targets is not None:
        changed["targets"] = mixture.of(batch.targets)
    if batch.frames is not None:
        changed["frames"] = mixture.of(batch.frames)
    if batch.valid is not None and batch.targets is not None:
        active = (batch.targets[partner] > 0) & (mixture.share < 1.0)[:, None]
        changed["valid"] = batch.valid | active
    if batch.pseudo is not None:
        changed["pseudo"] = mixture.of(batch.pseudo.sigmoid()).clamp(_LEAST, 1.0 - _LEAST).logit()
        changed["pseudo"] = torch.where((mixture.share < 1.0)[:, None, None], changed["pseudo"], batch.pseudo)
    return dataclasses.replace(batch, **changed)


def mixed_spectrogram(spectrogram: Spectrogram, mixture: Mixture) -> Spectrogram:
    """Spectrograms mixed value by value; of two clips of unequal length the mixture has the longer one's."""
    frames = spectrogram.frames
    longer = torch.maximum(frames, frames[mixture.partner].where(mixture.share < 1.0, 0))
    beside = None if spectrogram.beside is None else mixed_spectrogram(spectrogram.beside, mixture)
    return dataclasses.replace(spectrogram, values=mixture.of(spectrogram.values), frames=longer, beside=beside)


def known_pseudo(batch: Batch) -> Bool[Tensor, " row"] | None:
    """Rows that have scores by other models."""
    return None if batch.pseudo is None else batch.pseudo.isfinite().any(dim=2).any(dim=1)
