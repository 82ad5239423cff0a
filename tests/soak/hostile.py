"""Soak: thousands of files that are not what they claim, drawn over the schemas that they are read by.

    OMP_NUM_THREADS=1 .venv/bin/python tests/soak/hostile.py [--manifests 1000] [--checkpoints 2000] [--tars 3000]

Each is read as a user's would be: what can be is accepted, all else must be one line. Of tars and indexes bytes change.
"""

import argparse
import collections
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "checkpoints")]
import hostile  # noqa: E402
import manifests  # noqa: E402
import test_hostile  # noqa: E402

import shards  # noqa: E402


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


def soak_checkpoints(count: int) -> collections.Counter[bool]:
    """How many of so many checkpoints opened, and how many were refused in one line."""
    outcomes: collections.Counter[bool] = collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name) / "x.ckpt"
        torch.save(hostile.content(), folder / "whole.ckpt")
        whole = (folder / "whole.ckpt").read_bytes()

        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(data=st.data())
        def run(data: st.DataObject) -> None:
            if data.draw(st.integers(0, 3)) == 0:
                path.write_bytes(data.draw(hostile.broken(whole)))
            else:
                try:
                    torch.save(data.draw(hostile.tampered(folder / "outside")), path)
                except RecursionError:  # what is too deep to write cannot be read either
                    return
            outcomes[test_hostile.opens(path) is None] += 1

        run()
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifests", type=int, default=1000)
    parser.add_argument("--checkpoints", type=int, default=2000)
    parser.add_argument("--tars", type=int, default=3000)
    parser.add_argument("--indexes", type=int, default=1000)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    for what, outcomes in (
        ("manifests", soak_manifests(chosen.manifests)),
        ("checkpoints", soak_checkpoints(chosen.checkpoints)),
    ):
        print(f"{what}: {outcomes[False]} refused in one line, {outcomes[True]} that can be were accepted", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        tars = shards.soak_tars(chosen.tars, Path(folder))
        print(f"tars: {tars[False]} refused in one line, {tars[True]} that can be were accepted", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        indexes = shards.soak_indexes(chosen.indexes, Path(folder))
        print(f"indexes: {indexes[False]} made anew, {indexes[True]} that can be were taken", flush=True)


if __name__ == "__main__":
    main()
