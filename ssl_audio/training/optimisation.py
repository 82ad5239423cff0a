"""Groups of parameters for the optimizer, and schedules of the learning rate."""

import math
from abc import ABC, abstractmethod
from typing import Any, Literal

import lightning as L
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt
from lightning.pytorch.callbacks import Timer
from torch import nn

from ssl_audio.model.backbone import Backbone

DecayOn = Literal["weights", "everything"]


def parameter_groups(module: nn.Module, *, decay_on: DecayOn = "weights") -> list[dict[str, Any]]:
    """Parameters for an optimizer in two groups: with and without weight decay.

    Biases, the parameters of norms, and whatever carries a true `no_weight_decay` (positions, class tokens, `A_log`,
    `D`) do not decay, whatever their shape.

    Args:
        module: Whose parameters; those that need no gradient are left out.
        decay_on: `everything` lets all of them decay, as the published code does.
    """
    norms = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
    exempt = {
        id(parameter)
        for owner in module.modules()
        for name, parameter in owner.named_parameters(recurse=False)
        if isinstance(owner, norms) or name == "bias" or getattr(parameter, "no_weight_decay", False)
    }
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if decay_on == "everything":
        return [{"params": trained}]
    return [
        {"params": [parameter for parameter in trained if id(parameter) not in exempt]},
        {"params": [parameter for parameter in trained if id(parameter) in exempt], "weight_decay": 0.0},
    ]


