"""Streaming moments equal NumPy over everything at once."""

import math

import numpy as np
import pytest
import torch

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.audio.statistics import Moments


def test_moments_of_valid_frames_in_any_split() -> None:
    generator = torch.Generator().manual_seed(0)
    merged, one_by_one, kept = Moments(), Moments(), []
    for batch in range(7):
        # Far from 0 and narrow: the naive E[x²] - E[x]² in float32 has no correct digit here.
        values = 1000.0 + 0.01 * torch.randn(3, 11, 4, generator=generator)
        frames = torch.randint(0, 12, (3,), generator=generator)
        whole = batch == 3
        if whole:
            frames = torch.full((3,), 11)
        for clip, count in enumerate(frames.tolist()):
            kept.append(values[clip, :count].double().numpy().ravel())
            values[clip, count:] = math.nan
        piece = Moments()
        for moments in (piece, one_by_one):
            moments.update(Spectrogram(values=values, frames=frames, whole=whole))
        merged.merge(piece)
    everything = np.concatenate(kept)
    for moments in (merged, one_by_one):
        assert moments.count == everything.size
        assert moments.mean == pytest.approx(everything.mean(), rel=1e-12)
        assert moments.std == pytest.approx(everything.std(), rel=1e-9)


def test_nothing_has_no_deviation() -> None:
    moments = Moments()
    moments.merge(Moments())
    moments.update(Spectrogram(values=torch.zeros(1, 5, 2), frames=torch.zeros(1, dtype=torch.long), whole=False))
    assert moments.count == 0
    assert math.isnan(moments.std)
