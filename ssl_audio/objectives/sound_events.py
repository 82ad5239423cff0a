"""Sound events from strong, weak and no labels: teachers that are averages, interpolation, and scores of others."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor

from ssl_audio.audio.event_augment import beta
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.objectives.event_augmentation import EventAugmentation
from ssl_audio.objectives.event_detection import HEAD, EventDetection, Rows, both, mean_inside, mean_over, only_valid
from ssl_audio.objectives.event_head import EventHeadOptions, FrameScores
from ssl_audio.objectives.event_mixing import Mixture, known_pseudo, mixed_labels, mixed_spectrogram, within_groups
from ssl_audio.objectives.objective import Losses
from ssl_audio.objectives.teacher import Teacher
from ssl_audio.objectives.wrapping import Wrapping
from ssl_audio.randomness import uniform

_PLAIN = EventAugmentation()


@dataclasses.dataclass(frozen=True)
class Consistency:
    """What agreement with the teacher weighs.

    The weight rises with the steps taken: `min(step / ramp_steps * weight, ceiling * weight)`.

    Args:
        weight: Of the squared differences of probabilities.
        ramp_steps: Steps in which it rises to `weight`.
        ceiling: How many times `weight` it becomes at most.
        clip_share: Weight of whole clips beside frames.
        kind: `teacher`: the student agrees with the teacher on each clip. `interpolation`: on mixtures it agrees with
            the mixture of what the teacher says of their parts, and on clips that are not mixed with the teacher.
    """

    weight: NonNegativeFloat = 0.0
    ramp_steps: NonNegativeInt = 0
    ceiling: PositiveFloat = 1.0
    clip_share: NonNegativeFloat = 1.0
    kind: Literal["teacher", "interpolation"] = "teacher"

    def at(self, step: Tensor) -> Tensor:
        """The weight after so many steps."""
        share = step.float() / self.ramp_steps if self.ramp_steps else torch.full_like(step, self.ceiling).float()
        return self.weight * share.clamp(max=self.ceiling)


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How often and how much clips of a batch are mixed, each with one whose labels are of the same kind.

    Args:
        rate: Probability that a batch is mixed.
        concentration: Of the Beta distribution of the larger share.
    """

    rate: ClosedUnitInterval = 0.0
    concentration: PositiveFloat = 0.2


CONSISTENCY, MIXING = Consistency(), Mixing()


