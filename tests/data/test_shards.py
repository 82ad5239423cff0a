"""Corpora to shards and back: round trips, other people's readers, damage."""

import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import webdataset

from ssl_audio.audio.files import decode
from ssl_audio.data import writing
from ssl_audio.data.clip import Clip, Event
from ssl_audio.data.corpora import Folder, Table
from ssl_audio.data.index import INDEX_NAME, open_shards
from ssl_audio.data.job import WritingJob
from ssl_audio.data.manifest import Manifest
from ssl_audio.data.preparing import Form
from ssl_audio.data.verifying import verify_shards
from ssl_audio.data.writing import merge_shards, write_part, write_shards
from ssl_audio.errors import ShardError

RATE = 16000


def sound(seed: int, seconds: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Five files of several kinds, two stretches of one of them, labels, speakers and folds."""
    root = tmp_path / "corpus"
    (root / "audio").mkdir(parents=True)
    for number in range(4):
        soundfile.write(root / "audio" / f"clip.{number}.wav", sound(number), RATE, subtype="PCM_16")
    stereo = np.stack([sound(9, 2.0), sound(9, 2.0)], axis=1)
    soundfile.write(root / "audio" / "long.flac", stereo, RATE)
    (root / "meta.csv").write_text(
        "path,label,split,fold,speaker,start,end\n"
        "audio/clip.0.wav,dog,train,1,anna,,\n"
        "audio/clip.1.wav,dog;rain,train,2,,,\n"
        "audio/clip.2.wav,,test,1,ben,,\n"
        "audio/clip.3.wav,cat,valid,,ben,,\n"
        "audio/long.flac,rain,train,2,,0.25,0.75\n"
        "audio/long.flac,rain,train,2,,1.0,\n"
    )
    (root / "events.tsv").write_text("filename\tonset\toffset\tevent_label\nclip.1.wav\t0.1\t0.3\tdog\n")
    return root


def test_a_table_becomes_shards_and_comes_back(table, tmp_path):
    out = tmp_path / "out"
    manifest = write_shards(Table(table, licence="CC0"), out, name="table", shard_clips=4)
    index = open_shards([out])
    assert [str(key) for key in index.key] == [
        "audio/clip_0", "audio/clip_1", "audio/clip_2", "audio/clip_3", "audio/long", "audio/long~2",
    ]  # fmt: skip
    assert index.describe(1) == Clip(
        key="audio/clip_1",
        duration=0.5,
        sample_rate=RATE,
        labels={"event": ["dog"], "label": ["dog", "rain"]},
        events=[Event(label="dog", onset=0.1, offset=0.3)],
        split="train",
        fold=2,
        source="audio/clip.1.wav",
    )
    stored = [decode(index.audio_bytes(clip)) for clip in range(6)]
    np.testing.assert_allclose(stored[0], sound(0), atol=1 / 32767)
    np.testing.assert_allclose(stored[4], sound(9, 2.0)[4000:12000], atol=1 / 32767)
    assert len(stored[5]) == RATE
    assert [shard.clips for shard in manifest.shards] == [4, 2]
    assert manifest.labels == {"event": {"dog": 1}, "label": {"cat": 1, "dog": 2, "rain": 3}}
    assert manifest.splits == {"test": 1, "train": 4, "valid": 1}
    assert (manifest.clips, manifest.speakers, manifest.licence) == (6, 2, "CC0")
    assert Manifest.load(out) == verify_shards(out) == manifest
    assert len(index.of_split("train")) == 4
    with pytest.raises(ShardError, match="no clip of these shards is in split 'dev'; they have test, train, valid"):
        index.of_split("dev")


def test_plain_webdataset_reads_our_shards(table, tmp_path):
    write_shards(Table(table), tmp_path / "out", name="table", shard_clips=4)
    urls = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    found = {
        sample["__key__"]: sample for sample in webdataset.WebDataset(urls, shardshuffle=False).decode(only="json")
    }
    index = open_shards([tmp_path / "out"])
    for clip in range(len(index)):
        sample = found[str(index.key[clip])]
        assert sample["flac"] == index.audio_bytes(clip)
        assert Clip.from_json(sample["__key__"], json.dumps(sample["json"]).encode()) == index.describe(clip)
    assert len(found) == len(index)


def test_we_read_shards_of_others(tmp_path):
    """Any audio, with or without JSON, with labels as others write them."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    with webdataset.TarWriter(str(folder / "a.tar")) as writer:
        for key, ending in (("x/1", "wav"), ("x/2", "ogg")):
            buffer = io.BytesIO()
            soundfile.write(buffer, sound(1), RATE, format=ending.upper())
            sample = {"__key__": key, ending: buffer.getvalue()}
            writer.write(sample | ({"json": {"label": "dog", "other": 3}} if ending == "wav" else {}))
    index = open_shards([folder])
    assert index.describe(0).labels == {"label": ["dog"]}
    assert index.describe(1).labels == {}
    assert [len(decode(index.audio_bytes(clip))) for clip in (0, 1)] == [8000, 8000]
    assert (folder / INDEX_NAME).exists()
    assert open_shards([folder / "a.tar"]).seconds.tolist() == [0.5, 0.5]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_parts_make_the_same_shards_as_one_writing(table, tmp_path):
    write_shards(Table(table), tmp_path / "whole", name="t", shard_clips=2)
    out = tmp_path / "parts"
    write_part(Table(table), out, name="t", shard_clips=2, part=3, parts=3)
    write_part(Table(table), out, name="t", shard_clips=2, part=1, parts=3)
    with pytest.raises(ShardError, match=r"1 of 3 shards are not written yet \(1\)"):
        merge_shards(out)
    with pytest.raises(ShardError, match=r"unfinished writing of something else \(shard_clips was 2, is 4\)"):
        write_part(Table(table), out, name="t", shard_clips=4, part=2, parts=3)
    write_part(Table(table), out, name="t", shard_clips=2, part=2, parts=3)
    merge_shards(out)
    assert digests(out) == digests(tmp_path / "whole")
    assert not list(tmp_path.glob(".*"))


def die_at(shard: int, table: Path, out: Path) -> None:
    """Write, and be killed when so many shards are in place but one is not yet in the journal."""
    finish, finished = WritingJob.finish, []

    def deadly(*parts):
        finished.append(parts)
        if len(finished) == shard:
            os.kill(os.getpid(), signal.SIGKILL)
        finish(*parts)

    WritingJob.finish = deadly
    write_shards(Table(table), out, name="t", shard_clips=1)


def test_a_writing_killed_at_any_shard_ends_with_the_same_bytes(table, tmp_path):
    write_shards(Table(table), tmp_path / "whole", name="t", shard_clips=1)
    for kill in (1, 3):
        victim = multiprocessing.get_context("fork").Process(target=die_at, args=(kill, table, tmp_path / "out"))
        victim.start()
        victim.join()
        assert victim.exitcode == -signal.SIGKILL
        assert not (tmp_path / "out").exists()
    done = []
    write_shards(Table(table), tmp_path / "out", name="t", shard_clips=1, progress=lambda n, total: done.append(n))
    # Two shards were finished, and are not written again.
    assert done == [3, 4, 5, 6]
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_long_recordings_are_cut_and_their_events_go_along(tmp_path):
    soundfile.write(tmp_path / "long.wav", np.concatenate([sound(1, 2.5), np.zeros(40000)]), RATE)
    soundfile.write(tmp_path / "short.wav", sound(2, 0.3), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    (tmp_path / "meta.csv").write_text("path,label\nlong.wav,dog\nshort.wav,cat\nsilent.wav,cat\n")
    (tmp_path / "events.tsv").write_text("filename\tonset\toffset\tlabel\nlong.wav\t0.5\t2.0\tdog\n")
    form = Form(split_seconds=2.0, min_seconds=0.5, encoding="pcm")
    manifest = write_shards(Table(tmp_path), tmp_path / "out", name="t", form=form, max_rejected=0.7)
    index = open_shards([tmp_path / "out"])
    assert list(index.key) == ["long@0001", "long@0002"]
    events = [event for clip in range(2) for event in index.describe(clip).events]
    times = [time for event in events for time in (event.onset, event.offset)]
    assert times == pytest.approx([0.5, 5 / 3, 0.0, 1 / 3], abs=1e-4)
    pieces = np.concatenate([decode(index.audio_bytes(clip)) for clip in range(2)])
    np.testing.assert_allclose(pieces[: 2 * RATE], sound(1, 2.5)[: 2 * RATE], atol=1 / 32767)
    rejected = (tmp_path / "out" / "rejected.csv").read_text()
    assert "long@0003,long.wav,long.wav: is silent from 3.3 s on" in rejected
    assert 'short,short.wav,"short.wav: lasts 0.300 s, less than 0.5 s"' in rejected
    assert 'silent,silent.wav,"silent.wav: is silent, every sample is 0 in 16 bits"' in rejected
    assert (manifest.clips, manifest.rejected) == (2, 3)


@pytest.mark.parametrize(
    ("encoding", "ending", "error"), [("flac", "flac", 1e-4), ("pcm", "wav", 1e-4), ("opus", "opus", 0.2)]
)
def test_every_encoding_comes_back(tmp_path, encoding, ending, error):
    tone = (0.3 * np.sin(np.arange(RATE) * 0.1)).astype(np.float32)
    soundfile.write(tmp_path / "tone.wav", tone, RATE)
    (tmp_path / "meta.csv").write_text("path\ntone.wav\n")
    write_shards(Table(tmp_path), tmp_path / "out", name="t", form=Form(encoding=encoding))
    index = open_shards([tmp_path / "out"])
    with tarfile.open(index.paths[0]) as archive:
        assert f"tone.{ending}" in archive.getnames()
    waveform = decode(index.audio_bytes(0))
    assert len(waveform) == RATE
    assert np.abs(waveform - tone).mean() < error
    assert verify_shards(tmp_path / "out", decoding=True).clips == 1


def test_the_same_corpus_gives_the_same_bytes_whatever_the_processes(table, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_ALONE_SECONDS", 0.0)
    monkeypatch.setattr(writing, "_CHUNK", 3)
    one = write_shards(Table(table), tmp_path / "one", name="t", shard_clips=4)
    two = write_shards(Table(table), tmp_path / "two", name="t", shard_clips=4, processes=2)
    assert one == two


def test_unusable_recordings_are_listed_and_too_many_stop_the_writing(table, tmp_path):
    (table / "audio" / "clip.1.wav").write_bytes(b"RIFF, but not really")
    with pytest.raises(ShardError, match=r"1 of the first 2 recordings.*clip\.1\.wav.*--max_rejected"):
        write_shards(Table(table), tmp_path / "strict", name="t")
    assert not (tmp_path / "strict").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
    manifest = write_shards(Table(table), tmp_path / "lenient", name="t", max_rejected=0.5)
    assert (manifest.clips, manifest.rejected) == (5, 1)
    assert "audio/clip_1,audio/clip.1.wav," in (tmp_path / "lenient" / "rejected.csv").read_text()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "shard-000000.tar").unlink(), "missing"),
        (lambda folder: _flip(folder / "shard-000000.tar"), "SHA-256"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "no manifest"),
        (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json"),
    ],
)
def test_damage_is_found(table, tmp_path, damage, message):
    write_shards(Table(table), tmp_path / "out", name="t")
    damage(tmp_path / "out")
    with pytest.raises(ShardError, match=message):
        verify_shards(tmp_path / "out")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)


