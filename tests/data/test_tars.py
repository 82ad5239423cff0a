"""Tars of others: names with dots, members that are no clip, two of a key, and what is no tar at all."""

import io
import json
import logging
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ssl_audio.audio.headers import HEADER_BYTES, stated_seconds
from ssl_audio.data.clip import Clip
from ssl_audio.data.index import open_shards
from ssl_audio.data.loading import ClipReader
from ssl_audio.data.remarks import Remarks, say_once
from ssl_audio.data.tars import clips_of
from ssl_audio.errors import ShardError


def audio(seconds: float = 0.5, format: str = "FLAC") -> bytes:
    samples = np.random.default_rng(1).uniform(-0.5, 0.5, round(seconds * 16000)).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format=format)
    return file.getvalue()


FLAC, WAV = audio(), audio(format="WAV")


def tar_of(path: Path, members: list[tuple[str, bytes]], **options) -> Path:
    with tarfile.open(path, "w", **options) as archive:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return path


def read(tar: Path) -> tuple[dict[str, dict[str, list[str]]], tuple[str, ...]]:
    """The labels of each clip by key, and what was remarked."""
    remarks = Remarks()
    return {row.clip.key: row.clip.labels for row in clips_of(tar, remarks)}, remarks.lines()


DOG, CAT = b'{"label": "dog"}', b'{"label": "cat"}'


@pytest.mark.parametrize(
    ("members", "clips"),
    [
        ([("a.b.flac", FLAC), ("a.b.json", DOG)], {"a.b": "dog"}),
        ([("a.b.json", DOG), ("a.b.flac", FLAC), ("a.json", CAT), ("a.flac", FLAC)], {"a.b": "dog", "a": "cat"}),
        ([("x.left.wav", WAV), ("x.right.wav", WAV), ("x.json", DOG)], {"x.left": "dog", "x.right": "dog"}),
        ([("v1.2/x.FLAC", FLAC), ("v1.2/x.JSON", CAT), ("v1.2/x.mask.png", b"p")], {"v1.2/x": "cat"}),
        ([("1.5.flac", FLAC), ("1.flac", FLAC), ("1.json", CAT)], {"1.5": None, "1": "cat"}),
        ([("caf\udce9.flac", FLAC), ("caf\udce9.json", DOG)], {r"caf\xe9": "dog"}),
    ],
)
def test_the_last_ending_counts_and_finds_its_description(tmp_path, members, clips):
    found, remarks = read(tar_of(tmp_path / "a.tar", members, encoding="utf-8", errors="surrogateescape"))
    assert found == {key: {"label": [label]} if label else {} for key, label in clips.items()}
    assert not remarks


def test_labels_beside_a_description_count_and_stay_apart(tmp_path):
    members = [("a.flac", FLAC), ("a.json", b'{"speaker": "x"}'), ("a.cls", b"3\n"), ("a.txt", b"caf\xe9")]
    tar = tar_of(tmp_path / "a.tar", [*members, ("b.flac", FLAC), ("b.txt", b"caf\xe8"), ("b.json", DOG)])
    index = open_shards([tar])
    assert index.describe(0) == Clip(key="a", labels={"cls": ["3"], "txt": [r"caf\xe9"]}, speaker="x")
    assert index.describe(1).labels == {"txt": [r"caf\xe8"], "label": ["dog"]}


def test_what_is_no_clip_is_listed_and_counted_at_each_opening(tmp_path, caplog):
    others = [("a.m4a", b"0"), ("._ok.flac", b"0"), (".flac", FLAC), ("lone.json", DOG), ("README", b"0")]
    tar = tar_of(tmp_path / "a.tar", [("ok.flac", FLAC), ("bad.wav", b"RIFF"), *others])
    with tarfile.open(tar, "a") as archive:
        for name, kind, target in (("same.flac", tarfile.LNKTYPE, "ok.flac"), ("far.wav", tarfile.SYMTYPE, "/x.wav")):
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, target
            archive.addfile(header)
    found, remarks = read(tar)
    assert list(found) == ["ok", "bad", "same"]
    lines = "\n".join(sorted(remarks))
    assert "4 audio members are not clips: a.tar:far.wav (a link, which is not followed), a.tar:a.m4a" in lines
    assert "2 members belong to no clip: a.tar:lone.json, a.tar:README" in lines
    assert "1 clip cannot be opened: a.tar:bad (" in lines
    for _ in range(2):
        caplog.clear()
        say_once.cache_clear()
        index = open_shards([tmp_path])
        assert sum("audio members are not clips" in record.message for record in caplog.records) == 1
        assert caplog.records[0].levelno == logging.WARNING
    assert index.audio_bytes(2) == index.audio_bytes(0)


