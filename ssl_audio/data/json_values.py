"""JSON from outside: whatever stands in it, it becomes plain values or a `ValueError` of one line."""

import json
import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SHOWN = 40


def read_json(text: bytes) -> Any:
    """The values of a JSON text in UTF-8, UTF-16 or UTF-32.

    Raises:
        ValueError: if it is no JSON, is nested too deeply, has a number of thousands of digits, or a string that is no
            text (half of a surrogate pair).
    """
    try:
        decoded = text.decode(json.detect_encoding(text))
        found = json.loads(decoded.removeprefix("\ufeff"))
        # Only an escape can make a string that is no text.
        if _SURROGATE.search(decoded):
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(str(error)) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is no {error.encoding}") from None
    except UnicodeEncodeError:
        raise ValueError("a string holds half of a surrogate pair, which is no character") from None
    except ValueError:
        raise ValueError("a number has thousands of digits") from None


def shown(value: Any) -> str:
    """A value as it may stand in a message: short, and in one line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, or as many brackets
        return f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def number(value: Any) -> float:
    """A number, or a string that spells one; it may be NaN or infinite.

    Raises:
        ValueError: if it is anything else.
    """
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise ValueError(f"{shown(value)} is no number")


def finite(value: Any) -> float:
    """A number that is neither NaN nor infinite.

    Raises:
        ValueError: if it is anything else.
    """
    found = number(value)
    if not math.isfinite(found):
        raise ValueError(f"{shown(value)} is not finite")
    return found


def whole(value: Any) -> int:
    """A whole number.

    Raises:
        ValueError: if it is anything else.
    """
    found = finite(value)
    if not found.is_integer() or abs(found) > 2**53:
        raise ValueError(f"{shown(value)} is no whole number")
    return int(found)


def word(value: Any) -> str | None:
    """A name: a string, or a number or truth value as it is written; None where it is blank, null or NaN.

    Raises:
        ValueError: if it is a list or an object.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str | int | float):
        raise ValueError(f"{shown(value)} is no name")
    try:
        text = str(value)
    except ValueError:  # thousands of digits
        raise ValueError(f"{shown(value)} is no name") from None
    return text if text.strip() else None


def optional(read: Callable[[Any], T], value: Any) -> T | None:
    """None for null, else what `read` makes of it."""
    return None if value is None else read(value)