def test_a_truncated_tar_is_no_shard(table, tmp_path):
    write_shards(Table(table), tmp_path / "out", name="t")
    tar = tmp_path / "out" / "shard-000000.tar"
    tar.write_bytes(tar.read_bytes()[:30000])
    with pytest.raises(ShardError, match=r"shard-000000\.tar: not a whole, uncompressed tar"):
        open_shards([tmp_path / "out"])


def test_a_shard_cut_off_after_indexing_names_the_clip(table, tmp_path):
    write_shards(Table(table), tmp_path / "out", name="t")
    index = open_shards([tmp_path / "out"])
    with (index.paths[0]).open("r+b") as file:
        file.truncate(20000)
    with pytest.raises(ShardError, match=r"shard-000000\.tar:audio/long"):
        index.audio_bytes(4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root, "no audio below it; expected files ending in flac"),
        (lambda root: root / "nowhere", "no such folder"),
    ],
)
def test_folders_without_audio_say_so(tmp_path, make, message):
    with pytest.raises(ShardError, match=message):
        Folder(make(tmp_path)).recordings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("file,label\na.wav,dog\n", "no column `path`; it has file, label"),
        ("path,fold\na.wav,one\n", "line 2: invalid literal"),
        ("path,start,end\na.wav,2,1\n", "line 2: start 2.0 and end 1.0"),
        ("path\n../../etc/passwd\n", "leaves the root"),
    ],
)
def test_tables_with_mistakes_say_where(tmp_path, text, message):
    (tmp_path / "meta.csv").write_text(text)
    with pytest.raises(ShardError, match=message):
        Table(tmp_path).recordings()


