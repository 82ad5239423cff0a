"""What an encoder is."""

from abc import ABC, abstractmethod

from torch import nn

from ssl_audio.errors import LayoutError
from ssl_audio.model.branch import Branch
from ssl_audio.tokens import Tokens


class Encoder(nn.Module, ABC):
    """Mixes the tokens of each clip and of no two clips.

    Contract, tested over all subclasses: a clip's states are the same alone, with padding, and packed between
    other clips; no gradient passes between clips.

    Attributes:
        width: Channels of every token, in and out.
        blocks: The blocks in their order; those nearer the input learn slower under layer decay, and `layers` has
            one entry for each.
    """

    width: int
    blocks: nn.ModuleList

    @abstractmethod
    def forward(self, tokens: Tokens) -> Tokens:
        """The same tokens in mixed states, normalised."""

    @abstractmethod
    def branches(self) -> dict[str, list[Branch]]:
        """The slots for adapters: branches by name, each a list with one branch a block."""

    def layers(self, tokens: Tokens) -> list[Tokens]:
        """The tokens in the states that each block leaves behind, before the final norm: one entry a block.

        This works for blocks that return `Tokens`; an encoder with other ones overrides it.

        Raises:
            LayoutError: if a block does not return tokens.
        """
        found: list[Tokens] = []

        def keep(block: nn.Module, inputs: object, output: object) -> None:
            if not isinstance(output, Tokens):
                raise LayoutError(f"{type(block).__name__} returns no tokens, so {type(self).__name__} has no layers")
            found.append(output)

        hooks = [block.register_forward_hook(keep) for block in self.blocks]
        try:
            self(tokens)
        finally:
            for hook in hooks:
                hook.remove()
        return found
