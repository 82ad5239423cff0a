"""What an adapter is."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NoReturn

from torch import nn

from ssl_audio.errors import RecipeError

if TYPE_CHECKING:
    from ssl_audio.model.backbone import Backbone


class Adapter(nn.Module, ABC):
    """A part of a backbone that attaches itself to the slots of its encoder.

    The base keeps its names and its weights: a checkpoint of the base loads into a backbone with adapters, and the
    adapters' weights, `adapters.*`, are saved alone. Modules and parameters are made by `attach`, which knows the
    backbone's sizes; the slots get plain references to them.

    Contract, tested over all subclasses and their pairs on every encoder: a clip's states are the same alone, padded
    and packed; no gradient passes between clips; where `identity` says so, a fresh adapter changes nothing.

    Attributes:
        identity: Whether the backbone with a fresh adapter is the backbone without it.
        ordered: Whether it computes along the tokens as they stand, so that merging keeps their order.
        apart: Whether what it does to a token depends on no other token, so that a stream can be given token by token.
        coverage: Which part of the encoder it adapts, in words; empty if every block.
    """

    identity: bool = True
    ordered: bool = False
    apart: bool = False
    coverage: str = ""

    @abstractmethod
    def attach(self, backbone: "Backbone") -> None:
        """Make the weights, and fill the slots; called once, by the backbone.

        Raises:
            RecipeError: if this encoder has no place for it.
            LayoutError: if it has no place on tokens that lie as this backbone's do.
        """

    def merge(self) -> None:
        """Fold itself into the weights of the base, and leave the slots.

        Raises:
            RecipeError: if it cannot, which is what this does unless a subclass knows better.
        """
        self._refuse_to_merge("it computes something that no weight of the base can")

    def _refuse_to_merge(self, reason: str) -> NoReturn:
        raise RecipeError(
            f"{type(self).__name__} cannot be merged into the base: {reason}; keep it as an adapter, or train a "
            "LowRank adapter, which can"
        )