def test_folder_takes_every_kind_of_file_once(tmp_path):
    for name in ("b/x.flac", "a/x.flac", "a/x.ogg", "a/ä ö.wav"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, sound(2), RATE)
    (tmp_path / "notes.txt").write_text("no audio")
    keys = [recording.clip.key for recording in Folder(tmp_path).recordings()]
    assert keys == ["a/x", "a/x~2", "a/ä_ö", "b/x"]
    out = tmp_path / "out"
    write_shards(Folder(tmp_path), out, name="folder")
    assert sorted(map(str, open_shards([out]).key)) == sorted(keys)


def test_writing_over_something_or_without_permission_is_refused(table, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("data")
    with pytest.raises(ShardError, match="not empty"):
        write_shards(Table(table), tmp_path / "full", name="t")
    with pytest.raises(ShardError, match="cannot write to"):
        write_shards(Table(table), Path("/proc/nowhere/out"), name="t")
    assert (tmp_path / "full" / "precious").exists()
    shutil.rmtree(tmp_path / "full")


def test_members_are_never_extracted(tmp_path):
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        buffer = io.BytesIO()
        soundfile.write(buffer, sound(1), RATE, format="FLAC")
        member = tarfile.TarInfo("../../outside.flac")
        member.size = len(buffer.getvalue())
        buffer.seek(0)
        archive.addfile(member, buffer)
    index = open_shards([tmp_path / "evil.tar"])
    assert len(decode(index.audio_bytes(0))) == 8000
    assert not (tmp_path.parent.parent / "outside.flac").exists()


def test_shards_written_anew_under_the_same_name_are_read_anew(tmp_path, monkeypatch):
    samples = []
    for number in (1, 2):
        home = tmp_path / str(number)
        (home / "audio").mkdir(parents=True)
        tone = np.sin(np.arange(8000 * number) * 0.05 * number).astype(np.float32) * 0.3
        soundfile.write(home / "audio" / "tone.wav", tone, 16000)
        monkeypatch.chdir(home)
        write_shards(Folder(Path("audio")), Path("shards"), name="folder")
        index = open_shards([Path("shards")])
        samples.append(decode(index.audio_bytes(0), sample_rate=16000))
    assert [len(found) for found in samples] == [8000, 16000]
