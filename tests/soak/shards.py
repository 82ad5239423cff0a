"""Tars and indexes of which some bytes are changed, and the checksums of headers mended; part of `hostile.py`."""

import collections
import io
import tarfile
from pathlib import Path

import numpy as np
import soundfile

from ssl_audio.data.index import INDEX_NAME, open_shards
from ssl_audio.data.remarks import Remarks
from ssl_audio.data.tars import clips_of
from ssl_audio.errors import ShardError

_BLOCK = 512
_TELLING = (0, 255, 0x80, *b"LSxg1257")


def soak_tars(count: int, folder: Path) -> collections.Counter[bool]:
    """How many of so many tars with changed bytes, most of them in headers, were accepted, and how many refused."""
    rng, outcomes = np.random.default_rng(0), collections.Counter[bool]()
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
            outcomes[True] += 1
        except ShardError as error:
            _check_line(error)
            outcomes[False] += 1
    return outcomes


def soak_indexes(count: int, folder: Path) -> collections.Counter[bool]:
    """Indexes with changed bytes: whatever they held, the clips are in the tar, and there are as many."""
    rng, outcomes = np.random.default_rng(1), collections.Counter[bool]()
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
        outcomes[stored.read_bytes() == bad] += 1
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
