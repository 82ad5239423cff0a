"""What is learnt: the interface between an objective and the training around it."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders.encoder import Encoder
from ssl_audio.tokens import Tokens

Losses = dict[str, Float[Tensor, ""]]
"""`loss`, which is minimised, and the values that are logged beside it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a trained objective says of clips: logits, before sigmoid or softmax.

    Args:
        clips: Of whole clips.
        frames: Of frames of `hop_seconds`, where the objective locates labels in time.
        hop_seconds: From one frame to the next.
    """

    clips: Float[Tensor, "clip label"] | None = None
    frames: Float[Tensor, "clip frame label"] | None = None
    hop_seconds: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One spectrogram of a picture.

    Args:
        title: What it shows.
        values: In the units of the frontend.
        missing: Values that are left blank.
    """

    title: str
    values: Float[np.ndarray, "bin frame"]
    missing: Bool[np.ndarray, "bin frame"] | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What an objective can show of what it has learnt.

    Args:
        title: What the picture is of.
        rows: Panels of each clip, with the same titles in every row.
    """

    title: str
    rows: list[list[Panel]]


_NONE: Mapping[str, str] = {}


class Objective(nn.Module, ABC):
    """Losses of a backbone on batches of clips, with the heads, decoders or teachers that they need.

    A subclass is one file; it is named in a recipe by its class path. Training calls, in this order, `attach` and
    `check` once, `forward` in every step, and `after_step` after every step of the optimizer.
    """

    views: int = 1
    """Rows that each row of a batch is repeated to; each has a seed of its own."""
    wraps: ClassVar[bool] = False
    """It is put around another objective, which alone answers after training."""
    score: str | None = None
    """Name of the value, the higher the better, by which validation judges; None takes the loss."""
    shown: Mapping[str, str] = {}
    """Accuracies on the terminal: NAME of `NAME_accuracy` and `NAME_chance` among the losses, and what to call it."""

    titles: Mapping[str, str] = {}
    """What to call its losses in pictures; others are called by their names."""

    @abstractmethod
    def attach(self, backbone: Backbone, facts: Facts) -> None:
        """Make the heads for this backbone; called once, before training.

        Raises:
            RecipeError: if backbone and objective do not go together.
        """

    def check(self, backbone: Backbone, facts: Facts) -> None:
        """Find contradictions between recipe and data before minutes are spent.

        Raises:
            RecipeError: naming the options that contradict each other.
        """

    @abstractmethod
    def forward(self, backbone: Backbone, batch: Batch, spectrogram: Spectrogram) -> Losses:
        """The losses of a batch.

        Args:
            backbone: What is trained.
            batch: Waveforms, seeds, and targets where there are some; one row a view.
            spectrogram: Of the same rows, varied as the recipe says.
        """

    def validate(self, backbone: Backbone, batch: Batch, spectrogram: Spectrogram) -> tuple[Losses, Answer | None]:
        """Losses of a validation batch as `forward` gives them, and what `predict` says of it, in one pass."""
        return self(backbone, batch, spectrogram), self.predict(backbone, spectrogram)

    @property
    def answers(self) -> bool:
        """Whether it says anything of clips after training."""
        return type(self.answering).predict is not Objective.predict

    def predict(self, backbone: Backbone, spectrogram: Spectrogram) -> Answer | None:
        """What it says of clips after training; None where an objective answers nothing (self-supervision)."""
        return None

    def answer_tokens(self, tokens: Tokens, layers: Sequence[Tokens]) -> Answer | None:
        """What it says of clips whose tokens are known, such as a stretch of a stream; None where it must see more.

        Args:
            tokens: As the encoder gives them.
            layers: The same behind each block; see `Encoder.layers`.
        """
        return None

    def sees_more(self) -> str | None:
        """Why tokens are not enough for `answer_tokens`, in one line; None if they are."""
        if type(self).answer_tokens is not Objective.answer_tokens:
            return None
        return f"{type(self).__name__} must see spectrograms, not tokens alone; an exact stream needs another objective"

    def before_training(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """See training clips, as they are, before the first step and before a resumed one.

        Args:
            batches: Gives every training clip once: with its targets in a labelled task, in random order in
                pretraining, where it may be left early.
        """

    def respond(self, backbone: Backbone, batch: Batch, spectrogram: Spectrogram) -> Answer | None:
        """What it says of the rows of a training batch, as a teacher; it may know which labels are asked for."""
        return self.predict(backbone, spectrogram)

    def frame_seconds(self, backbone: Backbone) -> float | None:
        """Length of the frames that it scores, before it is attached; None where it scores none."""
        return None

    def after_step(self, backbone: Backbone, step: int) -> None:
        """Called when the optimizer has taken a step, such as for teachers that follow the weights.

        Args:
            backbone: With its new weights.
            step: Steps taken so far.
        """

    def picture(self, backbone: Backbone, spectrogram: Spectrogram, seeds: Int[Tensor, " clip"]) -> Picture | None:
        """A row of panels for each clip; None where there is nothing to look at."""
        return None

    @property
    def incomplete(self) -> bool:
        """Whether it is to be put around an objective that it has not got yet."""
        return False

    def complete(self, objective: "Objective") -> None:
        """Put it around an objective.

        Raises:
            TypeError: if it is not incomplete.
        """
        raise TypeError(f"{type(self).__name__} is complete")

    @property
    def answering(self) -> "Objective":
        """The part that `predict` needs: without teachers and other parts that only training needs."""
        return self

    def described(self) -> dict[str, Any] | None:
        """Class and options of what answers, for checkpoints; None where the recipe's `model.objective` says it."""
        return None

    @property
    def encoders(self) -> list[Encoder]:
        """Encoders of its own, which are compiled and sharded block by block as the backbone's is."""
        return []
