"""Several fine-tuned checkpoints whose probabilities are averaged."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, SupportsFloat

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_audio.errors import CheckpointError, RecipeError
from ssl_audio.evaluation.frame_scores import frame_scores
from ssl_audio.evaluation.pretrained import Pretrained, Waveforms, pretrained
from ssl_audio.evaluation.windows import Grid, Sound
from ssl_audio.names import printable

_SHOWN = 3


class Ensemble:
    """Checkpoints of one task, of other seeds, strides or encoders; each counts the same.

    A probability is the mean of the members' probabilities (sigmoid or softmax), not of their logits. Members may cut
    recordings into windows of their own. Labels are in the order of the first.

    Args:
        members: One or more, with heads for the same labels.

    Raises:
        CheckpointError: if one has no head, other labels or another sample rate.
        RecipeError: if there are none.

    Source:
        ast@769d758 `egs/audioset/ensemble.py` (the mean of the members' outputs after the sigmoid, also where a clip
        has one label; this takes the softmax there).
    """

    def __init__(self, members: Sequence[Pretrained]) -> None:
        if not members:
            raise RecipeError("an ensemble of no checkpoints; expected one or more")
        self.members = list(members)
        first = members[0]
        self._orders = [_order(first, member) for member in members]

    @property
    def labels(self) -> list[str]:
        """Names of what is told apart."""
        return self.members[0].labels

    @property
    def orders(self) -> list[list[int]]:
        """Of each member where the labels of the first are among its own."""
        return self._orders

    @property
    def frame_hop(self) -> float:
        """Seconds from one scored frame to the next.

        Raises:
            CheckpointError: if a member scores no frames, or frames of another length than the first.
        """
        first = self.members[0]
        for member in self.members:
            if member.frame_hop is None:
                raise CheckpointError(
                    f"{member.checkpoint.path}: gives no scores of frames; expected a checkpoint of "
                    "ssl_audio.objectives.SoundEvents"
                )
            if member.frame_hop != first.frame_hop:
                raise CheckpointError(
                    f"{member.checkpoint.path}: scores frames of {member.frame_hop:g} s, and {first.checkpoint.path} "
                    f"frames of {first.frame_hop:g} s; expected one length (data.frame_seconds)"
                )
        return float(first.frame_hop or 0.0)

    @property
    def several(self) -> bool:
        """Whether a clip may have several labels."""
        return self.members[0].several

    @property
    def grid(self) -> Grid:
        """How the first cuts recordings into windows."""
        return self.members[0].grid

    @property
    def batch_windows(self) -> int:
        """So many windows at a time."""
        return self.members[0].batch_windows

    @property
    def sample_rate(self) -> int:
        """The rate that everything is brought to."""
        return self.members[0].sample_rate

    def name_labels(self, names: Sequence[str]) -> None:
        """Give the labels of all members their names; see `Pretrained.name_labels`."""
        for member in self.members:
            member.name_labels(names)

    def predict(self, waveforms: Waveforms, *, sample_rate: SupportsFloat) -> Float[Tensor, "clip label"]:
        """Mean probabilities of the labels.

        Args:
            waveforms: One waveform, a batch or a list; see `Waveforms`.
            sample_rate: Of the waveforms.
        """
        return torch.stack(list(self.probabilities(self.members[0].sounds(waveforms, sample_rate))))

    def probabilities(self, sounds: Iterable[Sound]) -> Iterator[Float[Tensor, " label"]]:
        """Mean probabilities of the labels of each recording, one after the other."""
        return map(averaged, self.apart(sounds))

    def windows(
        self, sounds: Iterable[Sound], *, overlap_seconds: float
    ) -> Iterator[list[tuple[float, float, Float[Tensor, " label"]]]]:
        """Begin, end and mean probabilities of the windows of each recording, one recording after the other.

        Args:
            sounds: Recordings.
            overlap_seconds: How much of a window lies in the next.

        Raises:
            RecipeError: if members cut windows in different ways, or windows overlap by all of their length.
        """
        grid = self.grid
        if any(member.grid != grid for member in self.members):
            raise RecipeError("--windows: the checkpoints cut recordings into different windows; expected the same")
        overlap = round(overlap_seconds * grid.rate / grid.step)
        if overlap >= grid.columns:
            raise RecipeError(
                f"--overlap_seconds {overlap_seconds:g}: windows last {grid.window / grid.rate:.2f} s; expected less"
            )
        sounds = list(sounds)
        each = [member.windows(sounds, hop=grid.columns - overlap) for member in self.members]
        for rows in zip(*each, strict=True):
            found = []
            for parts in zip(*rows, strict=True):
                start, end, _ = parts[0]
                scores = [scores[order] for (_, _, scores), order in zip(parts, self._orders, strict=True)]
                found.append((start, end, averaged(torch.stack(scores))))
            yield found

    def frame_logits(
        self, waveforms: Float[Tensor, "clip sample"], samples: Tensor | None = None
    ) -> Float[Tensor, "clip frame label"]:
        """Mean logits of the frames of waveforms, for pseudo-labels; all members must score frames of one length."""
        rows = [
            member.frame_logits(waveforms, samples).float().cpu()[:, :, order]
            for member, order in zip(self.members, self._orders, strict=True)
        ]
        count = min(row.shape[1] for row in rows)
        return torch.stack([row[:, :count] for row in rows]).mean(dim=0)

    def frame_scores(self, sounds: Iterable[Sound]) -> Iterator[Float[Tensor, "frame label"]]:
        """Mean probabilities of the frames of each recording, one after the other."""
        sounds = list(sounds)
        for rows in zip(*(frame_scores(member, sounds) for member in self.members), strict=True):
            count = min(map(len, rows))
            yield averaged(torch.stack([row[:count][:, order] for row, order in zip(rows, self._orders, strict=True)]))

    def apart(self, sounds: Iterable[Sound]) -> Iterator[Float[Tensor, "member label"]]:
        """The probabilities of each member for each recording."""
        sounds = list(sounds)
        for rows in zip(*(member.probabilities(sounds) for member in self.members), strict=True):
            yield torch.stack([row[order] for row, order in zip(rows, self._orders, strict=True)])


def averaged(scores: Float[Tensor, "member ..."]) -> Float[Tensor, "..."]:
    """The mean over the members, added one after the other as numpy does."""
    total = scores[0]
    for row in scores[1:]:
        total = total + row
    return total / len(scores)


def ensemble(checkpoints: Sequence[str | Path | Pretrained], **options: Any) -> Ensemble:
    """Several fine-tuned checkpoints as one that predicts the mean of their probabilities.

    Args:
        checkpoints: Files, or what `pretrained` gave.
        options: For the files, as `pretrained` takes them.

    Raises:
        CheckpointError: if one is missing or damaged, or they are not all for the same labels.
    """
    return Ensemble([one if isinstance(one, Pretrained) else pretrained(one, **options) for one in checkpoints])


def _order(first: Pretrained, other: Pretrained) -> list[int]:
    """Where the labels of the first are among those of another."""
    path = other.checkpoint.path
    if other.head is None:
        raise CheckpointError(
            f"{path}: has no head, so it labels nothing; expected a checkpoint of `ssl-audio finetune`"
        )
    if set(first.labels) != set(other.labels):
        lacks = [label for label in first.labels if label not in set(other.labels)]
        more = [label for label in other.labels if label not in set(first.labels)]
        told = [f"{what} {_some(names)}" for what, names in (("lacks", lacks), ("has", more)) if names]
        raise CheckpointError(
            f"{path}: has {len(other.labels)} labels, {first.checkpoint.path} has {len(first.labels)}: it "
            f"{' and '.join(told)}; expected checkpoints of one task"
        )
    if first.several != other.several:
        one, two = ("several labels" if model.several else "one label" for model in (other, first))
        raise CheckpointError(
            f"{path}: gives {one} a clip, {first.checkpoint.path} {two}; expected checkpoints of one task"
        )
    if first.sample_rate != other.sample_rate:
        raise CheckpointError(
            f"{path}: takes {other.sample_rate} Hz, {first.checkpoint.path} {first.sample_rate}; expected one rate"
        )
    return [other.labels.index(label) for label in first.labels]


def _some(names: list[str]) -> str:
    return ", ".join(map(printable, names[:_SHOWN])) + ", ..." * (len(names) > _SHOWN)
