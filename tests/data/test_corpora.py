"""Every corpus in its own layout: what it lists, where its samples come from, and what a wrong layout says."""

# ruff: noqa: E501

from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from ssl_audio.data.corpora import (
    DESED,
    ESC50,
    FSD50K,
    IEMOCAP,
    AudioSet,
    AudioSetStrong,
    FluentSpeechCommands,
    LibriSpeech,
    Maestro,
    SpeechCommands1,
    SpeechCommands2,
    VoxCeleb1,
)
from ssl_audio.data.index import open_shards
from ssl_audio.data.writing import write_shards
from ssl_audio.errors import ShardError

ROOT = Path(__file__).parents[2]
CORPORA_BY_NAME = {
    "ks1": "speech_commands_v1", "ks2": "speech_commands_v2", "voxceleb1": "voxceleb1", "iemocap": "iemocap",
    "esc50": "esc50", "audioset": "audioset", "fsd50k": "fsd50k",
}  # fmt: skip


def audio(root, *names, seconds=0.1):
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).uniform(-0.3, 0.3, round(seconds * 16000))
        soundfile.write(path, noise, 16000)


def text(root, name, content):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def audioset(root):
    text(
        root,
        "class_labels_indices.csv",
        'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man"\n',
    )
    head = "# Segments csv created Sun Mar  5 10:54:25 2017\n# num_ytids=2\n# YTID, start_seconds, end_seconds, positive_labels\n"
    text(
        root,
        "balanced_train_segments.csv",
        head + '--4gqARaEJE, 0.000, 10.000, "/m/09x0r,/m/05zppz"\n-BfsT_iJF68, 30.000, 40.000, "/m/09x0r"\n',
    )
    text(
        root,
        "unbalanced_train_segments.csv",
        head + 'YYYYYYYYYYY, 0.0, 10.0, "/m/09x0r"\n---1_cCGK4M, 0.000, 10.000, "/m/05zppz"\n',
    )
    text(
        root,
        "eval_segments.csv",
        head + '--4gqARaEJ_, 0.000, 10.000, "/m/09x0r"\nmissing0000, 0.000, 10.000, "/m/09x0r"\n',
    )
    audio(
        root, "balanced_train_segments/Y--4gqARaEJE.wav", "balanced_train_segments/-BfsT_iJF68_30.000.flac",
        "unbalanced/part00/YYYYYYYYYYY.flac", "unbalanced/part01/---1_cCGK4M_0_10000.wav", "eval/--4gqARaEJ_.flac",
    )  # fmt: skip
    return AudioSet(root)


def librispeech(root):
    audio(root, "LibriSpeech/train-clean-100/19/198/19-198-0000.flac", "LibriSpeech/dev-clean/84/1/84-1-0000.flac")
    return LibriSpeech(root)


def words(root, version):
    base = root / "SpeechCommands" / version
    audio(base, "yes/a1_nohash_0.wav", "yes/b2_nohash_0.wav", "happy/a1_nohash_1.wav", "go/c3_nohash_0.wav")
    audio(base, "_background_noise_/white.wav", seconds=10.5)
    text(base, "validation_list.txt", "yes/b2_nohash_0.wav\n")
    text(base, "testing_list.txt", "go/c3_nohash_0.wav\n")
    return root


def voxceleb1(root):
    text(root, "iden_split.txt", "1 id10001/v1/00001.wav\n2 id10001/v1/00002.wav\n3 id10002/v2/00001.wav\n")
    audio(root, "dev/wav/id10001/v1/00001.wav", "dev/wav/id10001/v1/00002.wav", "test/wav/id10002/v2/00001.wav")
    return VoxCeleb1(root)


