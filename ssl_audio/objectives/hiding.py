"""Which places of each row are hidden and which stay, as indices of fixed size."""

import dataclasses

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ssl_audio.model.patches import Patches
from ssl_audio.objectives.masking import Masking


@dataclasses.dataclass(frozen=True, slots=True)
class Hiding:
    """A draw of hidden patches. Sizes do not depend on the draw, so nothing waits for the device.

    Args:
        hidden: Which patches of each row are hidden.
        index: Places of the hidden ones, ascending; where a short clip hides fewer, any place.
        valid: Which entries of `index` count; None means all.
        visible: Places of the ones that stay, ascending, with padding behind where a clip is short.
    """

    hidden: Bool[Tensor, "clip patch"]
    index: Int[Tensor, "clip hidden"]
    valid: Bool[Tensor, "clip hidden"] | None
    visible: Int[Tensor, "clip kept"]


def hide(patches: Patches, masking: Masking, seeds: Int[Tensor, " clip"], *, purpose: str = "mask") -> Hiding:
    """Draw the hidden patches of every clip.

    Raises:
        RecipeError: if more are to be hidden than there are.
    """
    drawn = masking.draw(patches.grid, patches.columns, seeds, purpose=purpose).flatten(1)
    if not patches.whole:
        drawn = drawn.gather(1, patches.place()) & (patches.clip >= 0)
    return hiding_of(drawn, patches, hidden=masking.count(patches.grid[0] * patches.grid[1]))


def hiding_of(drawn: Bool[Tensor, "clip patch"], patches: Patches, *, hidden: int) -> Hiding:
    """The indices of a given set, of which no row has more than `hidden`."""
    total = drawn.shape[1]
    index = (~drawn).to(torch.int8).argsort(dim=1, stable=True)[:, :hidden]
    last = drawn.to(torch.int8) * 2 + (patches.clip < 0).to(torch.int8)
    visible = last.argsort(dim=1, stable=True)[:, : total - hidden]
    return Hiding(drawn, index, None if patches.whole else drawn.gather(1, index), visible)
