"""An index beside shards is a cache: one that cannot be of these tars is rebuilt, whatever stands in it."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import webdataset

from ssl_audio.data.index import INDEX_NAME, open_shards

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> tuple[Path, bytes]:
    """A tar of three clips, and the index that belongs beside it."""
    folder = tmp_path_factory.mktemp("shards")
    with webdataset.TarWriter(str(folder / "a.tar")) as writer:
        for number in range(3):
            file = io.BytesIO()
            soundfile.write(file, np.full(1600, 0.1, dtype=np.float32), 16000, format="FLAC")
            described = {"label": ["a", "b"][: number % 3], "split": "train"}
            writer.write({"__key__": f"käy{number}", "flac": file.getvalue(), "json": described})
    open_shards([folder])
    return folder, (folder / INDEX_NAME).read_bytes()


def put(name: str, value: object) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[name] = np.asarray(value)

    return change


def edit(name: str, change: Callable[[np.ndarray], object]) -> Callable[[Arrays], None]:
    def use(arrays: Arrays) -> None:
        arrays[name] = np.asarray(change(arrays[name].copy()))

    return use


def at(name: str, place: object, value: float) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name][place] = value

    return change


def words(**changes: object) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        found = json.loads(arrays["words"].tobytes()) | changes
        text = json.dumps({name: value for name, value in found.items() if value != "away"})
        arrays["words"] = np.frombuffer(text.encode(), dtype=np.uint8)

    return change


CHANGES = {
    "objects for seconds": put("seconds", np.array([{}, {}, {}], dtype=object)),
    "objects for words": put("words", np.array([{}, {}], dtype=object)),
    "doubles": edit("seconds", lambda a: a.astype(np.float64)),
    "other bytes": edit("seconds", lambda a: a.astype(">f4")),
    "a structure": put("shard", np.zeros(3, dtype=[("a", "<i4")])),
    "one row": edit("audio", lambda a: a[:1]),
    "one column": edit("audio", lambda a: a[:, 0]),
    "three columns": put("meta", np.zeros((3, 3), dtype=np.int64)),
    "a number": put("shard", np.int32(0)),
    "no clips": put("shard", np.zeros(0, dtype=np.int32)),
    "another tar": at("shard", 1, 7),
    "a tar before the first": at("shard", 1, -1),
    "audio beyond the end": at("audio", (0, 0), 10**9),
    "audio before the start": at("audio", (0, 0), -512),
    "audio too long": at("audio", (2, 1), 2**63 - 1),
    "audio of negative size": at("audio", (0, 1), -1),
    "a description too long": at("meta", (2, 1), 2**63 - 1),
    "seconds that are NaN": at("seconds", 0, np.nan),
    "endless seconds": at("seconds", 0, np.inf),
    "negative seconds": at("seconds", 0, -1),
    "centuries": at("seconds", 0, 2.7e9),
    "another split": at("split", 0, 5),
    "a split before none": at("split", 0, -2),
    "falling key ends": at("key_ends", 0, 12),
    "keys beyond their letters": at("key_ends", 2, 10**6),
    "negative key ends": at("key_ends", 0, -3),
    "labels beyond their table": at("label_codes", 0, 9),
    "falling label ends": at("label_ends", 0, 3),
    "labels that are missing": edit("label_codes", lambda a: a[:-1]),
    "an array more": put("more", np.zeros(3)),
    "an array less": lambda arrays: arrays.pop("split"),
    "tars that are no list": words(tars="a.tar"),
    "sizes that are no numbers": words(tar_bytes=["10240"]),
    "splits that are no names": words(splits=[["train"]]),
    "labels that are no pairs": words(labels=[["label"], ["label", "b"]]),
    "labels that are no names": words(labels=[["label", 1], ["label", "b"]]),
    "remarks that are no lines": words(remarks=[1]),
    "nobody looked": words(remarks="away"),
    "another format": words(format=1),
    "unknown words": words(more=1),
    "words that are no JSON": put("words", np.frombuffer(b"[" * 100000, dtype=np.uint8)),
}


def rebuilt(shards: tuple[Path, bytes], content: bytes) -> None:
    """Whatever the index held, the clips are those of the tar, and the index is as it was."""
    folder, good = shards
    (folder / INDEX_NAME).write_bytes(content)
    index = open_shards([folder])
    assert [index.key[clip] for clip in range(len(index))] == ["käy0", "käy1", "käy2"]
    assert index.seconds.tolist() == [np.float32(0.1)] * 3
    assert [index.describe(clip).labels.get("label", []) for clip in range(3)] == [[], ["a"], ["a", "b"]]
    assert all(index.audio_bytes(clip).startswith(b"fLaC") for clip in range(3))
    assert (folder / INDEX_NAME).read_bytes() == good
    pickle.loads(pickle.dumps(index))


@pytest.mark.parametrize("name", CHANGES)
def test_an_index_that_cannot_be_is_made_anew(shards, name):
    with np.load(io.BytesIO(shards[1])) as stored:
        arrays = dict(stored)
    CHANGES[name](arrays)
    file = io.BytesIO()
    np.savez(file, **arrays)
    assert file.getvalue() != shards[1]
    rebuilt(shards, file.getvalue())


def test_a_file_that_is_no_index_is_made_anew(shards):
    good = shards[1]
    compressed, twice = io.BytesIO(), io.BytesIO(good)
    with np.load(io.BytesIO(good)) as stored:
        np.savez_compressed(compressed, **stored)
    with zipfile.ZipFile(twice, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("seconds.npy", b"\x93NUMPY")
    contents = [b"", b"PK", good[:-30], good[: len(good) // 2], bytes(len(good)), compressed.getvalue()]
    for content in (*contents, twice.getvalue()):
        rebuilt(shards, content)


def test_flipped_bytes_never_lead_beyond_the_tar(shards):
    """Whatever is accepted points into the tar and has the right types; all else is rebuilt."""
    folder, good = shards
    rng = np.random.default_rng(0)
    for _ in range(60):
        bad = bytearray(good)
        for place in rng.integers(0, len(bad), size=rng.integers(1, 4)):
            bad[place] = rng.integers(0, 256)
        (folder / INDEX_NAME).write_bytes(bad)
        index = open_shards([folder])
        size = (folder / "a.tar").stat().st_size
        assert ((index.audio >= 0) & (index.audio <= size)).all()
        assert len(index) == 3
        assert np.isfinite(index.seconds).all()
        assert all(isinstance(index.key[clip], str) for clip in range(3))
        assert [len(index.audio_bytes(clip)) for clip in range(3)] == index.audio[:, 1].tolist()
        assert len(index.split) == 3
        (folder / INDEX_NAME).unlink()


def test_nothing_is_written_where_a_link_leads_and_no_device_is_read(shards, tmp_path):
    folder, good = shards
    index, victim = folder / INDEX_NAME, tmp_path / "victim"
    victim.write_text("mine")
    for target in (victim, Path("/dev/zero"), tmp_path / "missing"):
        index.unlink(missing_ok=True)
        index.symlink_to(target)
        assert len(open_shards([folder])) == 3
    assert victim.read_text() == "mine"
    assert not (tmp_path / "missing").exists()
    index.unlink()
    os.mkfifo(index)
    assert len(open_shards([folder])) == 3
    index.unlink(missing_ok=True)
    index.write_bytes(good)
