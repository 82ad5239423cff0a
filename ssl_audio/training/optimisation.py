"""Which parameters decay, and how the rate moves."""

import math
from abc import ABC, abstractmethod
from typing import Any, Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt
from torch import nn

DecayOn = Literal["weights", "everything"]


def parameter_groups(module: nn.Module, *, decay_on: DecayOn = "weights") -> list[dict[str, Any]]:
    """Parameters for an optimizer, apart by whether weight decay is for them.

    Biases, the parameters of norms, and whatever carries a true `no_weight_decay` (positions, class tokens, `A_log`,
    `D`) do not decay, whatever their shape.

    Args:
        module: Whose parameters; those that need no gradient are left out.
        decay_on: `everything` lets all of them decay, as the ancestors do.
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


class Schedule(ABC):
    """The learning rate over its peak, step by step.

    What it remembers stands in its attributes and is saved with the checkpoint, so they are plain numbers.
    """

    def prepare(self, total_steps: int) -> None:  # noqa: B027
        """Learn how long training will be; called when training starts or goes on."""

    def spend(self, share: float) -> None:  # noqa: B027
        """Learn which share of a limited time is gone; only for runs that are limited by time."""

    def observe(self, value: float) -> None:  # noqa: B027
        """See a validation score, the higher the better."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The factor at a step, counted from 0."""


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

    def prepare(self, total_steps: int) -> None:
        self.total_steps = total_steps

    def spend(self, share: float) -> None:
        self.spent = share

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        share = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        share = max(share if self.total_steps > 0 else 0.0, self.spent)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


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
        stair = step - step % self.stair_steps
        rise = min(1.0, stair / self.warmup_steps) if self.warmup_steps else 1.0
        return rise * self.reduction**self.cuts
