"""What an encoder is."""

from abc import ABC, abstractmethod

from torch import nn

from ssl_audio.model.branch import Branch
from ssl_audio.tokens import Tokens


class Encoder(nn.Module, ABC):
    """Mixes the tokens of each clip and of no two clips.

    Contract, tested over all subclasses: a clip's states are the same alone, with padding, and packed between
    other clips; no gradient passes between clips.

    Attributes:
        width: Channels of every token, in and out.
    """

    width: int

    @abstractmethod
    def forward(self, tokens: Tokens) -> Tokens:
        """The same tokens in mixed states, normalised."""

    @abstractmethod
    def branches(self) -> dict[str, list[Branch]]:
        """The slots for adapters: branches by name, each a list with one branch a block."""
