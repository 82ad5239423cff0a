"""Every pair of parts works, or is refused by the line that docs/product.md has.

`python tests/soak/combinations.py --out docs/product.md` tries every pair on models of its own, and writes the page and
`rows.json`: models that hold many pairs each. These are tried here, and every refusal.
"""

import re
from pathlib import Path

import pytest
from product import covering, page, trial
from product.matrix import Matrix
from product.parts import every_part, meet

from ssl_audio.model import patterns

PAGE = (Path(__file__).parents[2] / "docs/product.md").read_text()
AGAIN = "run tests/soak/combinations.py --out docs/product.md"
TOLD = covering.read()
SHARES = 8


@pytest.fixture(scope="module")
def matrix():
    """All parts, and a folder to try them in; minute clips take the way of long ones."""
    with pytest.MonkeyPatch.context() as patch, trial.workplace() as files:
        patch.setattr(patterns, "FEWEST_PATCHES", 0)
        yield Matrix(every_part(), files)


def test_the_page_names_every_part():
    section = PAGE.split("## Parts")[1].split("##")[0]
    rows = dict(re.findall(r"^\| ([a-z]+) \| (.+) \|$", section, re.MULTILINE))
    for axis, parts in every_part().items():
        assert rows[axis] == page.names(parts), AGAIN


def test_every_pair_is_in_a_row_or_refused():
    parts = every_part()
    base = trial.base(parts)
    stand = {axis: set(names) for axis, names in TOLD["stand"].items()}
    for axis, every in parts.items():
        groups = [one.group for one in every if one.name in stand[axis]]
        assert sorted(groups) == sorted({one.group for one in every}), AGAIN
    wanted = {
        covering.pair_of(a, b)
        for one in parts
        for other in list(parts)[list(parts).index(one) + 1 :]
        for a in parts[one]
        for b in parts[other]
        if (one == "encoder" or base[one] != a)
        and base[other] != b
        and meet(one, other)
        and (one == "encoder" or (a.name in stand[one] and b.name in stand[other]))
    }  # fmt: skip
    shown = {pair for row in TOLD["rows"] for pair in covering.pairs_in(row)}
    refused = {frozenset(map(tuple, one["pair"])) for one in TOLD["refused"]}
    assert not wanted - shown - refused, AGAIN
    assert not refused & shown, AGAIN
    for one in TOLD["refused"]:
        assert one["line"].replace("|", "/") in PAGE, AGAIN


@pytest.mark.usefixtures("unchecked_module")
@pytest.mark.parametrize("share", range(SHARES))
def test_every_row_works(matrix, share):
    for row in TOLD["rows"][share::SHARES]:
        outcome = matrix.attempt(host=covering.host_of(matrix, row))
        assert outcome.works, (row, outcome)


@pytest.mark.usefixtures("unchecked_module")
def test_every_refusal_is_the_line_that_the_page_has(matrix):
    for one in TOLD["refused"]:
        if one["tried"] is not None:
            outcome = matrix.attempt(host=covering.host_of(matrix, one["tried"]))
            assert page.line_of(outcome.reason) == one["line"], (one, outcome)
