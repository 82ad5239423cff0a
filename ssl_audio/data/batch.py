"""What a training step gets: waveforms with their lengths, and targets where clips have labels."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl_audio.audio.frontend import Spectrogram


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
        targets: What is to be found in each row: 0 to 1 for each label; None without labels.
        known: Rows whose targets are known, in a batch of labelled and unlabelled clips; None if all are.
        frames: The same of each frame of a row, from its events; None where nobody asks.
        clip_numbers: Which clips of the index these are, one a row; None where nobody asks.
        strong: Rows whose frames are known, where `frames` are asked for; None if all are.
        valid: Of each row the labels that something is known of; None if all are.
        folder: Which of the folders of shards each row is from; None where nobody asks.
        pseudo: Logits of the frames by other models; NaN for rows that have none. None where nobody asks.
        clean: Spectrograms of the rows before views and disturbances change them; None before training makes them.
    """

    waveforms: Float[Tensor, "row sample"]
    samples: Int[Tensor, " row"] | None
    source: Int[Tensor, " row"]
    seeds: Int[Tensor, " row"]
    keys: tuple[str, ...]
    filler: bool = False
    targets: Float[Tensor, "row label"] | None = None
    known: Bool[Tensor, " row"] | None = None
    frames: Float[Tensor, "row frame label"] | None = None
    clip_numbers: Int[Tensor, " row"] | None = None
    strong: Bool[Tensor, " row"] | None = None
    valid: Bool[Tensor, "row label"] | None = None
    folder: Int[Tensor, " row"] | None = None
    pseudo: Float[Tensor, "row frame label"] | None = None
    clean: Spectrogram | None = None

    def __len__(self) -> int:
        return len(self.waveforms)

    @property
    def clips(self) -> int:
        """Clips in it, of which each may have several rows."""
        return len(self.keys)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The batch on another device. (Lightning moves whatever has this method.)"""
        return self._with(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory."""
        return self._with(lambda tensor: tensor.pin_memory())

    def repeated(self, times: int) -> "Batch":
        """Each row so many times, next to each other, each with a seed of its own."""
        if times == 1:
            return self
        found = self._with(lambda tensor: tensor.repeat_interleave(times, dim=0))
        number = torch.arange(len(found), device=found.seeds.device) % times
        return dataclasses.replace(found, seeds=found.seeds + number)

    def _with(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        changed: dict[str, Any] = {name: change(value) for name, value in found.items() if isinstance(value, Tensor)}
        return dataclasses.replace(self, **changed)


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
