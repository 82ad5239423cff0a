"""Sound events: which labels are active in each frame, from clips whose labels are strong, weak or soft."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from jsonargparse.typing import NonNegativeFloat, PositiveFloat
from torch import Tensor

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.objectives.event_head import EventHead, EventHeadOptions, FrameScores
from ssl_audio.objectives.objective import Answer, Losses, Objective
from ssl_audio.tokens import Tokens

HEAD = EventHeadOptions()


class Rows(NamedTuple):
    """Which rows of a batch have labels of which kind.

    Args:
        strong: Labels of frames.
        weak: Labels of the clip alone.
        valid: Labels that something is known of; None if all are, in every row.
    """

    strong: Bool[Tensor, " row"]
    weak: Bool[Tensor, " row"]
    valid: Bool[Tensor, "row label"] | None

    @classmethod
    def of(cls, batch: Batch) -> "Rows":
        """Of a batch; without targets of frames no row is strong."""
        every = torch.ones(len(batch), dtype=torch.bool, device=batch.waveforms.device)
        known = every if batch.known is None else batch.known
        strong = ~every if batch.frames is None else known if batch.strong is None else known & batch.strong
        return cls(strong=strong, weak=known & ~strong, valid=batch.valid)


class EventDetection(Objective):
    """Labels of frames and of clips.

    The loss is the mean binary cross entropy over frames of strongly labelled clips, and a share of that over clips.
    Labels that nothing is known of have the score 0 and no gradient.

    Args:
        head: Options of the head on the backbone.
        clip_weight: Weight of the loss over weakly labelled clips.
        strong_clip_weight: Weight of the loss over strongly labelled clips taken as a whole, beside that over frames.
        frame_seconds: Length of the frames that are scored; null follows the data, or else the model.

    Source: CPJKU/cpjku_dcase24@9b5cb78.
    """

    titles: Mapping[str, str] = {"loss": "loss", "strong": "loss of frames", "weak": "loss of clips"}

    def __init__(
        self,
        *,
        head: EventHeadOptions = HEAD,
        clip_weight: NonNegativeFloat = 0.5,
        strong_clip_weight: NonNegativeFloat = 0.5,
        frame_seconds: PositiveFloat | None = None,
    ) -> None:
        super().__init__()
        self.options = head
        self.clip_weight = float(clip_weight)
        self.strong_clip_weight = float(strong_clip_weight)
        self.wanted_seconds = None if frame_seconds is None else float(frame_seconds)

    def attach(self, backbone: Backbone, facts: Facts) -> None:
        if not facts.labels:
            raise RecipeError("EventDetection needs labels, and these data have none; expected labelled shards")
        self.head = EventHead(self.options, backbone, labels=len(facts.labels))
        self.hop = self.wanted_seconds or facts.frame_seconds or self.head.hop_seconds(backbone)

    def frame_seconds(self, backbone: Backbone) -> float:
        return self.wanted_seconds or EventHead(self.options, backbone, labels=1).hop_seconds(backbone)

    def forward(self, backbone: Backbone, batch: Batch, spectrogram: Spectrogram) -> Losses:
        return self.validate(backbone, batch, spectrogram)[0]

    def validate(self, backbone: Backbone, batch: Batch, spectrogram: Spectrogram) -> tuple[Losses, Answer]:
        rows = Rows.of(batch)
        self.begin(batch)
        found = self.scores(backbone, spectrogram, valid=rows.valid)
        strong, weak = self.strong_losses(found, batch, rows), self.weak_losses(found, batch, rows)
        parts = {"strong": mean_over(strong, rows.strong), "weak": mean_over(weak, rows.weak)}
        loss = parts["strong"] + self.clip_weight * parts["weak"]
        if self.strong_clip_weight:
            loss = loss + self.strong_clip_weight * mean_over(weak, rows.strong)
        return {"loss": loss, **parts}, self.answer(found)

    def predict(self, backbone: Backbone, spectrogram: Spectrogram) -> Answer:
        return self.answer(self.scores(backbone, spectrogram))

    def answer_tokens(self, tokens: Tokens, layers: Sequence[Tokens]) -> Answer:
        return self.answer(self.head.of_tokens(tokens, layers, hop_seconds=self.hop))

    def sees_more(self) -> str | None:
        reason = self.head.sees_more(hop_seconds=self.hop)
        return None if reason is None else f"{type(self).__name__}: {reason}"

    def respond(self, backbone: Backbone, batch: Batch, spectrogram: Spectrogram) -> Answer:
        return self.answer(self.scores(backbone, spectrogram, valid=batch.valid))

    def answer(self, found: FrameScores) -> Answer:
        """What a head said, as an answer."""
        return Answer(clips=found.clips, frames=found.frames, hop_seconds=self.hop)

    def begin(self, batch: Batch) -> None:
        """Before the scores of a training batch: dropout draws by the seeds of its clips."""
        if self.training:
            self.head.draws.begin(int(batch.seeds[0]) ^ len(batch), batch.waveforms.device)

    def scores(
        self,
        backbone: Backbone,
        spectrogram: Spectrogram,
        *,
        valid: Bool[Tensor, "row label"] | None = None,
    ) -> FrameScores:
        """Logits of frames of the length that is wanted, and of clips; see `EventHead`."""
        return self.head(backbone, spectrogram, valid=valid, hop_seconds=self.hop)

    def strong_losses(self, found: FrameScores, batch: Batch, rows: Rows) -> Float[Tensor, " row"]:
        """The mean loss over the frames and labels of each row, padding left out; labels that nothing is known of count
        as 0.

        Differs: published clips are padded to ten seconds of silence, whose frames count as frames without events.
        """
        if batch.frames is None:
            return found.frames.sum(dim=(1, 2)) * 0.0
        logits, wanted = both(found.frames, batch.frames)
        losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        return mean_inside(only_valid(losses, rows.valid), found.inside)

    def weak_losses(self, found: FrameScores, batch: Batch, rows: Rows) -> Float[Tensor, " row"]:
        """The mean loss over labels of each row taken as a whole."""
        assert batch.targets is not None
        losses = F.binary_cross_entropy_with_logits(found.clips, batch.targets, reduction="none")
        return only_valid(losses, rows.valid).mean(dim=1)

    def described(self) -> dict[str, Any]:
        options = {
            "head": dataclasses.asdict(self.options),
            "clip_weight": self.clip_weight,
            "strong_clip_weight": self.strong_clip_weight,
            "frame_seconds": self.hop,
        }
        return {"class_path": f"{type(self).__module__}.{type(self).__qualname__}", "init_args": options}


def both(
    logits: Float[Tensor, "row frame label"], wanted: Float[Tensor, "row step label"]
) -> tuple[Float[Tensor, "row shared label"], Float[Tensor, "row shared label"]]:
    """The frames that a model and targets have in common: a clip's end may fill a frame for one of them only."""
    count = min(logits.shape[1], wanted.shape[1])
    return logits[:, :count], wanted[:, :count]


def only_valid(losses: Tensor, valid: Bool[Tensor, "row label"] | None) -> Tensor:
    """0 for labels that nothing is known of."""
    if valid is None:
        return losses
    return losses.where(valid[:, None, :] if losses.ndim == 3 else valid, 0.0)


def mean_inside(
    losses: Float[Tensor, "row frame label"], inside: Bool[Tensor, "row step"] | None
) -> Float[Tensor, " row"]:
    """The mean of each row over its labels and the frames before its end.

    Args:
        losses: 0 or more.
        inside: Which frames these are, at least as many as losses have; None if all are.
    """
    if inside is None:
        return losses.mean(dim=(1, 2))
    within = inside[:, : losses.shape[1]]
    return (losses.mean(dim=2) * within).sum(dim=1) / within.sum(dim=1).clamp_min(1)


def mean_over(losses: Float[Tensor, " row"], chosen: Bool[Tensor, " row"]) -> Float[Tensor, ""]:
    """The mean of some rows; 0 without any, and even then a part of the gradient."""
    return (losses * chosen).sum() / chosen.sum().clamp_min(1)
