"""What a training step gets: waveforms with their lengths."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Waveforms of a batch; several rows may be crops of the same clip.

    Args:
        waveforms: Mono, in [-1, 1]; zero beyond a row's end.
        samples: Valid samples of each row; None when every row is full.
        source: Which clip of the batch a row is of.
        seeds: One a row; whatever is random about it later follows from this.
        keys: Names of the clips.
    """

    waveforms: Float[Tensor, "row sample"]
    samples: Int[Tensor, " row"] | None
    source: Int[Tensor, " row"]
    seeds: Int[Tensor, " row"]
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.waveforms)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The batch on another device. (Lightning moves whatever has this method.)"""
        return dataclasses.replace(
            self,
            waveforms=self.waveforms.to(device, non_blocking=non_blocking),
            samples=None if self.samples is None else self.samples.to(device, non_blocking=non_blocking),
            source=self.source.to(device, non_blocking=non_blocking),
            seeds=self.seeds.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory."""
        return dataclasses.replace(
            self,
            waveforms=self.waveforms.pin_memory(),
            samples=None if self.samples is None else self.samples.pin_memory(),
            source=self.source.pin_memory(),
            seeds=self.seeds.pin_memory(),
        )


def collate(
    crops: Sequence[Sequence[Float[np.ndarray, " _"]]], seeds: Sequence[Sequence[int]], keys: Sequence[str]
) -> Batch:
    """Rows of zero-padded crops, those of a clip next to each other.

    Args:
        crops: Crops of each clip.
        seeds: One for each crop.
        keys: Names of the clips.
    """
    rows = [crop for clip in crops for crop in clip]
    lengths = [len(row) for row in rows]
    waveforms = np.zeros((len(rows), max(lengths)), dtype=np.float32)
    for target, row in zip(waveforms, rows, strict=True):
        target[: len(row)] = row
    return Batch(
        waveforms=torch.from_numpy(waveforms),
        samples=None if min(lengths) == max(lengths) else torch.tensor(lengths),
        source=torch.tensor([number for number, clip in enumerate(crops) for _ in clip]),
        seeds=torch.tensor([seed for clip in seeds for seed in clip]),
        keys=tuple(keys),
    )
