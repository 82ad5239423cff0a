"""Fine-tuned checkpoints as teachers."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.checkpoints.base import tensors_digest
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.checkpoints.sizes import NO_HINTS, Hints
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.errors import CheckpointError, RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.objectives.objective import Answer, Objective
from ssl_audio.objectives.teacher import Teacher, mean_of_scores


class CheckpointTeacher(Teacher):
    """Fine-tuned checkpoints, ours or published, of any architecture: the mean of their scores.

    Of clips that is the mean of their probabilities, of frames that of their logits.

    Each applies its own frontend to the student's waveforms. Their weights are not part of the student's checkpoint: a
    resumed run reads them from their files again, and refuses other weights.

    Args:
        checkpoints: Their files.
        hints: What a published file does not say.
    """

    identity: Tensor

    def __init__(self, *, checkpoints: list[Path], hints: Hints = NO_HINTS) -> None:
        super().__init__()
        if not checkpoints:
            raise RecipeError("CheckpointTeacher: no checkpoints; expected one at least")
        self.checkpoints = checkpoints
        self.hints = hints
        # Not registered, so that they are neither saved, nor sharded, nor trained.
        self._models: list[tuple[Backbone, Objective, list[int]]] = []
        self.register_buffer("identity", torch.zeros(32, dtype=torch.uint8))

    def attach(self, backbone: Backbone, objective: Objective, facts: Facts) -> None:
        self.several = facts.several
        whole = hashlib.sha256()
        self._models = [self._opened(path, backbone, facts, whole) for path in self.checkpoints]
        self.identity.copy_(torch.tensor(list(whole.digest()), dtype=torch.uint8))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *others: Any) -> None:
        saved = state_dict.setdefault(f"{prefix}identity", self.identity)  # earlier versions did not save it
        if not torch.equal(saved.cpu(), self.identity.cpu()):
            raise CheckpointError(
                f"{', '.join(map(str, self.checkpoints))}: not the weights that taught this run before; give them "
                "back, or begin a new run with --resume never"
            )
        super()._load_from_state_dict(state_dict, prefix, *others)

    def _opened(
        self, path: Path, student: Backbone, facts: Facts, whole: "hashlib._Hash"
    ) -> tuple[Backbone, Objective, list[int]]:
        found = open_checkpoint(path, hints=self.hints)
        backbone = found.backbone()
        objective = found.objective(backbone)
        assert found.task is not None
        whole.update(tensors_digest(found.weights).encode())
        if bool(found.task["several"]) != facts.several:
            one, other = (("several labels" if many else "one label") for many in (not facts.several, facts.several))
            raise RecipeError(
                f"{path}: gives a clip {one}, and the student {other}; expected a teacher of the same kind"
            )
        if backbone.frontend.sample_rate != student.frontend.sample_rate:
            raise RecipeError(
                f"{path}: its sample rate is {backbone.frontend.sample_rate} Hz, "
                f"and the student's {student.frontend.sample_rate} Hz; "
                "expected a teacher of the same rate"
            )
        place = {str(label): number for number, label in enumerate(found.task["labels"])}
        missing = [label for label in facts.labels if label not in place]
        if missing:
            raise RecipeError(
                f"{path}: does not know the label {missing[0]!r} ({len(missing)} of {len(facts.labels)} are unknown to "
                "it); expected a teacher of the same labels"
            )
        for module in (backbone, objective):
            module.requires_grad_(False).eval()
        return backbone, objective, [place[label] for label in facts.labels]

    def answer(self, batch: Batch, spectrogram: Spectrogram) -> Answer:
        found = [self._answer(*model, batch) for model in self._models]
        clips = [one.clips for one in found if one.clips is not None]
        frames = [one.frames for one in found if one.frames is not None]
        if len(frames) < len(found):
            return Answer(clips=mean_of_scores(clips, several=self.several))
        count = min(one.shape[1] for one in frames)
        return Answer(
            clips=mean_of_scores(clips, several=self.several),
            frames=torch.stack([one[:, :count].float() for one in frames]).mean(dim=0),
            hop_seconds=found[0].hop_seconds,
        )

    def _answer(self, backbone: Backbone, objective: Objective, places: Sequence[int], batch: Batch) -> Answer:
        here = batch.waveforms.device
        if backbone.embedding.weight.device != here:
            backbone.to(here)
            objective.to(here)
        found = objective.predict(backbone, backbone.spectrogram(batch.waveforms, batch.samples))
        if found is None or found.clips is None:
            raise RecipeError(f"{type(objective).__name__} scores no clips; expected a teacher that does")
        chosen = torch.tensor(places, device=here)
        frames = None if found.frames is None else found.frames[:, :, chosen]
        return Answer(clips=found.clips[:, chosen], frames=frames, hop_seconds=found.hop_seconds)
