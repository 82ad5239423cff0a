"""Tamper with checkpoints many times: each opens, or is refused in one line, and nothing else happens.

python tests/soak/hostile.py --examples 2000
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "checkpoints")]

from hostile import broken, content, tampered  # noqa: E402
from test_hostile import opens  # noqa: E402


def main() -> None:
    """Draw, open, count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    begun, outcomes = time.monotonic(), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name) / "x.ckpt"
        torch.save(content(), folder / "whole.ckpt")
        whole = (folder / "whole.ckpt").read_bytes()

        @seed(chosen.seed)
        @settings(
            max_examples=chosen.examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(data=st.data())
        def draw(data: st.DataObject) -> None:
            if data.draw(st.integers(0, 3)) == 0:
                path.write_bytes(data.draw(broken(whole)))
            else:
                try:
                    torch.save(data.draw(tampered(folder / "outside")), path)
                except RecursionError:  # what is too deep to write cannot be read either
                    return
            outcomes["refused" if opens(path) else "opened"] += 1

        draw()
    print(f"{sum(outcomes.values())} checkpoints in {time.monotonic() - begun:.0f} s: {dict(outcomes)}")


if __name__ == "__main__":
    main()
