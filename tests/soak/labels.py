"""What the data of a fine-tuning cost at their start: seconds and memory of a fresh process, at two million clips.

    .venv/bin/python tests/soak/labels.py [--clips 2000000] [--rounds 5] [--protocol split] [--aside]

The index is synthetic: 527 labels, 2.7 a clip, 5,000 speakers, 5 folds, events in every tenth clip; there is no audio.
Each round is a process of its own, and the least of the rounds is given. Memory is the most that the process had
resident, the pages of the mapped index included; beside it is what it had after its imports.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

_LABELS = 527
_SPEAKERS = 5000


def synthetic(clips: int, shards: int = 2000) -> "Columns":
    """The index of a labelled set that does not exist; its tars are sparse files."""
    rng = np.random.default_rng(0)
    counts = rng.choice([1, 2, 3, 4, 5, 8], clips, p=[0.25, 0.3, 0.2, 0.12, 0.08, 0.05])
    ends = np.cumsum(counts)
    # Like AudioSet's: the commonest label is in half of the clips, the rarest in a few hundred.
    shares = 1.0 / np.arange(1, _LABELS + 1)
    events = np.where(np.arange(clips) % 10 == 0, 4, 0)
    onset = rng.uniform(0, 8, events.sum())
    within = np.arange(clips) % (clips // shards)
    places = np.stack([within * 200_000, np.full(clips, 190_000)], axis=1)
    keys = np.char.zfill(np.arange(clips).astype("S"), 11)
    names = Strings.of(f"label {number:03d}" for number in range(_LABELS))
    return Columns(
        tars=tuple(f"shard-{number:06d}.tar" for number in range(shards)),
        tar_bytes=(clips // shards * 200_000,) * shards,
        kinds=(("event", _LABELS),),
        names=names,
        splits=Strings.of(["test", "train", "valid"]),
        speakers=Strings.of(f"speaker {number:05d}" for number in range(_SPEAKERS)),
        files=Strings.of([]),
        event_names=names,
        keys=Strings(letters=np.frombuffer(keys.tobytes(), dtype=np.uint8), ends=np.arange(1, clips + 1) * 11),
        shard=(np.arange(clips) * shards // clips).astype(np.int32),
        audio=places,
        meta=places,
        seconds=np.full(clips, 10.0, dtype=np.float32),
        split=rng.choice(3, clips, p=[0.01, 0.98, 0.01]).astype(np.int16),
        fold=np.arange(clips) % 5 + 1,
        speaker=rng.integers(0, _SPEAKERS, clips).astype(np.int32),
        file=np.full(clips, -1, dtype=np.int32),
        label_codes=rng.choice(_LABELS, ends[-1], p=shares / shares.sum()).astype(np.int32),
        label_ends=ends,
        event_codes=rng.integers(0, _LABELS, events.sum()).astype(np.int32),
        event_ends=np.cumsum(events),
        onset=onset,
        offset=onset + 1.5,
        remarks=(),
    )


def resident() -> float:
    """The most MB that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def start(folder: Path, protocol: str, aside: bool) -> dict[str, float]:
    """Open the shards, share them out, and answer the first requests."""
    from ssl_audio.data.labelled import LabelledShards
    from ssl_audio.data.order import Order
    from ssl_audio.data.streams import Shuffled

    found = {"MB after imports": resident()}
    started = time.perf_counter()
    data = LabelledShards(
        shards=[folder],
        target="event",
        several=True,
        protocol=protocol,
        validation_split=None if aside else "valid",
    )
    parts = data.parts
    found["seconds to the parts"] = time.perf_counter() - started
    order = Order(Shuffled(parts.train.index.shard, seed=0), 32)
    for place in range(0, 320, 32):
        rows = np.array([request.clip for request in order.batch(place)])
        targets = parts.train.packed.rows(rows)
        assert targets.shape == (32, _LABELS)
        assert all(parts.train.index.where(int(row)) for row in rows)
    found["seconds to ten batches"] = time.perf_counter() - started
    return found | {"MB at most": resident()}


def main() -> None:
    """Measure, and print one line a number."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--protocol", choices=["split", "fold", "random"], default="split")
    parser.add_argument("--aside", action="store_true", help="Validation clips are set aside instead of a split.")
    parser.add_argument("--folder", type=Path, help="Of a round: the shards.")
    chosen = parser.parse_args()
    if chosen.folder is not None:
        print(json.dumps(start(chosen.folder, chosen.protocol, chosen.aside)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        columns = synthetic(chosen.clips)
        for name, size in zip(columns.tars, columns.tar_bytes, strict=True):
            with (folder / name).open("wb") as tar:
                tar.truncate(size)
        save_columns(columns, folder / INDEX_NAME)
        print(f"index: {(folder / INDEX_NAME).stat().st_size / 1e6:.0f} MB of {len(columns)} clips")
        rounds = []
        for _ in range(chosen.rounds):
            words = [sys.executable, __file__, "--folder", str(folder), "--protocol", chosen.protocol]
            words += ["--aside"] * chosen.aside
            started = time.perf_counter()
            answer = subprocess.run(words, check=True, capture_output=True, text=True)
            rounds.append(json.loads(answer.stdout) | {"seconds of the process": time.perf_counter() - started})
        for name in rounds[0]:
            print(f"{name}: {min(one[name] for one in rounds):.2f}")


if __name__ == "__main__":
    from ssl_audio.data.columns import Columns, save_columns
    from ssl_audio.data.index import INDEX_NAME
    from ssl_audio.data.strings import Strings

    main()