def graded_groups(
    backbone: Backbone,
    head: nn.Module,
    *,
    decay_on: DecayOn = "weights",
    head_rate: float = 1.0,
    backbone_rate: float = 1.0,
    adapter_rate: float = 1.0,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Groups as `parameter_groups` makes them, each with a `scale` of the learning rate.

    Args:
        backbone: Blocks nearer to the input learn slower.
        head: The modules of the objective.
        decay_on: Which parameters decay.
        head_rate: Factor of the optimizer's learning rate for the head; parameters that carry a `rate` have that of it.
        backbone_rate: The same for the final norm; the rates of the blocks below decay from there.
        adapter_rate: The same for the adapters, in whichever block.
        layer_decay: Factor of a block's learning rate for every block above it; 1 treats all blocks equally.

    Source: arXiv 2106.08254 appendix (layer-wise decay); YuanGongND/ssast@a1a3eec (`head_lr`).
    """
    depth = len(backbone.encoder.blocks)
    scale_of = {id(parameter): backbone_rate * layer_decay ** (depth + 1) for parameter in backbone.parameters()}
    scale_of |= {id(parameter): backbone_rate for parameter in backbone.encoder.parameters()}
    for number, block in enumerate(backbone.encoder.blocks):
        scale = backbone_rate * layer_decay ** (depth - number)
        scale_of |= {id(parameter): scale for parameter in block.parameters()}
    scale_of |= {id(parameter): adapter_rate for parameter in backbone.adapters.parameters()}
    scale_of |= {id(parameter): head_rate * getattr(parameter, "rate", 1.0) for parameter in head.parameters()}
    groups: list[dict[str, Any]] = []
    for group in parameter_groups(nn.ModuleList([backbone, head]), decay_on=decay_on):
        by_scale: dict[float, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            by_scale.setdefault(scale_of[id(parameter)], []).append(parameter)
        groups += [{**group, "params": chosen, "scale": scale} for scale, chosen in sorted(by_scale.items())]
    return groups


class Schedule(ABC):
    """The learning rate over its peak, step by step.

    Its state is in attributes and is saved with the checkpoint, so they are plain numbers.
    """

    def prepare(self, total_steps: int, *, epoch_steps: int = 0) -> None:  # noqa: B027
        """Take the length of training and of an epoch; called when training starts or resumes."""

    def spend(self, share: float) -> None:  # noqa: B027
        """Take the elapsed share of a limited time; called only for runs that are limited by time."""

    def observe(self, value: float) -> None:  # noqa: B027
        """Take a validation score, the higher the better."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The factor at a step, counted from 0."""


def spend_time(trainer: L.Trainer, schedule: Schedule) -> None:
    """Give a schedule the elapsed share of a limited time; does nothing for runs limited by steps."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None:
            gone = callback.time_elapsed()
            # One clock for all ranks, or their rates would differ.
            schedule.spend(trainer.strategy.broadcast(gone / max(gone + left, 1e-9)))


class WarmupCosine(Schedule):
    """Linear rise, then half a cosine down, over the steps or the time that training has, whichever ends first.

    Args:
        warmup_steps: Steps of the rise.
        final: Factor at the last step.
    """

    def __init__(self, *, warmup_steps: NonNegativeInt = 100, final: ClosedUnitInterval = 0.01) -> None:
        self.warmup_steps = int(warmup_steps)
        self.final = float(final)
        self.total_steps = 0
        self.spent = 0.0

    def prepare(self, total_steps: int, *, epoch_steps: int = 0) -> None:
        self.total_steps = total_steps

    def spend(self, share: float) -> None:
        self.spent = share

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        share = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        share = max(share if self.total_steps > 0 else 0.0, self.spent)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


class InverseRoot(Schedule):
    """Linear rise, then a fall with the root of the step: Noam's, whose peak is the optimizer's rate.

    Args:
        warmup_steps: Steps of the rise.

    Source: arXiv 1706.03762 section 5.3. Its peak is ``(width * warmup_steps) ** -0.5``.
    """

    def __init__(self, *, warmup_steps: PositiveInt = 400) -> None:
        self.warmup_steps = int(warmup_steps)

    def __call__(self, step: int) -> float:
        return min((self.warmup_steps / (step + 1)) ** 0.5, (step + 1) / self.warmup_steps)


class StaircasePlateau(Schedule):
    """A rise in stairs, then a cut whenever the validation score has stopped rising.

    Args:
        warmup_steps: Steps of the rise.
        stair_steps: Steps a stair; the first stair has rate 0.
        reduction: What the rate is multiplied with at a cut.
        patience: Validations without a new best before a cut.

    Source: YuanGongND/ssast@a1a3eec `traintest_mask.py` (1000, 50, 0.5, 2).
    """

    def __init__(
        self,
        *,
        warmup_steps: NonNegativeInt = 1000,
        stair_steps: PositiveInt = 50,
        reduction: ClosedUnitInterval = 0.5,
        patience: NonNegativeInt = 2,
    ) -> None:
        self.warmup_steps = int(warmup_steps)
        self.stair_steps = int(stair_steps)
        self.reduction = float(reduction)
        self.patience = int(patience)
        self.best = -math.inf
        self.waited = 0
        self.cuts = 0

    def observe(self, value: float) -> None:
        if value > self.best:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.cuts, self.waited = self.cuts + 1, 0

    def __call__(self, step: int) -> float:
        return _stairs(step, self.warmup_steps, self.stair_steps) * self.reduction**self.cuts


class EpochDecay(Schedule):
    """A cut after so many epochs, and another every few: that of published fine-tuning.

    Args:
        first: Epochs before the first cut.
        every: Epochs from one cut to the next.
        reduction: What the rate is multiplied with at a cut.
        warmup_steps: Steps of a rise in stairs; 0 begins at the peak.
        stair_steps: Steps a stair.

    Source: YuanGongND/ssast@a1a3eec `traintest.py` (MultiStepLR over range(first, 1000, every)).
    """

    def __init__(
        self,
        *,
        first: PositiveInt = 5,
        every: PositiveInt = 1,
        reduction: ClosedUnitInterval = 0.85,
        warmup_steps: NonNegativeInt = 0,
        stair_steps: PositiveInt = 50,
    ) -> None:
        self.first = int(first)
        self.every = int(every)
        self.reduction = float(reduction)
        self.warmup_steps = int(warmup_steps)
        self.stair_steps = int(stair_steps)
        self.epoch_steps = 0

    def prepare(self, total_steps: int, *, epoch_steps: int = 0) -> None:
        self.epoch_steps = epoch_steps

    def __call__(self, step: int) -> float:
        epoch = step // self.epoch_steps if self.epoch_steps else 0
        cuts = 0 if epoch < self.first else 1 + (epoch - self.first) // self.every
        return _stairs(step, self.warmup_steps, self.stair_steps) * self.reduction**cuts


class Constant(Schedule):
    """The same rate throughout, as SUPERB trains."""

    def __call__(self, step: int) -> float:
        return 1.0


def _stairs(step: int, warmup_steps: int, stair_steps: int) -> float:
    """The rise of the published code: the first stair has rate 0."""
    return min(1.0, (step - step % stair_steps) / warmup_steps) if warmup_steps else 1.0
