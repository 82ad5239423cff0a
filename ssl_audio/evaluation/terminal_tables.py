"""Tables in a terminal: where one is too wide, headings and long cells take several lines."""

import shutil
import textwrap
from collections.abc import Sequence

_UNBROKEN = 14  # characters: numbers with their deviation, names
_ANY = 10000


def terminal_columns() -> int:
    """Of the terminal, or of COLUMNS; of a file or a pipe there are enough for anything."""
    return shutil.get_terminal_size((_ANY, 24)).columns


def laid_out(caption: str, cells: Sequence[Sequence[str]], columns: int) -> str:
    """The caption, and rows below one another; the first column names the row.

    Args:
        caption: What the table shows.
        cells: The headings, and the rows.
        columns: Of the terminal. A table whose shortest form is wider stays as wide as that.
    """
    numbered = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in numbered]
    least = [
        max([_longest_word(head), *(len(cell) if len(cell) <= _UNBROKEN else _longest_word(cell) for cell in column)])
        for head, *column in numbered
    ]
    while sum(widths) + 2 * (len(widths) - 1) > columns and widths != least:
        widest = max((place for place in range(len(widths)) if widths[place] > least[place]), key=widths.__getitem__)
        widths[widest] -= 1
    gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= columns else " "
    # Long texts begin at the left, numbers end at the right.
    left = [not place or any(len(cell) > width for cell in numbered[place][1:]) for place, width in enumerate(widths)]
    lines = []
    for row in cells:
        parts = [_broken(cell, width) for cell, width in zip(row, widths, strict=True)]
        for number in range(max(map(len, parts))):
            line = [part[number] if number < len(part) else "" for part in parts]
            shown = [
                cell.ljust(width) if at_left else cell.rjust(width)
                for cell, width, at_left in zip(line, widths, left, strict=True)
            ]
            lines.append(gap.join(shown).rstrip())
    return "\n".join([*_broken(caption, columns), *lines])


def _longest_word(cell: str) -> int:
    return max(map(len, cell.split()), default=0)


def _broken(cell: str, width: int) -> list[str]:
    if len(cell) <= width:
        return [cell]
    return textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False)
