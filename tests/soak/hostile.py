"""Soak: thousands of files that are not what they claim, drawn over the schemas that they are read by.

    OMP_NUM_THREADS=1 .venv/bin/python tests/soak/hostile.py [--manifests 1000] [--tars 3000] [--indexes 1000]

Each is read as a user's would be: what can be is accepted, all else must be one line. Of tars and indexes bytes change.
"""

import argparse
import collections
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings

sys.path.insert(0, str(Path(__file__).parents[1]))
import manifests

import shards


def soak_manifests(count: int) -> collections.Counter[bool]:
    """How many of so many manifests were accepted, and how many refused in one line."""
    outcomes: collections.Counter[bool] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:

        @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(manifests.hostile())
        def run(text: bytes) -> None:
            outcomes[manifests.check(Path(folder), text)] += 1

        run()
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifests", type=int, default=1000)
    parser.add_argument("--tars", type=int, default=3000)
    parser.add_argument("--indexes", type=int, default=1000)
    chosen = parser.parse_args()
    found = soak_manifests(chosen.manifests)
    print(f"manifests: {found[False]} refused in one line, {found[True]} that can be were accepted", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        tars = shards.soak_tars(chosen.tars, Path(folder))
        print(f"tars: {tars[False]} refused in one line, {tars[True]} that can be were accepted", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        indexes = shards.soak_indexes(chosen.indexes, Path(folder))
        print(f"indexes: {indexes[False]} rebuilt, {indexes[True]} that can be were taken", flush=True)


if __name__ == "__main__":
    main()
