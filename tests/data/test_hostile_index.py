"""An index beside shards is a cache: one that cannot be of these tars is rebuilt, whatever stands in it."""

import dataclasses
import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import webdataset

from ssl_audio.data import columns as stored
from ssl_audio.data.arrow import Field, read_arrow, write_arrow
from ssl_audio.data.index import INDEX_NAME, open_shards
from ssl_audio.data.strings import Strings

Changed = tuple[dict[str, Any], dict[str, Any]]
"""Values and metadata of an index."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> tuple[Path, bytes]:
    """A tar of three clips, and the index that belongs beside it."""
    folder = tmp_path_factory.mktemp("shards")
    with webdataset.TarWriter(str(folder / "a.tar")) as writer:
        for number in range(3):
            file = io.BytesIO()
            soundfile.write(file, np.full(1600, 0.1, dtype=np.float32), 16000, format="FLAC")
            mood = {"mood": {"calm": 0.5}} if number == 1 else {}
            events = [{"label": "bell", "onset": 0.01, "offset": 0.08}] if number == 1 else []
            described = {"labels": {"label": ["a", "b"][: number % 3]} | mood, "split": "train", "events": events}
            described |= {"source": "x.wav", "speaker": "anna"} if number < 2 else {}
            writer.write({"__key__": f"käy{number}", "flac": file.getvalue(), "json": described})
    open_shards([folder])
    return folder, (folder / INDEX_NAME).read_bytes()


def put(name: str, value: object) -> Callable[[Changed], None]:
    def change(found: Changed) -> None:
        found[0][name] = value

    return change


def at(name: str, place: object, value: float) -> Callable[[Changed], None]:
    def change(found: Changed) -> None:
        found[0][name] = found[0][name].copy()
        found[0][name][place] = value

    return change


def ends(name: str, place: int, value: int) -> Callable[[Changed], None]:
    def change(found: Changed) -> None:
        words = found[0][name]
        changed = words.ends.copy()
        changed[place] = value
        found[0][name] = Strings(letters=words.letters, ends=changed)

    return change


def words(**changes: object) -> Callable[[Changed], None]:
    def change(found: Changed) -> None:
        for name, value in changes.items():
            if value == "away":
                del found[1][name]
            else:
                found[1][name] = value

    return change


CHANGES = {
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
    "another speaker": at("speaker", 0, 1),
    "another file": at("file", 1, 1),
    "falling key ends": ends("key", 0, 12),
    "negative key ends": ends("key", 0, -3),
    "labels beyond their table": at("labels.label", 0, 9),
    "labels before their table": at("labels.label", 0, -1),
    "falling label ends": at("labels", 0, 3),
    "weights above 1": at("labels.weight", 0, 1.5),
    "weights that are NaN": at("labels.weight", 0, np.nan),
    "other events": at("events.label", 0, 3),
    "falling event ends": at("events", 1, 2),
    "events that end before they start": at("events.onset", 0, 0.09),
    "events that are NaN": at("events.offset", 0, np.nan),
    "events before the start": at("events.onset", 0, -0.1),
    "endless events": at("events.offset", 0, np.inf),
    "tars that are no list": words(tars="a.tar"),
    "sizes that are no numbers": words(tar_bytes=["10240"]),
    "kinds that are no pairs": words(kinds=[["label"], ["mood", 1]]),
    "kinds that are no names": words(kinds=[[1, 2], ["mood", 1]]),
    "kinds without a number": words(kinds=[["label", "2"], ["mood", 1]]),
    "kinds with too many labels": words(kinds=[["label", 7], ["mood", 1]]),
    "kinds that take away": words(kinds=[["label", 4], ["mood", -1]]),
    "remarks that are no lines": words(remarks=[1]),
    "nobody looked": words(remarks="away"),
    "another format": words(format=1),
    "unknown words": words(more=1),
    "words that are missing": words(kinds="away"),
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


@pytest.fixture(scope="module")
def contents(shards, tmp_path_factory) -> Changed:
    path = tmp_path_factory.mktemp("copy") / INDEX_NAME
    path.write_bytes(shards[1])
    return read_arrow(path, stored._FIELDS)


def written(path: Path, contents: Changed, fields: Any = stored._FIELDS) -> bytes:
    write_arrow(path, fields, *contents)
    return path.read_bytes()


@pytest.mark.parametrize("name", CHANGES)
def test_an_index_that_cannot_be_is_made_anew(shards, contents, name, tmp_path):
    changed = dict(contents[0]), dict(contents[1])
    assert written(tmp_path / "x", changed) == shards[1]
    CHANGES[name](changed)
    found = written(tmp_path / "x", changed)
    assert found != shards[1]
    rebuilt(shards, found)


def test_an_index_of_other_columns_is_made_anew(shards, contents, tmp_path):
    values, metadata = contents
    fields = {field.name: field for field in stored._FIELDS}

    def other(**changed: Any) -> bytes:
        return written(tmp_path / "x", (values, metadata), list((fields | changed).values()))

    replace = dataclasses.replace
    assert other() == shards[1]
    for content in (
        other(seconds=replace(fields["seconds"], dtype="<f8")),
        other(fold=replace(fields["fold"], dtype="<u8", none=None)),
        other(shard=replace(fields["shard"], dtype="<i8")),
        other(split=replace(fields["split"], words=False)),
        other(speaker=replace(fields["speaker"], dtype="<i2")),
        other(labels=replace(fields["labels"], fields=fields["labels"].fields[::-1])),
        other(events=replace(fields["events"], fields=fields["events"].fields[:2])),
        written(tmp_path / "x", (values, metadata), stored._FIELDS[:-1]),
        written(tmp_path / "x", (values, metadata), stored._FIELDS[::-1]),
        written(
            tmp_path / "x",
            (values | {"more": values["shard"]}, metadata),
            [*stored._FIELDS, Field(name="more", dtype="<i4")],
        ),
        written(
            tmp_path / "x",
            (values | {"audio": np.zeros((3, 3), np.int64)}, metadata),
            [*stored._FIELDS[:2], replace(fields["audio"], each=3), *stored._FIELDS[3:]],
        ),
    ):
        rebuilt(shards, content)


def test_a_file_that_is_no_index_is_made_anew(shards, tmp_path):
    good = shards[1]
    table = pa.ipc.open_file(good).read_all()

    def saved(table: pa.Table, batches: int = 1, **options: Any) -> bytes:
        with pa.ipc.new_file(tmp_path / "x", table.schema, options=pa.ipc.IpcWriteOptions(**options)) as file:
            for start in range(batches):
                file.write_table(table.slice(start * 3 // batches, 3 // batches))
        return (tmp_path / "x").read_bytes()

    assert saved(table) == good
    labels, keys = (0, 0, 2, 4), (0, 5, 10, 15)
    assert all(good.count(struct.pack("<4q", *offsets)) == 1 for offsets in (labels, keys))

    def instead(offsets: tuple[int, ...], *others: int) -> bytes:
        return good.replace(struct.pack("<4q", *offsets), struct.pack("<4q", *others))

    for content in (
        b"",
        b"PK",
        b"ARROW1",
        good[:-30],
        good[: len(good) // 2],
        good[:-1],
        bytes(len(good)),
        good[:8] + good[-8:],
        saved(table, compression="lz4"),
        saved(table, compression="zstd"),
        saved(table, batches=3),
        saved(table, metadata_version=pa.ipc.MetadataVersion.V4),
        saved(table.replace_schema_metadata({})),
        saved(table.replace_schema_metadata({"ssl_audio": "[" * 100_000})),
        saved(table.replace_schema_metadata({"ssl_audio": "[]"})),
        saved(table.slice(0, 0), batches=0),
        instead(labels, 0, 0, 2, 9),
        instead(labels, 0, 0, 2, -1),
        instead(labels, 0, 0, 9, 4),
        instead(labels, 1, 1, 2, 4),
        instead(keys, 0, 5, 10, 10**6),
        instead(keys, 0, 5, 10, 2**63 - 1),
    ):
        rebuilt(shards, content)


def test_other_readers_of_arrow_see_the_same(shards):
    """What pyarrow makes of the file, in words instead of codes."""
    table = pa.ipc.open_file(shards[1]).read_all()
    table.validate(full=True)
    assert table.select(["key", "split", "fold", "speaker", "labels", "events"]).to_pylist() == [
        {"key": "käy0", "split": "train", "fold": None, "speaker": "anna", "labels": [], "events": []},
        {
            "key": "käy1",
            "split": "train",
            "fold": None,
            "speaker": "anna",
            "labels": [{"label": "a", "weight": 1.0}, {"label": "calm", "weight": 0.5}],
            "events": [{"label": "bell", "onset": 0.01, "offset": 0.08}],
        },
        {
            "key": "käy2",
            "split": "train",
            "fold": None,
            "speaker": None,
            "labels": [{"label": "a", "weight": 1.0}, {"label": "b", "weight": 1.0}],
            "events": [],
        },
    ]


def test_flipped_bytes_never_lead_beyond_the_tar(shards):
    """Whatever is accepted points into the tar and has the right types; all else is rebuilt."""
    folder, good = shards
    rng = np.random.default_rng(0)
    for _ in range(30):
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
        assert len(index.split) == len(index.speakers.strings) == len(index.files) == len(index.fold) == 3
        assert all(len(index.labels(kind)) == 3 for kind in index.kinds)
        assert all(0 <= event.onset <= event.offset for clip in range(3) for event in index.events(clip))
        (folder / INDEX_NAME).unlink()


def test_damaged_files_are_refused_with_an_error_of_their_own(shards, tmp_path):
    """Cut anywhere and flipped anywhere: a ValueError, or columns whose arrays lie within the file."""
    good, path = shards[1], tmp_path / INDEX_NAME
    rng = np.random.default_rng(1)
    outcomes = {True: 0, False: 0}
    for number in range(150):
        bad = bytearray(good if number % 3 else good[: rng.integers(len(good))])
        for place in rng.integers(0, max(len(bad), 1), size=number % 3):
            # Most of what can go wrong stands in the metadata, and there mostly zeros.
            bad[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.integers(256)])
        path.write_bytes(bad)
        try:
            columns = stored.load_columns(path)
            stored.check_columns(columns)
        except ValueError:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
            assert len(columns.keys) == len(columns.label_ends) == len(columns.audio) == 3
            assert sum(map(len, columns.keys)) + len(columns.label_codes) + len(columns.onset) < len(good)
    assert min(outcomes.values()) > 20


def test_a_tar_of_others_that_is_written_again_is_indexed_again(tmp_path):
    """Its labels may be others while its bytes are as many; nothing else would tell."""
    file = io.BytesIO()
    soundfile.write(file, np.full(1600, 0.1, dtype=np.float32), 16000, format="FLAC")
    for label in ("cat", "dog"):
        with webdataset.TarWriter(str(tmp_path / "a.tar"), mtime=0) as writer:
            writer.write({"__key__": "x", "flac": file.getvalue(), "json": {"label": label}})
        if label == "dog":
            later = (tmp_path / INDEX_NAME).stat().st_mtime_ns + 10**9
            os.utime(tmp_path / "a.tar", ns=(later, later))
        index = open_shards([tmp_path])
        assert index.names("label") == [label]
        assert index.columns[0].tar_bytes == (10240,)


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
