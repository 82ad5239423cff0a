"""Soak: every three parts whose pairs work, on minute models; see combinations.py.

    OMP_NUM_THREADS=1 .venv/bin/python tests/soak/triples.py [--seconds 600] [--page docs/product.md --on PROCESSOR]

A model of `tests/product/rows.json` that holds two of three parts, with the third exchanged, shows all triples in it if
it works. Three parts whose pairs work may be refused together by an error of ours; anything else ends this with 1. With
--seconds, so many CPU seconds are spent on triples in a random order that is the same in every call; with --page, the
counts become a section of that page.
"""

import argparse
import itertools
import random
import sys
import time
from collections import Counter
from pathlib import Path

import torch

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]
from product import covering, page, trial  # noqa: E402
from product.matrix import Matrix  # noqa: E402
from product.parts import every_part  # noqa: E402

from ssl_audio.model import patterns  # noqa: E402

Triple = frozenset[tuple[str, str]]


def triples_in(row: covering.Row) -> set[Triple]:
    """The triples that a row shows: of a row with a use, those with the use."""
    return {
        frozenset(three) for three in itertools.combinations(row.items(), 3) if "use" not in row or "use" in dict(three)
    }


def all_triples(pairs: set[covering.Pair]) -> list[Triple]:
    """Three parts, each two of which work."""
    beside: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for one, other in map(tuple, pairs):
        beside.setdefault(one, set()).add(other)
        beside.setdefault(other, set()).add(one)
    found = {frozenset({*pair, third}) for pair in pairs for third in set.intersection(*(beside[one] for one in pair))}
    return sorted(found, key=sorted)


def main() -> None:
    torch.set_num_threads(1)
    patterns.FEWEST_PATCHES = 0  # minute clips take the way of long ones
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="CPU seconds to spend")
    parser.add_argument("--page", type=Path, help="write the counts into this page, which combinations.py wrote")
    parser.add_argument("--on", default="one core", help="processor, for the page")
    options = parser.parse_args()
    rows = covering.read()["rows"]
    shown = {pair for row in rows for pair in covering.pairs_in(row)}
    holding: dict[covering.Pair, list[covering.Row]] = {}
    for row in sorted(rows, key=len, reverse=True):
        for pair in map(frozenset, itertools.combinations(row.items(), 2)):
            holding.setdefault(pair, []).append(row)
    every = all_triples(shown)
    random.Random(0).shuffle(every)
    left, refused, broken, begin = dict.fromkeys(every), Counter(), [], time.process_time()
    with trial.workplace() as files:
        matrix = Matrix(every_part(), files)
        for triple in every:
            if triple not in left:
                continue
            if time.process_time() - begin > options.seconds:
                break
            del left[triple]
            reason = ""
            for row in candidates(triple, holding):
                outcome = matrix.attempt(host=covering.host_of(matrix, row))
                if outcome.works:
                    for one in triples_in(row):
                        left.pop(one, None)
                    break
                if outcome.broken:
                    broken.append(f"{row}: {outcome.broken}")
                    break
                reason = outcome.reason
            else:
                refused[trial.one_line(reason)] += 1
    for line in broken:
        print(f"BROKEN: {line}")
    for line, count in refused.most_common():
        print(f"refused {count}: {line}")
    tried, spent = len(every) - len(left), time.process_time() - begin
    works = tried - refused.total() - len(broken)
    counts = f"{refused.total()} are refused, {len(broken)} broke; {matrix.tried} models in {spent:.0f} CPU s"
    print(f"{tried} of {len(every)} triples: {works} work, {counts}")
    if options.page is not None:
        call = f"`python tests/soak/triples.py --seconds {options.seconds:g}`"
        told = f"Of {len(every)} triples whose pairs all work, {call}\ntried {tried} in a random order: "
        told += f"**{works} work**, {counts} ({options.on})."
        options.page.write_text(page.told_of_triples(options.page.read_text(), told))
    sys.exit(bool(broken))


def candidates(triple: Triple, holding: dict[covering.Pair, list[covering.Row]]) -> list[covering.Row]:
    """Rows to try: the three parts on models that hold two of them, the widest first, then on the narrowest."""
    parts, found = dict(triple), []
    use = parts.get("use")
    for pair in itertools.combinations(triple, 2):
        rows = [row for row in holding.get(frozenset(pair), ()) if row.get("use", use) == use]
        for row in [*rows[:2], *rows[-1:]]:
            found.append({**row, **parts})
    return [*sorted(found, key=len, reverse=True), parts]


if __name__ == "__main__":
    main()
