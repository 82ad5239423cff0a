"""Names from outside, as they may stand in a line, a table or a file, and what a misspelt one may have meant."""

import re
from collections.abc import Mapping, Sequence

# Control characters move a terminal's cursor or end a line; a lone surrogate is a byte of a name that is not UTF-8;
# U+202A and its like turn the order of letters round.
_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    """The same text with what is no character of a line escaped: a line feed becomes `\\n`, an escape `\\x1b`.

    A byte of a file's name that is not UTF-8 becomes `\\xe9`.
    """
    return _UNPRINTABLE.sub(_escaped, text)


def cell(text: str) -> str:
    """A printable text that no spreadsheet takes for a formula: an apostrophe goes before it."""
    return "'" * text.startswith(_FORMULA) + printable(text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    # Python names an undecodable byte 0xNN by the surrogate U+DCNN.
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else repr(found[0])[1:-1]


def suggest(word: str, known: Sequence[str] | dict[str, str]) -> str:
    """`; did you mean ...?` when something known is close to the word, else nothing."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def in_columns(rows: Mapping[str, str], *, width: int | None = None) -> str:
    """Names and what they are, below one another, in lines as wide as the terminal, 80 if there is none.

    Args:
        rows: What each is, by its name.
        width: Of the names; by default that of the longest.
    """
    import shutil
    import textwrap

    width = max(map(len, rows), default=0) if width is None else width
    columns = max(60, min(shutil.get_terminal_size().columns, 120))
    return "\n".join(
        textwrap.fill(f"  {name:<{width}}  {what}".rstrip(), columns, subsequent_indent=" " * (width + 4))
        for name, what in rows.items()
    )
