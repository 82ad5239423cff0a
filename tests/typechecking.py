"""The type checker that the tests turn on: beartype, to which a constrained number is just a number.

jsonargparse's `PositiveInt` and its like hold at the edge, in recipes and options; a plain 3 from Python is as good.
"""

from beartype import BeartypeConf, BeartypeHintOverrides, beartype
from jsonargparse import typing as constrained

check = beartype(
    conf=BeartypeConf(
        is_pep484_tower=True,
        hint_overrides=BeartypeHintOverrides(
            {
                constrained.PositiveInt: int,
                constrained.NonNegativeInt: int,
                constrained.PositiveFloat: float,
                constrained.NonNegativeFloat: float,
                constrained.ClosedUnitInterval: float,
            }
        ),
    )
)
