"""Sample rates that shards may have, and the shortest clip that has a spectrogram."""

from ssl_audio.errors import RecipeError

SAMPLE_RATE = 16000
"""Samples per second of shards that say nothing else."""

RATES = (8000, 96000)
"""The lowest and the highest rate of shards and frontends, in Hz."""

SHORTEST_SECONDS = 0.025
"""A clip shorter than this has no spectrogram: one frame."""


def check_rate(rate: int, option: str) -> None:
    """A rate that shards and frontends may have.

    Args:
        rate: Samples per second.
        option: Where it was given, for the message.

    Raises:
        RecipeError: if it is outside `RATES`.
    """
    if not RATES[0] <= rate <= RATES[1]:
        raise RecipeError(f"{option} is {rate}; expected {RATES[0]} to {RATES[1]} Hz")


def shortest_samples(rate: int) -> int:
    """Samples of the shortest clip that has a spectrogram."""
    return int(rate * SHORTEST_SECONDS + 1e-6)
