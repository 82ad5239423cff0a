"""The residual branch, and what its parts are given and give."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ssl_audio.errors import RecipeError
from ssl_audio.model.attention import Attend
from ssl_audio.tokens import Tokens


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """What an encoder works out once for all its blocks, from where its tokens lie.

    Args:
        renew: Gives the context of other tokens, for parts that change them between two blocks or within one.
        mask: Which pairs of tokens attend to each other, or what is added to their scores; None where all of a row do.
        attend: How they attend to each other, where it is not by the mask.
        borders: Where a token belongs to another clip than the token before it; None where every row is one clip.
        back_borders: The same for what runs from the last token to the first, where it restarts more often; None where
            that is at `borders`.
        order: Places of the tokens of each row in the order of time, for what runs along it, and the way back; None
            where they stand so.
        past: What a stream carries from the tokens before through one block: keys and values, or states of scans and
            convolutions.
    """

    renew: Callable[[Tokens], "Context"]
    mask: Bool[Tensor, "row 1 token token"] | Float[Tensor, "row 1 token token"] | None = None
    attend: Attend | None = None
    borders: Bool[Tensor, "row token"] | None = None
    back_borders: Bool[Tensor, "row token"] | None = None
    order: tuple[Int[Tensor, "row token"], Int[Tensor, "row token"]] | None = None
    past: Any = None


class Mixed(NamedTuple):
    """What a branch's transform gives.

    Args:
        states: One vector a token.
        keys: What tells which tokens are alike, for merging: (row, head, token, channel), as the transform has it
            anyway; None if it has nothing of the kind.
    """

    states: Float[Tensor, "row token width"]
    keys: Float[Tensor, "row head token channel"] | None = None


Part = Callable[[Tokens, Context], Tensor]
"""A part that an adapter puts into a slot: from tokens and context to states, (row, token, width)."""


class Branch(nn.Module):
    """``after(transform(m) + beside(m))`` with ``m = before(norm(x))``; the slots are empty until adapters fill them.

    The residual sum stays with the block. Each slot is a list of plain references: the modules belong to the adapters.
    Parts `before` and `after` replace the states by what they return, one after the other; what parts `beside` return
    is added.

    Args:
        norm: Applied to the states first.
        transform: What the branch does, from tokens and context to `Mixed`: attention, a feed-forward network, a Mamba
            mixer.
    """

    def __init__(self, norm: nn.Module, transform: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.transform = transform
        self.before: list[Part] = []
        self.beside: list[Part] = []
        self.after: list[Part] = []

    def forward(self, tokens: Tokens, context: Context) -> Mixed:
        """What the block adds to its residual stream."""
        normed = tokens.with_states(self.norm(tokens.states))
        for part in self.before:
            normed = normed.with_states(part(normed, context))
        states, keys = self.transform(normed, context)
        for part in self.beside:
            states = states + part(normed, context)
        for part in self.after:
            states = part(tokens.with_states(states), context)
        return Mixed(states, keys)


def branches_named(branches: dict[str, list[Branch]], name: str) -> list[Branch]:
    """The branches of that name, one a block.

    Raises:
        RecipeError: if the encoder has none of that name; the message lists those it has.
    """
    if name not in branches:
        raise RecipeError(f"this encoder has no branch {name!r}; it has {', '.join(sorted(branches))}")
    return branches[name]
