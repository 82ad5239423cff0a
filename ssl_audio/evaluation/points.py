"""A measured point of a picture."""

from typing import NamedTuple


class Point(NamedTuple):
    """Where it lies, and how sure that is.

    Args:
        x: What it costs or brings.
        y: A score.
        low: Lower end of the score's interval.
        high: Its upper end.
        name: Written beside it.
    """

    x: float
    y: float
    low: float
    high: float
    name: str
