"""Soak: thousands of files that are not what they claim.

    OMP_NUM_THREADS=1 .venv/bin/python tests/soak/hostile.py [--manifests 1000] [--tars 3000] [--indexes 1000]

Manifests are drawn over the schema that they are read by; of tars and indexes some bytes are changed, and the checksums
of headers mended. Each is read as a user's would be: what can be is accepted, all else must be one line.
"""

import argparse
import collections
import io
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from hypothesis import HealthCheck, given, settings

from ssl_audio.data.index import INDEX_NAME, open_shards
from ssl_audio.data.remarks import Remarks
from ssl_audio.data.tars import clips_of
from ssl_audio.errors import ShardError

sys.path.insert(0, str(Path(__file__).parents[1]))
import manifests

_BLOCK = 512
_TELLING = (0, 255, 0x80, *b"LSxg1257")


def soak_manifests(count: int, folder: Path) -> collections.Counter[str]:
    """How many of so many manifests were accepted, and how many refused in one line."""
    outcomes: collections.Counter[str] = collections.Counter()

    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(manifests.hostile())
    def run(text: bytes) -> None:
        outcomes["accepted" if manifests.check(folder, text) else "refused"] += 1

    run()
    return outcomes


def soak_tars(count: int, folder: Path) -> collections.Counter[str]:
    """The same of tars with changed bytes, most of them in headers."""
    rng, outcomes = np.random.default_rng(0), collections.Counter[str]()
    good = [_tar(tarfile.PAX_FORMAT), _tar(tarfile.GNU_FORMAT)]
    path = folder / "a.tar"
    for number in range(count):
        bad = bytearray(good[number % 2])
        for _ in range(rng.integers(1, 4)):
            place = int(rng.integers(len(bad)))
            if rng.random() < 0.7:
                place = place // _BLOCK * _BLOCK + int(rng.integers(_BLOCK))
            bad[place] = int(rng.choice([*_TELLING, rng.integers(256)]))
            if rng.random() < 0.8:
                _mend(bad, place // _BLOCK * _BLOCK)
        path.write_bytes(bad)
        try:
            rows = list(clips_of(path, Remarks()))
            assert all(row.clip.duration is not None and row.clip.duration >= 0 for row in rows)
            outcomes["accepted"] += 1
        except ShardError as error:
            _check_line(error)
            outcomes["refused"] += 1
    return outcomes


def soak_indexes(count: int, folder: Path) -> collections.Counter[str]:
    """Indexes with changed bytes: whatever they held, the clips are in the tar, and there are as many."""
    rng, outcomes = np.random.default_rng(1), collections.Counter[str]()
    tar, stored = folder / "a.tar", folder / INDEX_NAME
    tar.write_bytes(_tar(tarfile.PAX_FORMAT))
    open_shards([folder])
    good = stored.read_bytes()
    for _ in range(count):
        bad = bytearray(good)
        for place in rng.integers(0, len(bad), size=rng.integers(1, 6)):
            bad[place] = rng.integers(0, 256)
        stored.write_bytes(bad)
        index = open_shards([folder])
        assert len(index) == 4
        assert [len(index.audio_bytes(clip)) for clip in range(4)] == index.audio[:, 1].tolist()
        assert np.isfinite(index.seconds).all()
        outcomes["accepted" if stored.read_bytes() == bad else "made anew"] += 1
    return outcomes


def _tar(kind: int) -> bytes:
    sound, content = io.BytesIO(), io.BytesIO()
    soundfile.write(sound, np.full(1600, 0.1, dtype=np.float32), 16000, format="FLAC")
    with tarfile.open(fileobj=content, mode="w", format=kind) as archive:
        for name in ("ü" * 60, "a", "b.c", "d"):
            for ending, data in (("flac", sound.getvalue()), ("json", b'{"label": ["a", "b"], "duration": 0.1}')):
                header = tarfile.TarInfo(f"{name}.{ending}")
                header.size = len(data)
                archive.addfile(header, io.BytesIO(data))
    return content.getvalue()


def _mend(tar: bytearray, at: int) -> None:
    """Make the checksum of a header right again."""
    tar[at + 148 : at + 156] = b" " * 8
    tar[at + 148 : at + 156] = b"%06o\0 " % sum(tar[at : at + _BLOCK])


def _check_line(error: ShardError) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifests", type=int, default=1000)
    parser.add_argument("--tars", type=int, default=3000)
    parser.add_argument("--indexes", type=int, default=1000)
    chosen = parser.parse_args()
    soaks = (("manifests", soak_manifests), ("tars", soak_tars), ("indexes", soak_indexes))
    for name, soak in soaks:
        with tempfile.TemporaryDirectory() as folder:
            outcomes = soak(getattr(chosen, name), Path(folder))
        print(f"{name}: {', '.join(f'{count} {what}' for what, count in sorted(outcomes.items()))}")


if __name__ == "__main__":
    main()
