"""How large an adapter is, said either way."""

from ssl_audio.errors import RecipeError


def hidden_channels(width: int, *, hidden: int | None, reduction: float | None, who: str, name: str = "hidden") -> int:
    """Channels in the middle of an adapter.

    Args:
        width: Of the encoder.
        hidden: The number itself.
        reduction: The width over the number, which is rounded.
        who: Name of the adapter, for the message.
        name: What the adapter calls the number, for the message.

    Raises:
        RecipeError: unless exactly one is given and comes to one channel at least.
    """
    if (hidden is None) == (reduction is None):
        found = "neither" if hidden is None else f"{name} {hidden} and reduction {reduction}"
        raise RecipeError(f"{who}: expected either {name} or reduction; found {found}")
    count = hidden if hidden is not None else round(width / (reduction or 1))
    if count < 1:
        raise RecipeError(
            f"{who}: reduction {reduction} of width {width} leaves no channel; expected at most {2 * width - 1}"
        )
    return count
