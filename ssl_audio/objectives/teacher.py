"""Teachers: models whose scores a student is trained to match."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from jsonargparse.typing import ClosedUnitInterval
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.tuning import trains
from ssl_audio.objectives.objective import Answer, Objective


class Teacher(nn.Module, ABC):
    """Gives logits of clips, frames or both. It always stays in evaluation mode, and no gradient reaches it.

    Its parameters are part of a training checkpoint if they are registered, as those that change in training must be.
    """

    @abstractmethod
    def attach(self, backbone: Backbone, objective: Objective, facts: Facts) -> None:
        """Get ready for a student; called once, before training.

        Args:
            backbone: Of the student.
            objective: Of the student, attached.
            facts: What is known of the data.

        Raises:
            RecipeError: if it cannot teach this student.
        """

    @abstractmethod
    def answer(self, batch: Batch, spectrogram: Spectrogram) -> Answer:
        """Logits of the rows of a batch.

        Args:
            batch: Waveforms as the student gets them.
            spectrogram: As the student gets it.
        """

    def before_training(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """See every training clip once, with its targets; see `Objective.before_training`."""

    def after_step(self, backbone: Backbone, objective: Objective, step: int) -> None:
        """Follow the student, whose optimizer has taken a step."""

    def train(self, mode: bool = True) -> "Teacher":
        """Evaluation mode, for either value of `mode`."""
        super().train(False)
        return self


class AveragedTeacher(Teacher):
    """The student's own weights, averaged over its steps (mean teacher).

    A backbone of which nothing trains is not copied: the student's is used.

    Args:
        decay: Of the exponential average: share of the average that stays at a step.
        rising: After k steps the share that stays is at most `1 - 1 / k`, so that the first steps count alike.
        buffers: Average buffers as well, such as those of batch norm; else the student's are taken as they are.

    Source: arXiv 1703.01780 (weights averaged over steps); torch.optim.swa_utils; CPJKU/cpjku_dcase24@9b5cb78
        (`rising`, parameters alone).
    """

    average: AveragedModel

    def __init__(self, *, decay: ClosedUnitInterval = 0.999, rising: bool = False, buffers: bool = True) -> None:
        super().__init__()
        self.decay = float(decay)
        self.rising = rising
        self.with_buffers = buffers

    def attach(self, backbone: Backbone, objective: Objective, facts: Facts) -> None:
        parts: dict[str, nn.Module] = {"backbone": backbone} if trains(backbone) else {}
        student = nn.ModuleDict({**parts, "objective": objective})
        average = _rising_average(self.decay) if self.rising else get_ema_multi_avg_fn(self.decay)
        self.average = AveragedModel(student, multi_avg_fn=average, use_buffers=self.with_buffers)
        self.average.requires_grad_(False)
        self.eval()
        # A checkpoint is loaded after this call: the average starts from the weights of the first training step.
        self._student: list[nn.Module] = [student]
        self._backbone = [backbone]

    def answer(self, batch: Batch, spectrogram: Spectrogram) -> Answer:
        if not int(self.average.n_averaged):
            self.average.update_parameters(self._student[0])
        model: Any = self.average.module
        backbone = model["backbone"] if "backbone" in model else self._backbone[0]
        found = model["objective"].respond(backbone, batch, spectrogram)
        assert found is not None
        return found

    def after_step(self, backbone: Backbone, objective: Objective, step: int) -> None:
        self.average.update_parameters(self._student[0])


class Teachers(Teacher):
    """Several teachers of any kind: the mean of the scores that they give clips.

    Args:
        teachers: Each scores clips.

    Raises:
        RecipeError: if there are none.

    Source: arXiv 2203.06760 (an ensemble teaches).
    """

    def __init__(self, *, teachers: list[Teacher]) -> None:
        super().__init__()
        if not teachers:
            raise RecipeError("Teachers: no teachers; expected one at least")
        self.teachers = nn.ModuleList(teachers)

    def attach(self, backbone: Backbone, objective: Objective, facts: Facts) -> None:
        self.several = facts.several
        for teacher in self._each():
            teacher.attach(backbone, objective, facts)

    def before_training(self, batches: Callable[[], Iterable[Batch]]) -> None:
        for teacher in self._each():
            teacher.before_training(batches)

    def answer(self, batch: Batch, spectrogram: Spectrogram) -> Answer:
        found = [teacher.answer(batch, spectrogram).clips for teacher in self._each()]
        known = [scores for scores in found if scores is not None]
        if len(known) < len(found):
            raise RecipeError("Teachers: one scores no clips; expected teachers that do")
        return Answer(clips=mean_of_scores(known, several=self.several))

    def after_step(self, backbone: Backbone, objective: Objective, step: int) -> None:
        for teacher in self._each():
            teacher.after_step(backbone, objective, step)

    def _each(self) -> Iterator[Teacher]:
        for teacher in self.teachers:
            assert isinstance(teacher, Teacher)
            yield teacher


def _rising_average(decay: float) -> Callable[..., None]:
    """An update of averages whose decay rises from 0 to a limit."""

    @torch.no_grad()
    def update(averages: list[torch.Tensor], current: list[torch.Tensor], count: torch.Tensor | int) -> None:
        # AveragedModel copies the weights at its first call, which is counted after this one.
        stays = (1.0 - 1.0 / (torch.as_tensor(count).float() + 1.0)).clamp(max=decay)
        for average, now in zip(averages, current, strict=True):
            if average.is_floating_point():
                average.lerp_(now, (1.0 - stays).to(average))
            else:
                average.copy_(now)

    return update


def mean_of_scores(answers: list[torch.Tensor], *, several: bool) -> torch.Tensor:
    """Logits whose scores are the mean of the scores of several models.

    Args:
        answers: Logits of each.
        several: Labels are scored one by one (sigmoid), else together (softmax).
    """
    if len(answers) == 1:
        return answers[0]
    every = torch.stack([one.double() for one in answers])
    if several:
        return every.sigmoid().mean(dim=0).logit(eps=1e-12).to(answers[0])
    return every.softmax(dim=-1).mean(dim=0).clamp_min(1e-38).log().to(answers[0])
