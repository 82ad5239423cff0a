"""Which parameters of a backbone train: one list of name patterns."""

import dataclasses
import fnmatch

from jsonargparse.typing import NonNegativeInt, PositiveFloat
from torch import nn

from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuning:
    """Which parameters of the backbone train; the head always trains.

    Frozen modules stay in evaluation mode: stochastic depth of a frozen base is off while the batch norm of a trained
    adapter updates its statistics.

    Args:
        train: Patterns (`*`, `?`, `[...]`) of the names of parameters within the backbone: `["*"]` trains everything,
            `[]` nothing (linear probe), `["*.bias"]` all biases (BitFit), `["adapters.*", "encoder.norm.*"]` the
            adapters and the final norm.
        last_blocks: The last so many blocks of the encoder train as well, and the norm behind them.
        backbone_rate: Factor of the optimizer's learning rate for the base.
        adapter_rate: The same for the adapters.
    """

    train: list[str] = dataclasses.field(default_factory=lambda: ["*"])
    last_blocks: NonNegativeInt = 0
    backbone_rate: PositiveFloat = 1.0
    adapter_rate: PositiveFloat = 1.0

    @property
    def words(self) -> str:
        """What trains, for people."""
        blocks = [f"last {self.last_blocks} blocks"] if self.last_blocks else []
        if "*" in self.train:
            return "everything trains"
        return f"{', '.join([*self.train, *blocks])} train" if self.train or blocks else "frozen backbone"

    def apply(self, backbone: Backbone) -> None:
        """Set `requires_grad` of every parameter of the backbone by the patterns.

        Raises:
            RecipeError: if a pattern names no parameter, or there are not so many blocks.
        """
        depth = len(backbone.encoder.blocks)
        if self.last_blocks > depth:
            raise RecipeError(
                f"model.tuning.last_blocks is {self.last_blocks}, but the encoder has {depth} blocks; expected no more"
            )
        last = range(depth - self.last_blocks, depth)
        patterns = [*self.train, *(f"encoder.blocks.{number}.*" for number in last)]
        patterns += ["encoder.norm.*"] if self.last_blocks else []
        unmatched = dict.fromkeys(self.train)
        for name, parameter in backbone.named_parameters():
            matching = [pattern for pattern in patterns if fnmatch.fnmatchcase(name, pattern)]
            parameter.requires_grad_(bool(matching) and parameter.numel() > 0)
            for pattern in matching:
                unmatched.pop(pattern, None)
        for pattern in unmatched:
            raise RecipeError(
                f"model.tuning.train: no parameter of the backbone is named {pattern!r}; expected patterns of names "
                f"such as {_examples(backbone)}"
            )


def trains(module: nn.Module) -> bool:
    """Whether any parameter of a module trains."""
    return any(parameter.requires_grad for parameter in module.parameters())


def set_modes(module: nn.Module, mode: bool) -> None:
    """Set training mode (if `mode`) for modules with parameters that train, evaluation mode for all others. A module
    without parameters takes the mode of its parent.
    """
    module.training = mode and (trains(module) if any(True for _ in module.parameters()) else True)
    for child in module.children():
        set_modes(child, module.training)


def trained_tensors(backbone: Backbone) -> set[str]:
    """Names of what a training changes: parameters that train, buffers of modules that train, and the frontend's
    statistics, which may have been measured for the task.
    """
    names = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    for prefix, module in backbone.named_modules():
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            names |= {f"{prefix}.{name}" for name, _ in module.named_buffers(recurse=False)}
    names |= {f"frontend.{name}" for name in backbone.frontend.state_dict()}
    return names & backbone.state_dict().keys()


def _examples(backbone: Backbone) -> str:
    found = {".".join(name.split(".")[:-1][:2]) + ".*": None for name, _ in backbone.named_parameters() if "." in name}
    return ", ".join([*list(found)[:6], "*.bias"])
