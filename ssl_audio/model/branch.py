"""The residual branch: the slot that every adapter plugs into."""

from typing import Generic, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from ssl_audio.errors import RecipeError
from ssl_audio.tokens import Tokens

Context = TypeVar("Context")


class Branch(nn.Module, Generic[Context]):
    """``after(transform(n) + beside(n))`` with ``n = norm(x)``; both slots are empty until something plugs in.

    The residual sum stays with the block. `transform` takes the normalised tokens and whatever the encoder worked
    out once for all its blocks (an attention mask, the borders of clips); `beside` takes the normalised tokens;
    `after` takes tokens in the states so far. All three return states.

    Args:
        norm: Applied to the states first.
        transform: What the branch does: attention, a feed-forward network, a Mamba mixer.
    """

    def __init__(self, norm: nn.Module, transform: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.transform = transform
        self.beside: nn.Module | None = None
        self.after: nn.Module | None = None

    def forward(self, tokens: Tokens, context: Context) -> Float[Tensor, "row token width"]:
        """What the block adds to its residual stream."""
        normed = tokens.with_states(self.norm(tokens.states))
        states = self.transform(normed, context)
        if self.beside is not None:
            states = states + self.beside(normed)
        if self.after is not None:
            states = self.after(tokens.with_states(states))
        return states


def branches_named(branches: dict[str, list[Branch]], name: str) -> list[Branch]:
    """The branches of that name, one a block.

    Raises:
        RecipeError: if the encoder has none of that name; the message lists those it has.
    """
    if name not in branches:
        raise RecipeError(f"this encoder has no branch {name!r}; it has {', '.join(sorted(branches))}")
    return branches[name]