def iemocap(root):
    for number in range(1, 6):
        name = f"Ses0{number}F_impro01"
        lines = [f"{name}_F000\tneu", f"{name}_M001\texc", f"{name}_M002\tfru", f"{name}_F003\tang"]
        rows = "".join(f"[6.2901 - 8.2357]\t{line}\t[2.5, 2.5, 2.5]\nC-E2:\tNeutral;\t()\n" for line in lines)
        folder = f"IEMOCAP_full_release/Session{number}"
        text(root, f"{folder}/dialog/EmoEvaluation/{name}.txt", "% [START - END] TURN EMOTION\n\n" + rows)
        audio(root, *(f"{folder}/sentences/wav/{name}/{line.split()[0]}.wav" for line in lines))
    return IEMOCAP(root)


def esc50(root):
    head = "filename,fold,target,category,esc10,src_file,take\n"
    text(
        root, "ESC-50-master/meta/esc50.csv", head + "1-100-A-0.wav,1,0,dog,True,100,A\n5-9-A-3.wav,5,3,cow,False,9,A\n"
    )
    audio(root, "ESC-50-master/audio/1-100-A-0.wav", "ESC-50-master/audio/5-9-A-3.wav")
    return ESC50(root)


def fsd50k(root):
    text(
        root,
        "FSD50K.ground_truth/dev.csv",
        'fname,labels,mids,split\n64760,"Bark,Dog","/m/1,/m/2",train\n16399,Bell,/m/3,val\n',
    )
    text(root, "FSD50K.ground_truth/eval.csv", 'fname,labels,mids\n37199,"Bell,Dog","/m/3,/m/2"\n')
    audio(root, "FSD50K.dev_audio/64760.wav", "FSD50K.dev_audio/16399.wav", "FSD50K.eval_audio/37199.wav")
    return FSD50K(root)


def desed(root):
    text(
        root,
        "dataset/metadata/train/synthetic21_train/soundscapes.tsv",
        "filename\tonset\toffset\tevent_label\n0.wav\t0.01\t0.05\tSpeech\n0.wav\t0.02\t0.08\tDog\n",
    )
    text(root, "dataset/metadata/train/weak.tsv", "filename\tevent_labels\nw.wav\tDog,Cat\n")
    text(
        root,
        "dataset/metadata/validation/validation.tsv",
        "filename\tonset\toffset\tevent_label\nv.wav\t0.0\t0.1\tCat\n",
    )
    audio(
        root,
        "dataset/audio/train/synthetic21_train/soundscapes/0.wav",
        "dataset/audio/train/weak/w.wav",
        "dataset/audio/validation/validation/v.wav",
        "dataset/audio/train/unlabel_in_domain/u.wav",
    )
    return DESED(root)


def audioset_strong(root):
    text(root, "mid_to_display_name.tsv", "/m/0bt9lr\tDog\n/m/09x0r\tSpeech\n")
    head = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
    row = "--4gqARaEJE_{at}\t0.02\t{end}\t{label}\n"
    text(
        root,
        "audioset_train_strong.tsv",
        head + row.format(at=0, end=0.05, label="/m/0bt9lr") + row.format(at=0, end=0.1, label="/m/09x0r"),
    )
    text(root, "audioset_eval_strong.tsv", head + "-BfsT_iJF68_30000\t0.0\t0.1\t/m/09x0r\n")
    audio(root, "train/Y--4gqARaEJE.wav", "eval/-BfsT_iJF68.wav")
    return AudioSetStrong(root)


def maestro(root):
    names = [f"cafe_restaurant/cafe_restaurant_{number:02d}" for number in range(10)]
    for name in names:
        text(
            root,
            f"development_annotation/soft_labels_{name}.txt",
            "0.0\t0.4\tcar\t0.75\n0.2\t0.6\tfootsteps\t0.25\n0.4\t0.6\tcar\t0.0\n",
        )
        (root / f"development_annotation/soft_labels_{name}.txt").parent.mkdir(exist_ok=True)
    audio(root, *(f"development_audio/{name}.wav" for name in names), seconds=2.5)
    return Maestro(root, window_seconds=1.0)


def fluent(root):
    head = ",path,speakerId,transcription,action,object,location\n"
    for split in ("train", "valid", "test"):
        row = f"0,wavs/speakers/s{split}/u{split}.wav,s{split},Turn it on,activate,lights,kitchen\n"
        text(root, f"fluent_speech_commands_dataset/data/{split}_data.csv", head + row)
        audio(root, f"fluent_speech_commands_dataset/wavs/speakers/s{split}/u{split}.wav")
    return FluentSpeechCommands(root)


