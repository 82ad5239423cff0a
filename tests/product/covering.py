"""Few models that hold all pairs: rows with a part for many axes at once, each of which was tried and works.

A row that works shows all the pairs in it, so a few hundred rows stand for two thousand pairs. Rows without a use show
pairs of the other axes; rows with one show what goes with that use.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from product.matrix import Host, Matrix, Name
from product.page import Found, line_of
from product.parts import Part
from product.trial import BASE

ENCODER = BASE["encoder"]
FILE = Path(__file__).parent / "rows.json"
Pair = frozenset[Name]
Row = dict[str, str]
"""Names of the parts that differ from the base's, by axis."""


def pair_of(one: Part, other: Part) -> Pair:
    """A pair by its names."""
    return frozenset({(one.axis, one.name), (other.axis, other.name)})


def pairs_in(row: Mapping[str, str]) -> Iterator[Pair]:
    """The pairs that a row shows; without an encoder, it has the base's."""
    for one, other in itertools.combinations({"encoder": ENCODER, **row}.items(), 2):
        if "use" not in row or "use" in (one[0], other[0]):
            yield frozenset({one, other})


def least_rows(matrix: Matrix, found: Sequence[Found]) -> dict[Pair, Row]:
    """For each pair that works, what it was tried on: itself, and what it needs."""
    return {
        pair_of(one.one, one.other): _named(matrix, {**matrix.hosted[pair_of(one.one, one.other)],
                                                     one.one.axis: one.one, one.other.axis: one.other})
        for one in found if one.outcome.works
    }  # fmt: skip


def rows_of(matrix: Matrix, works: Mapping[Pair, Row], refused: Set[Pair]) -> list[Row]:
    """Rows that hold all pairs that work, found one after the other: each holds as many new pairs as it can.

    Args:
        matrix: What tries rows.
        works: See `least_rows`.
        refused: Pairs that no row can have.
    """
    left = dict.fromkeys(works)
    rows: list[Row] = []
    while left:
        starts = [works[pair] for pair in itertools.islice(left, _STARTS)]
        least, row = max(
            ((one, _extended(matrix, one, refused, left)) for one in starts), key=lambda two: _gain(two[1], left)
        )
        if len(row) > len(least) and not works_alone(matrix, row):
            row = _grown(matrix, least, refused, left)
        before = len(left)
        for pair in pairs_in(row):
            left.pop(pair, None)
        assert len(left) < before, f"{least} was said to work, and does not"
        rows.append(row)
    return _needed(rows)


_STARTS = 24
"""How many pairs are tried as the start of a row; the start that gives the widest row is kept."""


def _named(matrix: Matrix, parts: Mapping[str, Part]) -> Row:
    return {axis: part.name for axis, part in parts.items() if part != matrix.base[axis]}


def _gain(row: Row, left: Mapping[Pair, Any]) -> int:
    return sum(pair in left for pair in pairs_in(row))


def _steps(matrix: Matrix, row: Row, refused: Set[Pair], left: Mapping[Pair, Any]) -> list[tuple[int, Row]]:
    """Rows with one more part and no refused pair, each with the number of pairs that it adds; most pairs first."""
    found = []
    for axis in matrix.parts:
        if axis in row or axis == "use":
            continue
        for part in matrix.parts[axis]:
            beside = row if axis == "encoder" else {"encoder": ENCODER, **row}
            new = [frozenset({(axis, part.name), other}) for other in beside.items()]
            if part != matrix.base[axis] and refused.isdisjoint(new):
                wider = {**row, axis: part.name}
                found.append((_gain(wider, left) - _gain(row, left), wider))
    return sorted((one for one in found if one[0] > 0), key=lambda one: -one[0])


def _extended(matrix: Matrix, row: Row, refused: Set[Pair], left: Mapping[Pair, Any]) -> Row:
    """A row with parts on further axes, each the one that shows most pairs that no row has shown; not tried."""
    while steps := _steps(matrix, row, refused, left):
        row = steps[0][1]
    return row


def _grown(matrix: Matrix, row: Row, refused: Set[Pair], left: Mapping[Pair, Any]) -> Row:
    """The same, tried after each part; a part that is refused, or breaks, beside the others is left out."""
    without: set[tuple[str, str]] = set()
    while True:
        steps = [one for _, one in _steps(matrix, row, refused, left) if without.isdisjoint(one.items())]
        if not steps:
            return row
        if works_alone(matrix, steps[0]):
            row = steps[0]
        else:
            without |= steps[0].items() - row.items()


def _needed(rows: list[Row]) -> list[Row]:
    """Without rows whose pairs are all in others."""
    count = Counter(pair for row in rows for pair in pairs_in(row))
    kept = []
    for row in sorted(rows, key=len):
        pairs = list(pairs_in(row))
        if all(count[pair] > 1 for pair in pairs):
            count.subtract(pairs)
        else:
            kept.append(row)
    return [row for row in rows if row in kept]


def host_of(matrix: Matrix, row: Row) -> Host:
    """The parts of a row."""
    return {axis: next(one for one in matrix.parts[axis] if one.name == name) for axis, name in row.items()}


def works_alone(matrix: Matrix, row: Row) -> bool:
    """Whether a row does all that it is asked for."""
    return matrix.attempt(host=host_of(matrix, row)).works


def content(matrix: Matrix, found: Sequence[Found]) -> dict[str, Any]:
    """What the quick test needs: the parts that stand for their groups, rows, and refusals with what was tried.

    `tried` is None where several models were, one for each encoder: what refuses them is a pair with the encoder.
    """
    refused = []
    for one in found:
        if not one.outcome.works:
            host = matrix.hosted.get(pair_of(one.one, one.other))
            tried = None if host is None else _named(matrix, {**host, one.one.axis: one.one, one.other.axis: one.other})
            if tried is not None and line_of(matrix.attempt(host=host_of(matrix, tried)).reason) != one.line:
                tried = None  # the line is of another host
            refused.append({"pair": [[one.one.axis, one.one.name], [one.other.axis, one.other.name]],
                            "tried": tried, "line": one.line})  # fmt: skip
    stand = {axis: sorted({matrix.stands_for(part).name for part in parts}) for axis, parts in matrix.parts.items()}
    rows = rows_of(matrix, least_rows(matrix, found), {_pair_in(one) for one in refused})
    return {"stand": stand, "rows": rows, "refused": refused}


def _pair_in(told: Mapping[str, Any]) -> Pair:
    return frozenset(map(tuple, told["pair"]))


def write(matrix: Matrix, found: Sequence[Found]) -> None:
    """Write them beside this file, a row a line."""
    told = content(matrix, found)
    parts = [f' "stand": {json.dumps(told["stand"])}']
    for name in ("rows", "refused"):
        parts.append(f' "{name}": [\n' + ",\n".join(f"  {json.dumps(one)}" for one in told[name]) + "\n ]")
    FILE.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def read() -> dict[str, Any]:
    """What was written."""
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found
