"""Soak: every method of continual learning with every encoder, frontend, pattern, layout, merging and positions.

    OMP_NUM_THREADS=1 .venv/bin/python tests/soak/methods.py [--axes encoder merging]

Each learns two tasks on a minute model, is read back and answers for both tasks, or is refused by an error of ours.
Anything else ends this with 1. Prints what broke, what was refused, and the counts.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]
from product import learning, trial  # noqa: E402
from product.parts import every_part  # noqa: E402

from ssl_audio.errors import SslAudioError  # noqa: E402
from ssl_audio.model import patterns  # noqa: E402

NOT_EXCHANGED = ("adapters", "second", "objective", "task", "use")
"""What the methods choose themselves, and what is no part of a task that is learnt."""


def main() -> None:
    torch.set_num_threads(1)
    patterns.FEWEST_PATCHES = 0  # minute clips take the way of long ones
    parts = every_part()
    axes = [axis for axis in parts if axis not in NOT_EXCHANGED]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--axes", nargs="*", default=axes, choices=axes, help="parts of these axes alone")
    options = parser.parse_args()
    begin, plain, count, broken, refused = time.process_time(), trial.base(parts), 0, 0, 0
    with trial.workplace() as files:
        for method in learning.methods():
            for part in (one for axis in options.axes for one in parts[axis]):
                count, said = count + 1, f"{type(method).__name__} with {part.axis} {part.name}"
                try:
                    learning.attempt(method, {**plain, part.axis: part}, learning.adapters_in(parts), files)
                except SslAudioError as error:
                    refused += 1
                    print(f"refused: {said}: {error}")
                except Exception as error:
                    broken += 1
                    print(f"BROKEN: {said}: {type(error).__name__}: {error}")
    print(f"{count} pairs: {count - refused - broken} work, {refused} are refused, {broken} broke; "
          f"{time.process_time() - begin:.0f} CPU s")  # fmt: skip
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