# What each lists: (key, labels, split, fold, speaker) of some clips.
CORPORA = {
    "audioset": (audioset, 5, [("balanced/--4gqARaEJE", {"event": ["Speech", "Male speech, man"]}, "train", None, None), ("eval/--4gqARaEJ_", {"event": ["Speech"]}, "eval", None, None)]),
    "librispeech": (librispeech, 2, [("train-clean-100/19-198-0000", {}, "train", None, "19"), ("dev-clean/84-1-0000", {}, "valid", None, "84")]),
    "ks1": (lambda root: SpeechCommands1(words(root, "speech_commands_v0.01")), 14, [("yes/b2_nohash_0", {"keyword": ["yes"]}, "valid", None, "b2"), ("happy/a1_nohash_1", {"keyword": ["_unknown_"]}, "train", None, "a1"), ("_silence_/white-009", {"keyword": ["_silence_"]}, "test", None, None)]),
    "ks2": (lambda root: SpeechCommands2(words(root, "speech_commands_v0.02")), 4, [("happy/a1_nohash_1", {"keyword": ["happy"]}, "train", None, "a1"), ("go/c3_nohash_0", {"keyword": ["go"]}, "test", None, "c3")]),
    "voxceleb1": (voxceleb1, 3, [("id10001/v1/00002", {}, "valid", None, "id10001"), ("id10002/v2/00001", {}, "test", None, "id10002")]),
    "iemocap": (iemocap, 15, [("Ses03F_impro01_M001", {"emotion": ["happy"]}, None, 3, "Ses03M")]),
    "esc50": (esc50, 2, [("5-9-A-3", {"event": ["cow"]}, None, 5, None)]),
    "fsd50k": (fsd50k, 3, [("dev/16399", {"event": ["Bell"]}, "valid", None, None), ("eval/37199", {"event": ["Bell", "Dog"]}, "test", None, None)]),
    "audioset strong": (audioset_strong, 2, [("train/--4gqARaEJE_0", {"event": ["Dog", "Speech"]}, "train", None, None), ("eval/-BfsT_iJF68_30000", {"event": ["Speech"]}, "eval", None, None)]),
    "maestro": (maestro, 20, [(f"development_audio/cafe_restaurant/cafe_restaurant_00@{n:04d}", labels, "train", None, None) for n, labels in enumerate([{"event": ["car"]}, {}])]),
    "desed": (desed, 4, [("dataset/audio/train/unlabel_in_domain/u", {}, "train", None, None), ("dataset/audio/train/weak/w", {"event": ["Cat", "Dog"]}, "train", None, None), ("dataset/audio/validation/validation/v", {"event": ["Cat"]}, "valid", None, None)]),
    "fluent": (fluent, 3, [("wavs/speakers/stest/utest", {"action": ["activate"], "object": ["lights"], "location": ["kitchen"], "intent": ["activate_lights_kitchen"]}, "test", None, "stest")]),
}  # fmt: skip


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_in_its_layout_becomes_shards(tmp_path, name):
    make, count, expected = CORPORA[name]
    corpus = make(tmp_path / "root")
    manifest = write_shards(corpus, tmp_path / "out", name=name)
    assert (manifest.clips, manifest.rejected, manifest.licence) == (count, 0, corpus.licence)
    assert manifest.licence != "unknown"
    index = open_shards([tmp_path / "out"])
    clips = {clip.key: clip for clip in map(index.describe, range(len(index)))}
    assert len(clips) == count
    for key, labels, split, fold, speaker in expected:
        clip = clips[key]
        assert (clip.labels, clip.split, clip.fold, clip.speaker) == (labels, split, fold, speaker)
    assert not any(str(clip.source).startswith("/") for clip in clips.values())


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (AudioSet, r"expected class_labels_indices.csv, balanced_train_segments.csv, .*found other/, readme.txt"),
        (LibriSpeech, r"expected train-clean-100/SPEAKER/CHAPTER/\*.flac .* found other/, readme.txt"),
        (
            SpeechCommands1,
            r"expected validation_list.txt, testing_list.txt in it or in speech_commands_v0.01; found other/",
        ),
        (VoxCeleb1, r"expected iden_split.txt; found other/"),
        (IEMOCAP, r"expected Session1, Session2, .* in it or in IEMOCAP; found other/"),
        (ESC50, r"expected meta/esc50.csv, audio in it or in ESC-50-master; found other/"),
        (FSD50K, r"expected FSD50K.ground_truth/dev.csv, .*found other/"),
        (DESED, r"expected audio, metadata in it or in dataset; found other/"),
        (AudioSetStrong, r"expected mid_to_display_name.tsv, audioset_train_strong.tsv, .*found other/"),
        (Maestro, r"expected development_audio in it or in MAESTRO_Real; found other/"),
        (FluentSpeechCommands, r"expected data/train_data.csv, .* found other/"),
    ],
)
def test_a_wrong_layout_says_what_was_expected_and_what_was_found(tmp_path, kind, message):
    (tmp_path / "other").mkdir()
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(ShardError, match=message):
        kind(tmp_path).recordings()
    with pytest.raises(ShardError, match="no such folder"):
        kind(tmp_path / "nowhere").recordings()


