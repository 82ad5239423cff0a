"""Objectives around another one, which alone answers after training."""

from abc import ABC
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders.encoder import Encoder
from ssl_audio.objectives.objective import Answer, Losses, Objective


class Wrapping(Objective, ABC):
    """Adds losses to those of another objective. A subclass has `forward`; what it does not override is that of the
    other one.

    Attributes:
        objective: The other one; missing until it is given, by the constructor or by `complete`.
    """

    wraps = True
    objective: Objective
    added_titles: ClassVar[Mapping[str, str]] = {}
    """What to call the losses that it adds, in pictures."""

    @property
    def incomplete(self) -> bool:
        return not hasattr(self, "objective")

    def complete(self, objective: Objective) -> None:
        self.objective = objective
        self.views, self.score, self.shown = objective.views, objective.score, objective.shown
        self.titles = {**objective.titles, **self.added_titles}

    def attach(self, backbone: Backbone, facts: Facts) -> None:
        if self.incomplete:
            raise RecipeError(f"model.objective: {type(self).__name__} of nothing; expected init_args.objective")
        self.objective.attach(backbone, facts)

    def check(self, backbone: Backbone, facts: Facts) -> None:
        self.objective.check(backbone, facts)

    def validate(self, backbone: Backbone, batch: Batch, spectrogram: Spectrogram) -> tuple[Losses, Answer | None]:
        return self.objective.validate(backbone, batch, spectrogram)

    def predict(self, backbone: Backbone, spectrogram: Spectrogram) -> Answer | None:
        return self.objective.predict(backbone, spectrogram)

    def before_training(self, batches: Callable[[], Iterable[Batch]]) -> None:
        self.objective.before_training(batches)

    def frame_seconds(self, backbone: Backbone) -> float | None:
        return self.objective.frame_seconds(backbone)

    def after_step(self, backbone: Backbone, step: int) -> None:
        self.objective.after_step(backbone, step)

    @property
    def answering(self) -> Objective:
        return self.objective.answering

    def described(self) -> dict[str, Any] | None:
        return self.objective.described()

    @property
    def encoders(self) -> list[Encoder]:
        return self.objective.encoders
