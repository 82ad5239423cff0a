"""Kill runs at random moments until so many kills are done, and compare each with a run that was left alone.

    python tests/soak/kills.py --kills 100

Runs take turns through pretraining and fine-tuning, both encoders, one and
two ranks, one and two threads, and none to four workers. Each is killed up to six times, then
left to end. Losses, weights and optimizer states must be equal to the bit.
"""

import argparse
import itertools
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from killing import WORDS, Launched, outcome, same

_MOST = 6


def main() -> None:
    """Run until the kills or the time are spent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", nargs="+", default=list(WORDS), choices=list(WORDS))
    chosen = parser.parse_args()
    draws, started, kills, runs = random.Random(chosen.seed), time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        shards = write_demo(root)
        alone: dict[tuple[str, str, int, int], tuple[Path, float]] = {}
        cells = list(itertools.product(chosen.verbs, ("transformer", "bimamba"), (1, 2), (1, 2), range(5)))
        draws.shuffle(cells)
        while kills < chosen.kills and time.monotonic() - started < chosen.seconds:
            verb, encoder, ranks, threads, workers = cells[runs % len(cells)]
            if (verb, encoder, ranks, threads) not in alone:
                alone[verb, encoder, ranks, threads] = _whole(root, shards, verb, encoder, ranks, threads)
            expected, usual = alone[verb, encoder, ranks, threads]
            folder = root / f"run{runs}"
            call = WORDS[verb](shards, encoder, f"--data.workers={workers}", "--name=run", steps=24, ranks=ranks)
            here = 0
            while here < _MOST:
                launched = Launched(call, folder, ranks=ranks, threads=threads)
                for process in launched.processes:
                    process.join(draws.uniform(0.1, 1.1) * usual / ranks)
                if not any(process.is_alive() for process in launched.processes):
                    break
                launched.kill()
                here += 1
            if here == _MOST:
                launched = Launched(call, folder, ranks=ranks, threads=threads)
            codes = launched.wait(300.0)
            kills, runs = kills + here, runs + 1
            found = outcome(folder / f"runs/{verb}/run/0") if codes == [0] * ranks else None
            right = found is not None and same(found, outcome(expected))
            print(
                f"{kills} kills  {verb}, {encoder}, {workers} workers, {ranks} ranks, {threads} threads: "
                f"{'equal' if right else 'DIFFERENT'}",
                flush=True,
            )
            if not right:
                print(codes, launched.log.read_text()[-3000:])
                raise SystemExit(1)
    print(
        f"{kills} kills of {runs} runs in {time.monotonic() - started:.0f} s, {min(runs, len(cells))} of {len(cells)} "
        "combinations of verb, encoder, ranks, threads and workers: every run equal to the bit"
    )


def write_demo(root: Path) -> Path:
    """Shards of the small demo corpus."""
    from ssl_audio.data.corpora import Demo
    from ssl_audio.data.writing import write_shards

    write_shards(Demo("small"), root / "demo", name="demo", shard_clips=64)
    return root / "demo"


def _whole(root: Path, shards: Path, verb: str, encoder: str, ranks: int, threads: int) -> tuple[Path, float]:
    started, folder = time.monotonic(), root / f"{verb}-{encoder}-{ranks}-{threads}"
    call = WORDS[verb](shards, encoder, "--name=run", steps=24, ranks=ranks)
    launched = Launched(call, folder, ranks=ranks, threads=threads)
    if launched.wait(300.0) != [0] * ranks:
        raise SystemExit(launched.log.read_text()[-3000:])
    return folder / f"runs/{verb}/run/0", time.monotonic() - started


if __name__ == "__main__":
    main()