def test_silence_of_ks1_is_not_shared_between_splits_and_the_official_test_set_replaces_the_list(tmp_path):
    words(tmp_path / "root", "speech_commands_v0.01")
    classes = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "_silence_", "_unknown_")
    audio(tmp_path / "test", *(f"{name}/x.wav" for name in classes))
    recordings = SpeechCommands1(tmp_path / "root", test_root=tmp_path / "test").recordings()
    silences = [r for r in recordings if r.clip.labels["keyword"] == ["_silence_"] and r.clip.split != "test"]
    assert [(r.clip.split, r.start, r.end) for r in silences][-2:] == [("train", 7.0, 8.0), ("valid", 8.0, 9.0)]
    tested = [r.clip for r in recordings if r.clip.split == "test"]
    assert sorted(clip.labels["keyword"][0] for clip in tested) == sorted(classes)


def test_audioset_says_how_many_segments_are_missing(tmp_path, caplog):
    corpus = audioset(tmp_path)
    corpus.recordings()
    assert "1 of 6 segments have no file" in caplog.text
    with pytest.raises(
        ShardError, match=r"1 of the 2 segments of eval have a file; expected 90% at least.*--min_found"
    ):
        AudioSet(tmp_path, parts=["eval"], min_found=0.9).recordings()


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("ks1", "ks1"), ("ks2", "ks2"), ("sid", "voxceleb1"), ("er", "iemocap"), ("esc50", "esc50"),
        ("audioset20k", "audioset"), ("audioset2m", "audioset"), ("fsd50k", "fsd50k"),
    ],
)  # fmt: skip
def test_the_recipe_of_a_task_asks_for_what_its_corpus_writes(tmp_path, task, name):
    recipe = yaml.safe_load((ROOT / f"recipes/finetune/{task}.yaml").read_text())
    told = recipe["how_to_get"]
    assert f"CORPUS={CORPORA_BY_NAME[name]} " in told
    data = recipe["data"]
    assert data["shards"] == [f"shards/{CORPORA_BY_NAME[name] if '--out' not in told else 'audioset20k'}"]
    clips = [recording.clip for recording in CORPORA[name][0](tmp_path).recordings()]
    labelled = [
        clip for clip in clips if (clip.speaker if data["target"] == "speaker" else clip.labels.get(data["target"]))
    ]
    assert len(labelled) == len(clips)
    if data.get("protocol") == "fold":
        assert all(clip.fold for clip in clips)
        return
    splits = {clip.split for clip in clips}
    valid = data.get("validation_split", "valid")
    wanted = {data.get("train_split", "train"), data.get("test_split", "test"), *([valid] if valid else [])}
    assert wanted <= splits