def cut(tar: Path, *, at: int, put: bytes) -> None:
    with tar.open("r+b") as file:
        file.seek(at)
        file.write(put)


def header(**fields) -> bytes:
    info = tarfile.TarInfo("b.flac")
    for name, value in fields.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.GNU_FORMAT)


NEGATIVE = header().replace(b"00000000000\0", b"\xff" * 11 + b"\0", 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([("a.flac", FLAC), ("a.flac", FLAC)], "a.flac is in it twice"),
        ([("a.flac", FLAC), ("a.FLAC", FLAC)], "a.flac is in it twice"),
        ([("a.flac", FLAC), ("a.wav", WAV)], "a.flac and a.wav have one key"),
        ([("a.flac", FLAC), ("a.json", b"{")], "clip 'a': its .json member is no JSON"),
        (b"<html>not found</html>", "it is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x1f\x8b\x08\0" * 200, "it is a gzip file"),
        (b"", "it is empty"),
        (header(size=512) + b"x" * 100, "unexpected end of data"),
        (header() + b"y" * 512, "from byte 512 of 1024 on it goes on without a member"),
        (header() + bytes(1024) + header() + bytes(1024), "several tars joined"),
        (header(type=tarfile.GNUTYPE_SPARSE, size=512) + bytes(2048), "a sparse member"),
        (header(size=-512) + bytes(1024), "a member of -512 bytes"),
        (header(size=-512, type=tarfile.FIFOTYPE) + bytes(1024), "a member of -512 bytes"),
        (header(type=tarfile.GNUTYPE_LONGNAME, size=-512) + bytes(1024), "not a whole"),
        (header(type=tarfile.GNUTYPE_LONGNAME, size=0) * 3000, "not a whole"),
    ],
)
def test_what_cannot_be_read_whole_is_refused_in_one_line(tmp_path, content, words):
    tar = tmp_path / "a.tar"
    if isinstance(content, bytes):
        tar.write_bytes(content)
    else:
        tar_of(tar, content)
    with pytest.raises(ShardError) as caught:
        open_shards([tmp_path])
    assert str(tar) in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tar_without_end_mark_is_remarked_upon_and_no_pipe_is_opened(tmp_path):
    tar = tar_of(tmp_path / "a.tar", [("a.flac", FLAC)])
    tar.write_bytes(tar.read_bytes()[: 512 + -(-len(FLAC) // 512) * 512])
    assert read(tar)[1] == ("1 tar has no end mark and may be cut off: a.tar",)
    (tmp_path / "._b.tar").write_bytes(b"\0\5\x16\7")
    assert len(open_shards([tmp_path])) == 1
    os.mkfifo(tmp_path / "c.tar")
    with pytest.raises(ShardError, match=r"c.tar: is a device or a pipe; expected a tar file"):
        open_shards([tmp_path])


@pytest.mark.parametrize("wrong", ["600", "2.7e9", "NaN", "-5", "0", "1e999", "-Infinity", '"600"'])
def test_a_wrong_duration_is_blamed_on_the_json_and_the_audio_counts(tmp_path, wrong, caplog):
    described = json.dumps({"label": "dog", "duration": 0})[:-2].encode() + wrong.encode() + b"}"
    tar_of(tmp_path / "a.tar", [("a.flac", FLAC), ("a.json", described), ("b.flac", FLAC), ("b.json", b"{}")])
    index = open_shards([tmp_path])
    assert index.seconds.tolist() == [0.5, 0.5]
    assert index.describe(0) == Clip(key="a", duration=0.5, labels={"label": ["dog"]})
    (record,) = caplog.records
    assert "1 clip has another duration in its .json than in its audio, which counts: a.tar:a (" in record.message
    assert len(ClipReader(index, crop_seconds=0.1, cover=True)) == 10


@pytest.mark.parametrize("format", ["FLAC", "WAV"])
def test_a_header_states_the_length_unless_the_file_cannot_hold_it(format):
    data = audio(0.5, format)
    assert stated_seconds(data[:HEADER_BYTES], len(data)) == 0.5
    assert stated_seconds(data[: HEADER_BYTES - 1], len(data)) is None
    assert stated_seconds(data[:HEADER_BYTES], 0 if format == "FLAC" else len(data) - 1) is None
    assert stated_seconds(bytes(HEADER_BYTES), 1000) is None
    assert stated_seconds(data[:18] + bytes(HEADER_BYTES - 18), len(data)) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100000, "nested too deeply"),
        ('{"a":' * 100000, "nested too deeply"),
        ('{"duration": ' + "9" * 5000 + "}", "thousands of digits"),
        ('{"fold": 1' + "0" * 400 + "}", "an invalid field `fold`"),
        ('{"label": "\\ud800"}', "half of a surrogate pair"),
        (b'{"label": "\xed\xa0\x80"}', "byte"),
        (b'{"label": "caf\xe9"}', "byte 14 is no utf-8"),
        ("3", "is a int; expected one object"),
        ('{"duration": true}', "an invalid field `duration` (True is no number)"),
        ('{"duration": [1]}', "an invalid field `duration` ([1] is no number)"),
        ('{"duration": "' + "long " * 999 + '"}', "an invalid field `duration`"),
        ('{"sample_rate": 1e999}', "an invalid field `sample_rate` (inf is not finite)"),
        ('{"fold": 1.5}', "an invalid field `fold` (1.5 is no whole number)"),
        ('{"labels": {"k": [["a"]]}}', "an invalid field `labels` (['a'] is no name)"),
        ('{"label": {"k": {"a": 1.5}}}', "an invalid field `label` (a weight is 1.5; expected 0 to 1)"),
        ('{"labels": {"k": {"a": "NaN"}}}', "an invalid field `labels` ('NaN' is not finite)"),
        ('{"events": [{"label": "x", "onset": 2, "offset": 1}]}', "invalid field `events` (event 'x' from 2 to 1 s"),
        ('{"events": [{"label": "x", "onset": -1, "offset": 1}]}', "invalid field `events` (event 'x' from -1 to 1 s"),
        ('{"events": [{"label": "x", "onset": NaN, "offset": 1}]}', "invalid field `events` (nan is not finite)"),
        ('{"speaker": {}}', "an invalid field `speaker` ({} is no name)"),
        ('{"events": 5}', "an invalid field `events` (5 is no list)"),
        ('{"events": [{"label": "a", "onset": NaN, "offset": 1}]}', "nan is not finite"),
        ('{"events": [{"label": "a"}]}', "is no object with label, onset and offset"),
        (b" " * ((1 << 24) + 1), "expected no more than 16777216"),
    ],
)
def test_json_of_a_clip_that_is_none_is_one_line(text, words):
    with pytest.raises(ShardError, match=r"^clip 'x': its \.json member") as caught:
        Clip.from_json("x", text if isinstance(text, bytes) else text.encode())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_json_of_others_is_read_as_it_is_meant():
    fields = '"label": ["a", "", null, NaN, 3, "\\ud83d\\ude00"], "speaker": " ", "fold": "3", "x": [NaN]'
    text = f'\ufeff{{{fields}, "split": null}}'
    for encoding in ("utf-8", "utf-16-le"):
        clip = Clip.from_json("x", text.encode(encoding))
        assert clip == Clip(key="x", labels={"label": ["a", "3", "\U0001f600"]}, fold=3)
    assert Clip.from_json("x", b'{"labels": {"k": "", "l": [], "m": "b"}}').labels == {"m": ["b"]}
    assert Clip.from_json("x", b'{"events": [{"label": 1, "onset": "0.5", "offset": 1}]}').events[0].onset == 0.5
