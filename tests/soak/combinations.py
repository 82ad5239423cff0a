"""Soak: every pair of parts on a minute model.

    OMP_NUM_THREADS=1 .venv/bin/python tests/soak/combinations.py [--axes layout objective] [--out FILE.md]

Parts are found: classes of the known bases, variants that recipes have, choices of heads. A pair takes one step of
training, is saved, read back and asked, and keeps clips apart; or it is refused by an error of ours. Anything else ends
this with 1, and so does a refusal that does not name both parts and say what to do. Prints all these, and the counts.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]
from product import covering, page, trial  # noqa: E402
from product.matrix import Matrix  # noqa: E402
from product.parts import AXES, every_part  # noqa: E402

from ssl_audio.model import patterns  # noqa: E402


def main() -> None:
    torch.set_num_threads(1)
    patterns.FEWEST_PATCHES = 0  # minute clips take the way of long ones
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--axes", nargs="*", default=[], choices=list(AXES), help="pairs of these axes alone")
    parser.add_argument("--out", type=Path, help="write tables, in Markdown, and tests/product/rows.json")
    options = parser.parse_args()
    begin = time.process_time()
    parts = every_part()
    with trial.workplace() as files:
        matrix = Matrix(parts, files)
        found = page.run(matrix, *options.axes)
        spent = time.process_time() - begin
        if options.out is not None:
            covering.write(matrix, found)
    broken = [one for one in found if one.outcome.broken]
    for one in broken:
        print(f"BROKEN: {one.one.axis} {one.one.name} with {one.other.axis} {one.other.name}: {one.outcome.broken}")
    unclear = [one for one in found if not one.outcome.works and not one.outcome.broken and one.lacks]
    for one in unclear:
        print(f"UNCLEAR, lacks {one.lacks}: {one.one.name} with {one.other.name}: {one.line}")
    works = sum(one.outcome.works for one in found)
    print(
        f"{len(found)} pairs: {works} work, {len(found) - works - len(broken)} are refused, {len(broken)} broke; "
        f"{matrix.tried} models in {spent:.0f} CPU s"
    )
    if options.out is not None:
        before = options.out.read_text() if options.out.exists() else ""
        options.out.write_text(page.with_triples(page.text(found, parts) + "\n", before))
    sys.exit(bool(broken or unclear))


if __name__ == "__main__":
    main()
