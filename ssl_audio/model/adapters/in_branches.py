"""Adapters with one part in a branch of every block."""

from abc import abstractmethod
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor, nn

from ssl_audio.model.adapters.adapter import Adapter
from ssl_audio.model.adapters.sizes import hidden_channels
from ssl_audio.model.adapters.slots import Place, branches_for, slot
from ssl_audio.model.branch import Context
from ssl_audio.tokens import Tokens

if TYPE_CHECKING:
    from ssl_audio.model.backbone import Backbone


class InBranches(Adapter):
    """One part a block in one of the encoder's branches.

    Args:
        hidden: Channels in the middle of a part.
        reduction: The same as the encoder's width over this, rounded; one of the two.
        branch: Name of the branch: `mixer`, the Transformer's `mlp`, or `last` for the last one of a block, which is
            the Transformer's `mlp` and the Mamba's `mixer`.
        place: `beside` the transform (parallel: reads the normalised input, is added to the output), `after` it or
            `before` it (sequential: reads and replaces the output, or the normalised input).
        skip: Add what the part reads to what it returns; by default for sequential places alone.
    """

    def __init__(
        self, *, hidden: int | None, reduction: float | None, branch: str, place: Place, skip: bool | None = None
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.reduction = reduction
        self.branch = branch
        self.place: Place = place
        sequential = place != "beside"
        self.skip = sequential if skip is None else skip
        self.identity = self.skip == sequential

    @abstractmethod
    def part(self, width: int, hidden: int) -> nn.Module:
        """A fresh part for one block, from tokens and context to states, (row, token, width); it begins at zeros.

        Args:
            width: Channels of a token.
            hidden: Channels in the middle.
        """

    def attach(self, backbone: "Backbone") -> None:
        name = type(self).__name__
        branches = branches_for(name, backbone.encoder, self.branch)
        hidden = hidden_channels(backbone.width, hidden=self.hidden, reduction=self.reduction, who=name)
        self.parts = nn.ModuleList(self.part(backbone.width, hidden) for _ in branches)
        for branch, part in zip(branches, self.parts, strict=True):
            slot(branch, self.place).append(_Skip(part) if self.skip else part)


class _Skip:
    """Adds what a part reads to what it returns; no module, so that the part is in one place alone."""

    def __init__(self, part: nn.Module) -> None:
        self.part = part

    def __call__(self, tokens: Tokens, context: Context) -> Float[Tensor, "row token width"]:
        return tokens.states + self.part(tokens, context)
