"""Where in an encoder an adapter finds its place."""

from typing import Any, Literal

from torch import nn

from ssl_audio.errors import RecipeError
from ssl_audio.model.branch import Branch, branches_named
from ssl_audio.model.encoders.encoder import Encoder

Place = Literal["before", "beside", "after"]
"""Where a part stands in a branch: on what enters the transform, parallel to it, or on what leaves it."""


def slot(branch: Branch, place: Place) -> list:
    """The list of parts of a branch at a place."""
    return {"before": branch.before, "beside": branch.beside, "after": branch.after}[place]


def branches_for(who: str, encoder: Encoder, name: str) -> list[Branch]:
    """The branches of a name, one a block; `last` is the last branch of a block, whatever its name.

    Raises:
        RecipeError: if the encoder has none of that name.
    """
    branches = encoder.branches()
    if name == "last":
        return list(branches.values())[-1]
    try:
        return branches_named(branches, name)
    except RecipeError as error:
        raise RecipeError(f"{who} on {type(encoder).__name__}: {error}; set branch to that, or to last") from None


def modules_with(who: str, encoder: Encoder, slot: str, *, why: str) -> list[Any]:
    """The modules of an encoder that have a slot of this name, in their order.

    Args:
        who: Looks for it, for the message.
        encoder: Where.
        slot: Name of the attribute.
        why: Of an encoder without one: "which ...", and what to use instead, for the message.

    Raises:
        RecipeError: if there is none.
    """
    found: list[nn.Module] = [module for module in encoder.modules() if isinstance(getattr(module, slot, None), list)]
    if not found:
        raise RecipeError(f"{who}: no place in {type(encoder).__name__}, which {why}")
    return found
