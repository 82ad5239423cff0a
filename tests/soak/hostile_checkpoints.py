"""Soak: checkpoints that somebody tampered with, ours and published ones.

    OMP_NUM_THREADS=1 .venv/bin/python tests/soak/hostile_checkpoints.py [--checkpoints 2000]

Each opens and embeds, or is refused in one line; nothing else is opened, started or removed, and no more than half a
gigabyte is asked for.
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

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "checkpoints")]
import hostile  # noqa: E402
import test_hostile  # noqa: E402


def soak_checkpoints(count: int, folder: Path) -> collections.Counter[str]:
    """How many of so many checkpoints opened, and how many were refused in one line."""
    outcomes = collections.Counter[str]()
    path = folder / "x.ckpt"
    torch.save(hostile.content(), path)
    whole = path.read_bytes()
    states = [torch.load(golden, weights_only=True)["state_dict"] for golden in (TESTS / "golden").glob("*_mini.pt")]

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        kind = data.draw(st.integers(0, 4))
        if kind == 0:
            path.write_bytes(data.draw(hostile.broken(whole)))
        elif kind == 1:
            torch.save(data.draw(hostile.published(states)), path)
        else:
            try:
                torch.save(data.draw(hostile.tampered(folder / "outside")), path)
            except RecursionError:  # what is too deep to write cannot be read either
                return
        line = test_hostile.opens(path, heads=4 if kind == 1 else None)
        outcomes["refused" if line else "opened"] += 1

    run()
    return outcomes


def main() -> None:
    """Draw, open, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", type=int, default=2000)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        print(f"checkpoints: {dict(soak_checkpoints(chosen.checkpoints, Path(name)))}")


if __name__ == "__main__":
    main()
