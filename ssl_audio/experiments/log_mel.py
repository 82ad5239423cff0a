"""Which mean and deviation a pretraining normalises with: the recipe's, or those of its own shards."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.frontend import Frontend
from ssl_audio.audio.statistics import Moments
from ssl_audio.data.index import ShardIndex
from ssl_audio.data.loading import whole_clips
from ssl_audio.data.manifest import FILE_NAME, Manifest

Statistics = Literal["recipe", "shards"]
_MOST_CLIPS = 200
_MOST_SECONDS = 30.0
_MEASURED = ("bins", "frame_samples", "hop_samples", "low_hz", "high_hz", "demean", "level_db", "level_seconds")
"""What of a filter bank decides its values."""


def of_manifests(shards: Sequence[Path | str]) -> tuple[float, float] | None:
    """Mean and deviation that the manifests of shards give together, weighted by their seconds; None without them."""
    if not all((Path(folder) / FILE_NAME).is_file() for folder in shards):
        return None
    found = [Manifest.load(Path(folder)) for folder in shards]
    if not found or any(not one.log_mel.get("std") or one.seconds <= 0 for one in found):
        return None
    seconds = [one.seconds for one in found]
    mean = np.average([one.log_mel["mean"] for one in found], weights=seconds)
    square = np.average([one.log_mel["std"] ** 2 + one.log_mel["mean"] ** 2 for one in found], weights=seconds)
    return float(mean), math.sqrt(max(float(square - mean**2), 0.0))


def own_statistics(
    frontend: Frontend, shards: Sequence[Path | str], index: ShardIndex
) -> tuple[tuple[float, float], str]:
    """Mean and deviation of shards as a frontend sees them, and where they are from, in words.

    Those of the manifests where the frontend is what they were measured with, else measured on up to 200 clips at
    equal distances.

    Args:
        frontend: Makes the spectrograms.
        shards: Folders.
        index: Their training clips.

    Raises:
        AudioError, ShardError: if a clip cannot be read.
    """
    if _as_manifests(frontend, shards) and (found := of_manifests(shards)) is not None:
        return found, "their manifests"
    few = index.select(np.unique(np.linspace(0, len(index) - 1, min(len(index), _MOST_CLIPS)).astype(np.int64)))
    moments = Moments()
    with torch.inference_mode():
        for batch in whole_clips(few, sample_rate=frontend.sample_rate, batch_clips=1, max_seconds=_MOST_SECONDS):
            moments.update(frontend.unnormalised(batch.waveforms))
    return (moments.mean, moments.std), f"measured on {len(few)} clips"


def _as_manifests(frontend: Frontend, shards: Sequence[Path | str]) -> bool:
    """Whether manifests were measured with this frontend: Kaldi's, 128 bins, up to half the rate of the shards."""
    rates = {Manifest.load(Path(folder)).sample_rate for folder in shards if (Path(folder) / FILE_NAME).is_file()}
    if not isinstance(frontend, Fbank) or rates != {frontend.sample_rate}:
        return False
    usual = Fbank(sample_rate=frontend.sample_rate)
    return all(getattr(frontend, name) == getattr(usual, name) for name in _MEASURED)
