"""A manifest is read by one schema: what is no manifest is one line, and what is one names only tars beside it."""

import json
import os
from pathlib import Path

import manifests
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings

from ssl_audio.data.corpora import Folder
from ssl_audio.data.index import open_shards
from ssl_audio.data.job import JOURNAL, PLAN, WritingJob
from ssl_audio.data.manifest import FILE_NAME, Manifest
from ssl_audio.data.remarks import say_once
from ssl_audio.data.verifying import verify_shards
from ssl_audio.data.writing import write_shards
from ssl_audio.errors import ShardError

few = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("manifest")


@few
@given(manifests.whole())
def test_a_manifest_comes_back(folder, manifest):
    manifest.save(folder)
    assert Manifest.load(folder) == manifest


@few
@given(manifests.hostile())
def test_what_is_no_manifest_is_one_line(folder, text):
    manifests.check(folder, text)


GOOD = {
    "corpus": "c", "licence": "l", "clips": 2, "seconds": 1.0, "splits": {"train": 2}, "labels": {"k": {"a": 1}},
    "speakers": 1, "log_mel": {"mean": -5.0, "std": 4.0}, "format": 1,
    "shards": [{"name": "a.tar", "clips": 2, "bytes": 10240, "sha256": "0" * 64}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("shards",), [], "it lists no shards"),
        (("shards", 0, "name"), "../a.tar", "no plain name of a tar file"),
        (("shards", 0, "name"), "/etc/passwd", "no plain name of a tar file"),
        (("shards", 0, "bytes"), 1.0, "1.0 is no number of things"),
        (("shards", 0, "sha256"), "0" * 63, "is no SHA-256"),
        (("clips",), 3, "clips is 3, but those of its shards are 2"),
        (("clips",), True, "True is no number of things"),
        (("seconds",), float("nan"), "nan is not finite"),
        (("log_mel", "std"), -1.0, "is no mean and std"),
        (("splits", "train"), 9, "splits have 9 clips"),
        (("labels", "k", "a"), 3, "3 clips have the 'k' 'a'"),
        (("labels", "k"), ["a"], "is no object"),
        (("speakers",), 3, "speakers is 3"),
        (("format",), [1], r"format \[1\]; this version reads format 1"),
        (("more",), 1, "it has 'more'"),
        (("sample_rate",), 4000, "sample_rate is 4000; expected 8000 to 96000 Hz"),
        (("sample_rate",), "16000", "is no number of things"),
        (("written",), {"findings": [1]}, "is no object"),
    ],
)
def test_what_is_wrong_in_a_manifest_is_named(tmp_path, place, value, words):
    found = json.loads(json.dumps(GOOD))
    holder = found
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    (tmp_path / FILE_NAME).write_text(json.dumps(found))
    with pytest.raises(ShardError, match=words):
        Manifest.load(tmp_path)


def test_only_a_regular_file_is_read(tmp_path):
    path = tmp_path / FILE_NAME
    with pytest.raises(ShardError, match=r"has no manifest\.json"):
        Manifest.load(tmp_path)
    path.symlink_to("/dev/zero")
    with pytest.raises(ShardError, match=r"its manifest\.json is a device or a pipe"):
        Manifest.load(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ShardError, match=r"its manifest\.json is a device or a pipe"):
        verify_shards(tmp_path)
    (tmp_path / "a.tar").write_bytes(b"0")
    with pytest.raises(ShardError, match=r"a\.tar is .*; expected a folder with tar files and a manifest\.json"):
        verify_shards(tmp_path / "a.tar")


def test_the_tars_that_are_listed_are_those_that_are_there(tmp_path, caplog):
    for number in range(2):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, 1600)
        soundfile.write(tmp_path / f"{number}.wav", noise, 16000)
    written = tmp_path.with_name("written")
    write_shards(Folder(tmp_path), written, name="two", shard_clips=1)
    for path in written.iterdir():
        (tmp_path / path.name).symlink_to(path)
    first, second = sorted(written.glob("*.tar"))
    (tmp_path / "shard-more.tar").symlink_to(first)
    with pytest.raises(ShardError, match=r"shard-more\.tar: not in manifest\.json"):
        verify_shards(tmp_path)
    (tmp_path / "shard-more.tar").unlink()
    (tmp_path / second.name).unlink()
    with pytest.raises(ShardError, match=rf"{second.name}: missing"):
        verify_shards(tmp_path)
    say_once.cache_clear()
    caplog.clear()
    open_shards([tmp_path])
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}: 1 tar files that its manifest.json lists are missing: {second.name}"
    ]
    (tmp_path / second.name).symlink_to("/dev/null")
    with pytest.raises(ShardError, match=rf"{second.name}: is a device or a pipe"):
        verify_shards(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"shard": 3}', '{"corpus": 1}', "null"])
def test_a_damaged_working_folder_is_one_line(tmp_path, text):
    job = WritingJob(tmp_path / "out")
    (job.folder / JOURNAL).mkdir(parents=True)
    for path, read in (
        (job.folder / PLAN, lambda: job.plan),
        (job.folder / JOURNAL / "shard-000000.json", lambda: job.finished(0)),
        (job.folder / JOURNAL / "shard-000000.npz", lambda: job.columns(0)),
    ):
        path.write_text(text)
        with pytest.raises(ShardError, match="remove it and give the same command again") as caught:
            read()
        assert "\n" not in str(caught.value)
