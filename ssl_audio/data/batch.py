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
        filler: The batch only keeps this rank in step with the others: its clips are counted elsewhere.
    """

    waveforms: Float[Tensor, "row sample"]
    samples: Int[Tensor, " row"] | None
    source: Int[Tensor, " row"]
    seeds: Int[Tensor, " row"]
    keys: tuple[str, ...]
    filler: bool = False

    def __len__(self) -> int:
        return len(self.waveforms)

    @property
    def clips(self) -> int:
        """Clips in it, of which each may have several rows."""
        return len(self.keys)

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
    crops: Sequence[Sequence[Float[np.ndarray, " _"]]],
    seeds: Sequence[Sequence[int]],
    keys: Sequence[str],
    *,
    filler: bool = False,
) -> Batch:
    """Rows of zero-padded crops, those of a clip next to each other.

    Args:
        crops: Crops of each clip.
        seeds: One for each crop.
        keys: Names of the clips.
        filler: They only keep this rank in step with the others.
    """
    rows = [crop for clip in crops for crop in clip]
    waveforms = np.empty((len(rows), max(map(len, rows))), dtype=np.float32)
    for target, row in zip(waveforms, rows, strict=True):
        target[: len(row)] = row
    return gather(torch.from_numpy(waveforms), crops, seeds, keys, filler=filler)


def gather(
    waveforms: Float[Tensor, "row sample"],
    crops: Sequence[Sequence[Float[np.ndarray, " _"]]],
    seeds: Sequence[Sequence[int]],
    keys: Sequence[str],
    *,
    filler: bool = False,
) -> Batch:
    """A batch whose crops stand already at the beginnings of its rows; what is behind them is made zero.

    Args:
        waveforms: The rows, at least as long as the longest crop.
        crops: Crops of each clip, of which only the lengths are looked at.
        seeds: One for each crop.
        keys: Names of the clips.
        filler: They only keep this rank in step with the others.
    """
    lengths = [len(crop) for clip in crops for crop in clip]
    longest = max(lengths)
    if longest < waveforms.shape[1]:
        waveforms = waveforms[:, :longest].contiguous()
    for row, length in zip(waveforms.numpy(), lengths, strict=True):
        row[length:] = 0.0
    return Batch(
        waveforms=waveforms,
        samples=None if min(lengths) == longest else torch.tensor(lengths),
        source=torch.tensor([number for number, clip in enumerate(crops) for _ in clip]),
        seeds=torch.tensor([seed for clip in seeds for seed in clip]),
        keys=tuple(keys),
        filler=filler,
    )