class SoundEvents(Wrapping):
    """Detection of events from strong and weak labels, a teacher and the scores of other models.

    The loss is `scale * (sum of source_weights * supervised losses + consistency + pseudo_weight * loss on the scores
    of other models)`. Without `source_weights` the supervised loss is that of `EventDetection`. With them, each folder
    of shards has its own: of frames where its labels are strong, of clips where they are weak; and the loss on the
    scores of others is weighted, group by group of folders, by the sum of the weights of the group.

    Args:
        head: Options of the head on the backbone.
        teacher: Whom the student is to agree with on all clips, labelled or not; null has none.
        consistency: What that weighs.
        mixing: Mixtures of clips.
        augmentation: What the student's spectrograms are put through; the teacher gets them as they are.
        source_weights: Weight of the supervised loss of each of `data.shards`; null weights clips, not folders.
        source_groups: Group of each of `data.shards` for the scores of others; null has all in one.
        pseudo_weight: Weight of the loss on the scores of others (`data.pseudo_labels`).
        pseudo_absent: What others say of a label that a weakly labelled clip does not have is replaced by 0.
        scale: Factor of the whole loss.
        clip_weight: As in `EventDetection`.
        strong_clip_weight: As in `EventDetection`.
        frame_seconds: Length of the frames that are scored; null follows the data, or else the model.

    Source: CPJKU/cpjku_dcase24@9b5cb78 (ex_stage1.py, ex_stage2.py); arXiv 1703.01780 (mean teacher); arXiv 1903.03825
        (interpolation consistency).
    Differs: time masks take the scores of others out, too; the teacher is in evaluation mode and has the student's
        statistics of batch norm.
    """

    objective: EventDetection
    added_titles: ClassVar = {"teacher": "difference from the teacher", "pseudo": "loss on the scores of others"}

    def __init__(
        self,
        *,
        head: EventHeadOptions = HEAD,
        teacher: Teacher | None = None,
        consistency: Consistency = CONSISTENCY,
        mixing: Mixing = MIXING,
        augmentation: EventAugmentation = _PLAIN,
        source_weights: list[NonNegativeFloat] | None = None,
        source_groups: list[NonNegativeInt] | None = None,
        pseudo_weight: NonNegativeFloat = 0.0,
        pseudo_absent: bool = False,
        scale: PositiveFloat = 1.0,
        clip_weight: NonNegativeFloat = 0.5,
        strong_clip_weight: NonNegativeFloat = 0.5,
        frame_seconds: PositiveFloat | None = None,
    ) -> None:
        super().__init__()
        self.complete(
            EventDetection(
                head=head,
                clip_weight=clip_weight,
                strong_clip_weight=strong_clip_weight,
                frame_seconds=frame_seconds,
            )
        )
        self.teacher = teacher
        self.consistency = consistency
        self.mixing = mixing
        self.augmentation = augmentation
        self.source_weights = None if source_weights is None else [float(weight) for weight in source_weights]
        self.source_groups = None if source_groups is None else [int(group) for group in source_groups]
        self.pseudo_weight = float(pseudo_weight)
        self.pseudo_absent = pseudo_absent
        self.scale = float(scale)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    steps: Tensor

    def attach(self, backbone: Backbone, facts: Facts) -> None:
        super().attach(backbone, facts)
        if self.teacher is not None:
            self.teacher.attach(backbone, self.objective, facts)

    def check(self, backbone: Backbone, facts: Facts) -> None:
        super().check(backbone, facts)
        for name, given in (("source_weights", self.source_weights), ("source_groups", self.source_groups)):
            if given is not None and len(given) != facts.folders:
                raise RecipeError(
                    f"model.objective.{name} has {len(given)} numbers; expected one for each of the {facts.folders} "
                    "data.shards"
                )
        if self.teacher is None and self.consistency.weight:
            raise RecipeError(
                f"model.objective.consistency.weight is {self.consistency.weight}, but there is no teacher; expected "
                "teacher: ssl_audio.objectives.AveragedTeacher"
            )

    def forward(self, backbone: Backbone, batch: Batch, spectrogram: Spectrogram) -> Losses:
        if not self.training:
            return self.objective(backbone, batch, spectrogram)
        detect = self.objective
        detect.begin(batch)
        batch, spectrogram = self._shifted(backbone, batch, detect.head.prepared(spectrogram))
        mixture = self._mixture(batch)
        interpolated = mixture is not None and self.consistency.kind == "interpolation"
        taught = self._taught(batch, spectrogram) if interpolated else None
        if mixture is not None:
            batch, spectrogram = mixed_labels(batch, mixture), mixed_spectrogram(spectrogram, mixture)
            if taught is not None:
                taught = FrameScores(mixture.of(taught.frames), mixture.of(taught.clips))
        if taught is None:
            taught = self._taught(batch, spectrogram)
        rows = Rows.of(batch)
        if self.augmentation.masks:
            bounds = self.augmentation.stretches(batch.seeds) * rows.strong[:, None]
            batch, spectrogram = (
                self.augmentation.masked_labels(batch, bounds),
                self.augmentation.without(spectrogram, bounds),
            )
            if taught is not None:
                taught = FrameScores(self.augmentation.cut_out(taught.frames, bounds, 0.0), taught.clips)
        disturb = functools.partial(self.augmentation.disturb, seeds=batch.seeds, decibel=_decibel(backbone))
        spectrogram = backbone.frontend.through_spectrum(spectrogram, disturb)
        found = detect.scores(backbone, spectrogram, valid=rows.valid)
        losses = self._supervised(found, batch, rows)
        total = losses["loss"]
        if taught is not None:
            agreed = self._agreement(found, taught, rows, interpolated=interpolated)
            losses["teacher"] = agreed
            total = total + self.consistency.at(self.steps) * agreed
        if self.pseudo_weight and batch.pseudo is not None:
            losses["pseudo"] = self._others(found, batch, rows)
            total = total + self.pseudo_weight * losses["pseudo"]
        return {**losses, "loss": self.scale * total}

    def before_training(self, batches: Callable[[], Iterable[Batch]]) -> None:
        super().before_training(batches)
        if self.teacher is not None:
            self.teacher.before_training(batches)

    def after_step(self, backbone: Backbone, step: int) -> None:
        super().after_step(backbone, step)
        self.steps.fill_(step)
        if self.teacher is not None:
            self.teacher.after_step(backbone, self.objective, step)

    def _shifted(self, backbone: Backbone, batch: Batch, spectrogram: Spectrogram) -> tuple[Batch, Spectrogram]:
        """Clips turned round by whole frames of the targets: spectrograms, labels and scores of others."""
        if not self.augmentation.shift_seconds or batch.frames is None or not spectrogram.whole:
            return batch, spectrogram
        hop, own = self.objective.hop, self.objective.head.mel
        frames = self.augmentation.shifts(batch.seeds, hop_seconds=hop, most=batch.frames.shape[1] - 1)
        beside = None if own is None else hop / own.hop_seconds
        turned = self.augmentation.turn(spectrogram, frames, hop / backbone.frontend.hop_seconds, beside)
        return self.augmentation.turned_labels(batch, frames), turned

    def _mixture(self, batch: Batch) -> Mixture | None:
        """How this batch is mixed, if it is: strongly, weakly and not labelled clips each among themselves."""
        if not self.mixing.rate or len(batch) < 2:
            return None
        first = batch.seeds[:1]
        if float(uniform(first, 1, "mixture/rate")) >= self.mixing.rate:
            return None
        drawn = beta(first, self.mixing.concentration, "mixture/share")
        share = torch.maximum(drawn, 1.0 - drawn).expand(len(batch))
        partner = within_groups(_kinds(Rows.of(batch)), batch.seeds)
        alone = partner == torch.arange(len(batch), device=partner.device)
        return Mixture(partner, share.where(~alone, 1.0))

    @torch.no_grad()
    def _taught(self, batch: Batch, spectrogram: Spectrogram) -> FrameScores | None:
        """The teacher's probabilities; None without a teacher."""
        if self.teacher is None:
            return None
        answer = self.teacher.answer(batch, spectrogram)
        if answer.frames is None or answer.clips is None:
            raise RecipeError(
                f"model.objective.teacher: {type(self.teacher).__name__} gives no scores of frames; expected a teacher "
                "that does"
            )
        return FrameScores(answer.frames.float().sigmoid(), answer.clips.float().sigmoid())

    def _supervised(self, found: FrameScores, batch: Batch, rows: Rows) -> Losses:
        detect = self.objective
        strong, weak = detect.strong_losses(found, batch, rows), detect.weak_losses(found, batch, rows)
        parts = {"strong": mean_over(strong, rows.strong), "weak": mean_over(weak, rows.weak)}
        if self.source_weights is None:
            loss = parts["strong"] + detect.clip_weight * parts["weak"]
            if detect.strong_clip_weight:
                loss = loss + detect.strong_clip_weight * mean_over(weak, rows.strong)
            return {"loss": loss, **parts}
        loss = parts["strong"] * 0.0 + weak.sum() * 0.0
        for number, weight in enumerate(self.source_weights):
            here = _of_folder(batch, number)
            loss = loss + weight * (mean_over(strong, rows.strong & here) + mean_over(weak, rows.weak & here))
        return {"loss": loss, **parts}

    def _agreement(
        self, found: FrameScores, taught: FrameScores, rows: Rows, *, interpolated: bool
    ) -> Float[Tensor, ""]:
        """Squared differences of probabilities, of frames and clips."""
        frames, wanted = both(found.frames.sigmoid(), taught.frames)
        difference = mean_inside(only_valid((frames - wanted).square(), rows.valid), found.inside)
        clips = only_valid((found.clips.sigmoid() - taught.clips).square(), rows.valid).mean(dim=1)
        each = difference + self.consistency.clip_share * clips
        if not interpolated:
            return each.mean()
        # As published: strongly labelled clips count twice, an eighth of the sum of the four, and a quarter of that.
        none = ~(rows.strong | rows.weak)
        four = 2.0 * mean_over(each, rows.strong) + mean_over(each, rows.weak) + mean_over(each, none)
        return four / 8.0 / 4.0

    def _others(self, found: FrameScores, batch: Batch, rows: Rows) -> Float[Tensor, ""]:
        """Cross entropy with the scores of other models, over the frames that have some."""
        assert batch.pseudo is not None
        known = known_pseudo(batch)
        assert known is not None
        logits, wanted = both(found.frames, batch.pseudo)
        there = wanted.isfinite()
        wanted = wanted.where(there, 0.0).sigmoid()
        if self.pseudo_absent and batch.targets is not None:
            absent = rows.weak[:, None] & (batch.targets == 0.0)
            wanted = wanted.masked_fill(absent[:, None, :], 0.0)
        losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        each = mean_inside(only_valid(losses.where(there, 0.0), rows.valid), found.inside)
        if self.source_weights is None:
            return mean_over(each, known)
        groups = self.source_groups or [0] * len(self.source_weights)
        total = each.sum() * 0.0
        for group in sorted(set(groups)):
            own = [number for number, of in enumerate(groups) if of == group]
            here = torch.stack([_of_folder(batch, number) for number in own]).any(dim=0)
            total = total + sum(self.source_weights[number] for number in own) * mean_over(each, known & here)
        return total


def _of_folder(batch: Batch, number: int) -> Bool[Tensor, " row"]:
    """Rows of one of `data.shards`."""
    if batch.folder is None:
        return torch.full((len(batch),), number == 0, device=batch.waveforms.device)
    return batch.folder == number


def _kinds(rows: Rows) -> Tensor:
    """0 for strongly labelled rows, 1 for weakly labelled ones, 2 for others."""
    return 2 - 2 * rows.strong.long() - rows.weak.long()


def _decibel(backbone: Backbone) -> float:
    """What a decibel is in the normalised log-mel of a backbone."""
    return 0.2302585 / (2.0 * backbone.frontend.deviation)
