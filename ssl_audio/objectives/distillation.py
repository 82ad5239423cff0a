"""Distillation: any objective that answers, with a teacher beside the targets."""

from collections.abc import Callable, Iterable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from jsonargparse.typing import ClosedUnitInterval, PositiveFloat
from torch import Tensor

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.objectives.objective import Answer, Losses, Objective
from ssl_audio.objectives.teacher import Teacher
from ssl_audio.objectives.wrapping import Wrapping


class Distillation(Wrapping):
    """An objective and a teacher, whose scores the student is to match beside its targets.

    Unlabelled clips, of which only the teacher says anything, take part too.

    Args:
        objective: What the student is trained for; it must answer. None takes the classification that the recipe of a
            task describes.
        teacher: Whom it is to match.
        weight: Share of the teacher's loss in the sum; the rest is the objective's.
        temperature: Logits are divided by it before they are compared.
        tempered: Logits of `both`, and the loss is multiplied by the square of the temperature, so that gradients keep
            their size; or those of the `teacher` alone, as published for audio.

    Source: arXiv 1503.02531 section 2 (temperature); arXiv 2203.06760 (CNN and AST teach each other:
        weight 0.5, the teacher's logits tempered).
    """

    added_titles: ClassVar = {"loss": "loss", "task": "loss on targets", "distilled": "loss on the teacher"}

    def __init__(
        self,
        *,
        teacher: Teacher,
        objective: Objective | None = None,
        weight: ClosedUnitInterval = 0.5,
        temperature: PositiveFloat = 1.0,
        tempered: Literal["both", "teacher"] = "both",
    ) -> None:
        super().__init__()
        self.teacher = teacher
        self.weight = float(weight)
        self.temperature = float(temperature)
        self.tempered = tempered
        if objective is not None:
            self.complete(objective)

    def attach(self, backbone: Backbone, facts: Facts) -> None:
        super().attach(backbone, facts)
        self.several = facts.several
        self.teacher.attach(backbone, self.objective, facts)

    def check(self, backbone: Backbone, facts: Facts) -> None:
        super().check(backbone, facts)
        if not self.objective.answers:
            raise RecipeError(
                f"model.objective: Distillation of {type(self.objective).__name__}, which gives no scores that a "
                "teacher's could be compared with; expected an objective that answers, such as Classification"
            )

    def forward(self, backbone: Backbone, batch: Batch, spectrogram: Spectrogram) -> Losses:
        return self.validate(backbone, batch, spectrogram)[0]

    def validate(self, backbone: Backbone, batch: Batch, spectrogram: Spectrogram) -> tuple[Losses, Answer | None]:
        losses, answer = self.objective.validate(backbone, batch, spectrogram)
        if answer is None:
            raise RecipeError(f"model.objective: {type(self.objective).__name__} gave no answer; expected scores")
        with torch.no_grad():
            taught = self.teacher.answer(batch, spectrogram)
        distilled = self.difference(answer, taught)
        total = (1 - self.weight) * losses["loss"] + self.weight * distilled
        return {**losses, "loss": total, "task": losses["loss"], "distilled": distilled}, answer

    def difference(self, answer: Answer, taught: Answer) -> Float[Tensor, ""]:
        """The mean divergence of the student's scores from the teacher's, of clips and of frames if both say any."""
        pairs = [(answer.clips, taught.clips), (answer.frames, taught.frames)]
        found = [self._divergence(one, other) for one, other in pairs if one is not None and other is not None]
        if not found:
            raise RecipeError(
                f"model.objective.teacher: {type(self.teacher).__name__} and the objective score nothing in common; "
                "expected scores of clips, or of frames, from both"
            )
        return torch.stack(found).mean()

    def _divergence(self, student: Float[Tensor, "*_ label"], teacher: Float[Tensor, "*_ label"]) -> Float[Tensor, ""]:
        heat = self.temperature
        one, other = student.float() / (heat if self.tempered == "both" else 1.0), teacher.float() / heat
        size = heat**2 if self.tempered == "both" else 1.0
        # Each frame may have several labels, even where a clip has one.
        if self.several or student.ndim > 2:
            return size * F.binary_cross_entropy_with_logits(one, other.sigmoid())
        wanted = other.log_softmax(dim=-1)
        return size * F.kl_div(one.log_softmax(dim=-1), wanted, log_target=True, reduction="batchmean")

    def before_training(self, batches: Callable[[], Iterable[Batch]]) -> None:
        super().before_training(batches)
        self.teacher.before_training(batches)

    def after_step(self, backbone: Backbone, step: int) -> None:
        super().after_step(backbone, step)
        self.teacher.after_step(backbone, self.objective, step)
