"""The option of every verb whose work several machines may share."""

import re

from ssl_audio.errors import RecipeError


def part_of(word: str) -> tuple[int, int]:
    """Which part of how many: `3/8`.

    Raises:
        RecipeError: if it is none.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", word)
    part, parts = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= part <= parts:
        raise RecipeError(f"--part {word}: expected i/n with i from 1 to n, such as 3/8")
    return part, parts
