"""Few models that hold all pairs: rows with a part for many axes at once, each of which was tried and works.

A row that works shows all the pairs in it, so a few hundred rows stand for two thousand pairs. Rows without a use show
pairs of the other axes; rows with one show what goes with that use.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from product.matrix import Host, Matrix, Name
from product.page import Found, line_of
from product.parts import Part

FILE = Path(__file__).parent / "rows.json"
Pair = frozenset[Name]
Row = dict[str, str]
"""Names of the parts that differ from the base's, by axis."""


def pair_of(one: Part, other: Part) -> Pair:
    """A pair by its names."""
    return frozenset({(one.axis, one.name), (other.axis, other.name)})


def pairs_in(row: Mapping[str, str]) -> Iterator[Pair]:
    """The pairs that a row shows."""
    for one, other in itertools.combinations(row.items(), 2):
        if "use" not in row or "use" in (one[0], other[0]):
            yield frozenset({one, other})


def rows_of(matrix: Matrix, found: Sequence[Found]) -> list[Row]:
    """Rows that hold all pairs that work, found one after the other: each holds as many pairs as it can."""
    works = {pair_of(one.one, one.other): one for one in found if one.outcome.works}
    left = dict.fromkeys(works)
    rows: list[Row] = []
    while left:
        pair = works[next(iter(left))]
        least = _named(matrix, {**matrix.hosted[pair_of(pair.one, pair.other)], pair.one.axis: pair.one,
                                pair.other.axis: pair.other})  # fmt: skip
        row = _extended(matrix, least, works.keys(), left)
        extra = [axis for axis in row if axis not in least]
        while extra and not works_alone(matrix, row):
            for axis in extra[len(extra) // 2 :]:
                del row[axis]
            extra = extra[: len(extra) // 2]
        for shown in pairs_in(row):
            left.pop(shown, None)
        left.pop(pair_of(pair.one, pair.other), None)
        rows.append(row)
    return rows


def _named(matrix: Matrix, parts: Mapping[str, Part]) -> Row:
    return {axis: part.name for axis, part in parts.items() if part != matrix.base[axis]}


def _extended(matrix: Matrix, least: Row, works: Iterable[Pair], left: Mapping[Pair, Any]) -> Row:
    """A row with parts on further axes, each the one that shows most pairs that no row has shown."""
    known, row = set(works), dict(least)
    for axis in matrix.parts:
        if axis in row or axis == "use":
            continue
        best, most = None, 0
        for part in matrix.parts[axis]:
            new = [frozenset({(axis, part.name), other}) for other in row.items()]
            if part == matrix.base[axis] or any(pair not in known for pair in new):
                continue
            count = len(set(pairs_in({**row, axis: part.name})) & left.keys())
            if count > most:
                best, most = part.name, count
        if best is not None and most > len(set(pairs_in(row)) & left.keys()):
            row[axis] = best
    return row


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
    return {"stand": stand, "rows": rows_of(matrix, found), "refused": refused}


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
