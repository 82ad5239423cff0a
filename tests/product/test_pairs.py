"""Pairs of parts work or are refused as docs/product.md says, and the page names every part that there is.

`python tests/soak/combinations.py --out docs/product.md` tries all pairs and writes the page.
"""

import re
from pathlib import Path

import pytest
from product import page, trial
from product.matrix import Matrix
from product.parts import every_part

from ssl_audio.model import patterns

PAGE = (Path(__file__).parents[2] / "docs/product.md").read_text()


def test_the_page_names_every_part():
    section = PAGE.split("## Parts")[1].split("##")[0]
    rows = dict(re.findall(r"^\| ([a-z]+) \| (.+) \|$", section, re.MULTILINE))
    for axis, parts in every_part().items():
        assert rows[axis] == page.names(parts), "run tests/soak/combinations.py --out docs/product.md"


@pytest.mark.usefixtures("unchecked")
def test_some_pairs_are_what_the_page_says(monkeypatch):
    monkeypatch.setattr(patterns, "FEWEST_PATCHES", 0)  # minute clips take the way of long ones
    with trial.workplace() as files:
        found = page.run(Matrix(every_part(), files), "layout", "merging")
    assert len(found) == 6
    for one in found:
        assert not one.outcome.broken, (one.one.name, one.other.name, one.outcome.broken)
        assert one.outcome.works == (f"{one.one.name} with {one.other.name}" not in PAGE)
