"""Rehearsal: clips of earlier tasks, kept in files, are learnt again beside a new task."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor

from ssl_audio import randomness
from ssl_audio.audio.frontend import Frontend, Spectrogram
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.errors import CheckpointError, RecipeError
from ssl_audio.model.backbone import Backbone, fit_frames
from ssl_audio.objectives.classification import Classification
from ssl_audio.objectives.objective import Losses, Objective
from ssl_audio.objectives.wrapping import Wrapping


@dataclasses.dataclass(frozen=True, slots=True)
class _Earlier:
    """A task that was learnt before: its head, how it makes spectrograms, and its kept clips."""

    objective: Classification
    frontend: Frontend
    fixed_frames: int | None
    clips: dict[str, Tensor]


def save_clips(path: Path, batches: list[Batch]) -> int:
    """Write clips for rehearsal, as 16-bit numbers; returns the bytes of the file."""
    width = max(batch.waveforms.shape[1] for batch in batches)
    rows, samples, targets = [], [], []
    for batch in batches:
        assert batch.targets is not None
        rows.append(torch.nn.functional.pad(batch.waveforms, (0, width - batch.waveforms.shape[1])))
        whole = torch.full((len(batch),), batch.waveforms.shape[1])
        samples.append(whole if batch.samples is None else batch.samples)
        targets.append(batch.targets)
    waveforms = (torch.cat(rows).clamp(-1, 1) * 32767).round().to(torch.int16)
    kept = {"waveforms": waveforms, "samples": torch.cat(samples).long(), "targets": torch.cat(targets).float()}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    safetensors.torch.save_file(kept, beside)
    beside.replace(path)
    return path.stat().st_size


class Rehearsal(Wrapping):
    """An objective, and beside it the losses of earlier tasks on clips of theirs that were kept.

    The heads of the earlier tasks stay as they were learnt: what is rehearsed keeps the backbone such that they fit it.

    Args:
        earlier: Fine-tuned checkpoints of the earlier tasks, for their heads.
        clips: Files of kept clips, one for each; see `save_clips`.
        batch_clips: Clips of each earlier task in every step.
        weight: Of the mean loss of the earlier tasks.
        objective: What is learnt; None takes the classification that the recipe of the task describes.

    Raises:
        RecipeError: if there are not as many files of clips as checkpoints.

    Source: arXiv 1902.10486 (tiny episodic memories: a batch of the memory beside each batch of the new task).
    Differs: the earlier heads are not trained on.
    """

    added_titles: ClassVar = {"task": "loss of the task", "rehearsed": "loss of earlier tasks"}

    def __init__(
        self,
        *,
        earlier: list[Path],
        clips: list[Path],
        batch_clips: PositiveInt = 8,
        weight: PositiveFloat = 1.0,
        objective: Objective | None = None,
    ) -> None:
        super().__init__()
        if len(earlier) != len(clips) or not earlier:
            raise RecipeError(
                f"Rehearsal: {len(earlier)} checkpoints and {len(clips)} files of clips; expected one of each for "
                "every earlier task"
            )
        self.paths = list(zip(earlier, clips, strict=True))
        self.batch_clips = int(batch_clips)
        self.weight = float(weight)
        self._earlier: list[_Earlier] = []  # not registered: neither saved nor trained
        if objective is not None:
            self.complete(objective)

    def attach(self, backbone: Backbone, facts: Facts) -> None:
        super().attach(backbone, facts)
        self._earlier = [_opened(checkpoint, clips, backbone) for checkpoint, clips in self.paths]

    def forward(self, backbone: Backbone, batch: Batch, spectrogram: Spectrogram) -> Losses:
        losses = self.objective(backbone, batch, spectrogram)
        rehearsed = torch.stack([self._loss(backbone, one, batch, n) for n, one in enumerate(self._earlier)]).mean()
        total = losses["loss"] + self.weight * rehearsed
        return {**losses, "loss": total, "task": losses["loss"], "rehearsed": rehearsed}

    def _loss(self, backbone: Backbone, one: _Earlier, batch: Batch, number: int) -> Float[Tensor, ""]:
        """Of kept clips of an earlier task, drawn by the seed of the batch."""
        device = batch.waveforms.device
        if one.objective.head.linear.weight.device != device:
            one.objective.to(device)
            one.frontend.to(device)
        kept = len(one.clips["samples"])
        draws = randomness.generator(int(batch.seeds[0]), "rehearsal", number)
        rows = torch.from_numpy(draws.choice(kept, size=min(self.batch_clips, kept), replace=False))
        samples = one.clips["samples"][rows]
        waveforms = one.clips["waveforms"][rows, : int(samples.max())].float().to(device) / 32767
        with torch.no_grad():
            spectrogram = one.frontend(waveforms, samples)
            if one.fixed_frames is not None:
                spectrogram = fit_frames(spectrogram, one.fixed_frames)
        numbers = torch.arange(len(rows), device=device)
        targets = one.clips["targets"][rows].to(device)
        found = Batch(waveforms, samples, numbers, numbers, tuple(map(str, rows.tolist())), targets=targets)
        return one.objective.loss_of(one.objective.logits(backbone, spectrogram).float(), found)


def _opened(path: Path, clips: Path, backbone: Backbone) -> _Earlier:
    found = open_checkpoint(path)
    own = found.backbone()
    objective = found.objective(own)
    if not isinstance(objective, Classification):
        raise RecipeError(f"Rehearsal: {path} answers by {type(objective).__name__}; expected a Classification")
    if own.width != backbone.width or own.frontend.sample_rate != backbone.frontend.sample_rate:
        raise RecipeError(
            f"Rehearsal: {path} is {own.width} wide at {own.frontend.sample_rate} Hz, and this backbone is "
            f"{backbone.width} wide at {backbone.frontend.sample_rate} Hz; expected the same"
        )
    try:
        kept = safetensors.torch.load_file(clips)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{clips}: no clips for rehearsal ({' '.join(str(error).split())[:200]})") from error
    labels = [] if found.task is None else found.task["labels"]
    shapes = [kept[name].shape[dim] if name in kept else None for name, dim in (("targets", 1), ("waveforms", 0))]
    if set(kept) != {"waveforms", "samples", "targets"} or shapes[0] != len(labels):
        raise CheckpointError(f"{clips}: holds no clips of the {len(labels)} labels of {path}")
    objective.requires_grad_(False).eval()
    return _Earlier(objective, own.frontend.eval(), own.fixed_frames, kept)


def rows_per_label(targets: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """Numbers of clips to keep: so many of each label, drawn by the seed, in ascending order."""
    draws = randomness.generator(seed, "memory")
    kept: set[int] = set()
    for label in range(targets.shape[1]):
        clips = np.flatnonzero(targets[:, label])
        kept |= set(draws.permutation(clips)[:count].tolist())
    return np.array(sorted(kept))
