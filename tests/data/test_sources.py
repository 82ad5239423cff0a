"""Strong, weak and no labels in one batch: quotas, masks, aliases, soft events, and scores of other models."""

# ruff: noqa: E501

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from drawn_clips import indexed

from ssl_audio.data.clip import Clip, Event
from ssl_audio.data.columns import load_columns, save_columns
from ssl_audio.data.columns_of_clips import concatenate
from ssl_audio.data.corpora.corpus import Corpus, Recording
from ssl_audio.data.events import ClipEvents
from ssl_audio.data.index import open_shards
from ssl_audio.data.labelled import LabelledShards
from ssl_audio.data.pseudo_labels import PseudoLabels
from ssl_audio.data.sources import Source
from ssl_audio.data.writing import write_shards
from ssl_audio.errors import RecipeError, ShardError


class Noise(Corpus):
    """Clips of noise with what a test says of them."""

    licence = "CC0-1.0"

    def __init__(self, clips):
        self.clips = clips

    def recordings(self):
        return [Recording(clip=clip) for clip in self.clips]

    def waveform(self, recording, findings=None, *, sample_rate=16000):
        return np.random.default_rng(0).uniform(-0.3, 0.3, 8000).astype(np.float32)


def clips_of(name, labels, *, located=True, splits=("train",) * 4):
    return [
        Clip(
            key=f"{name}{number}", split=split, labels={"event": list(labels)} if labels else {},
            events=[Event(label=label, onset=0.1, offset=0.35) for label in labels] if located else [],
        )
        for number, split in enumerate(splits)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    made = {
        "strong": [*clips_of("s", ["dog"]), *clips_of("v", ["cat"], splits=("valid", "test", "train")),
                   *clips_of("silent", [], splits=("train", "valid"))],
        "weak": [*clips_of("w", ["cat", "hound"], located=False), *clips_of("wv", ["cat"], located=False, splits=("valid", "test"))],
        "none": clips_of("n", ["dog"], located=False),
    }  # fmt: skip
    for name, clips in made.items():
        write_shards(Noise(clips), root / name, name=name)
    return [root / name for name in made]


SOURCES = [
    Source(labelling="strong"),
    Source(labelling="weak", labels="own", aliases={"hound": ["dog", "hound"]}),
    Source(labelling="none"),
]


def data_of(folders, **options):
    given = {"sources": SOURCES, "quotas": [2, 2, 1], "batch_clips": 5, "frame_seconds": 0.1}
    return LabelledShards(shards=folders, target="event", several=True, crop_seconds=0.5, **given | options)


def test_batches_say_which_labels_are_strong_weak_unknown_and_valid(folders):
    data = data_of(folders)
    assert data.parts.labels == ["cat", "dog", "hound"]
    assert {str(key) for key in data.parts.valid.index.key} == {"v0", "silent1"}, "weak clips cannot be located"
    assert {str(key) for key in data.parts.test.index.key} == {"v1"}
    assert data.located
    batch = next(iter(data.train_dataloader()))
    kinds = {"s": 0, "v": 0, "silent": 0, "w": 1, "n": 2}
    assert sorted(kinds[key.rstrip("0123456789")] for key in batch.keys) == [0, 0, 1, 1, 2]
    for row, key in enumerate(batch.keys):
        kind = kinds[key.rstrip("0123456789")]
        assert int(batch.folder[row]) == kind
        assert bool(batch.strong[row]) == (kind == 0)
        assert bool(batch.known[row]) == (kind < 2)
        assert bool(batch.frames[row].any()) == (key[0] in "sv" and not key.startswith("silent"))
        if kind == 1:
            assert batch.targets[row].tolist() == [1.0, 1.0, 1.0], "an alias counts as both"
        if kind == 2:
            assert not batch.targets[row].any(), "its labels are not looked at"
    assert data.valid_labels is None
    only = data_of(folders, sources=[Source(labels=["dog"]), Source(labels="own"), Source(labelling="none")])
    assert only.valid_labels.tolist() == [[False, True, False], [True, False, True], [True, True, True]]
    frames = batch.frames[[key.startswith("s") and "silent" not in key for key in batch.keys]]
    assert frames[:, :, 1].sum(dim=1).tolist() == [3.0] * len(frames)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"sources": SOURCES[:2]}, "data.sources has 2 entries; expected one for each of the 3 data.shards"),
        ({"sources": [Source(aliases={"dgo": ["dog"]}), *SOURCES[1:]]}, "no clip has the label 'dgo'; did you mean 'dog'"),
        ({"sources": [Source(labels=["dgo"]), *SOURCES[1:]]}, "'dgo' is no label of the task; did you mean 'dog'"),
        ({"sources": [Source(labels=["dog"]), Source(labels=["dog"]), SOURCES[2]]}, "the label 'cat' is among those of none"),
        ({"sources": [Source(labelling="weak")] * 3}, "has events with onset and offset .* expected strong labels there"),
        ({"pseudo_labels": Path("nowhere")}, "no pseudo-labels .*write them with `ssl-audio pseudo`"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(folders, options, line):
    def first_batch():
        next(iter(data_of(folders, **options).train_dataloader()))

    with pytest.raises((RecipeError, ShardError), match=line) as caught:
        first_batch()
    assert "\n" not in str(caught.value)


def test_soft_events_keep_their_weights_in_json_index_and_frames(tmp_path):
    clips = [
        Clip(key=f"{n}", duration=1.0, events=[Event(label="car", onset=0.0, offset=0.5, weight=0.25 * n)])
        for n in range(4)
    ]
    assert [Clip.from_json(clip.key, clip.to_json()) for clip in clips] == clips
    assert b"weight" not in dataclasses.replace(clips[0], events=[Event(label="a", onset=0, offset=1)]).to_json()
    index = indexed(clips, folders=2)
    assert [index.events(clip)[0].weight for clip in range(4)] == [0.0, 0.25, 0.5, 0.75]
    whole = concatenate(index.columns)
    save_columns(whole, tmp_path / "index.arrow")
    np.testing.assert_array_equal(load_columns(tmp_path / "index.arrow").event_weights, [0.0, 0.25, 0.5, 0.75])
    events = ClipEvents(index, ["car", "vehicle"], aliases=[{"car": ["car", "vehicle"]}, {}])
    assert events.frames(2, start_seconds=0, frames=4, hop_seconds=0.25)[:, 0].tolist() == [0.5, 0.5, 0, 0]
    assert [len(events[clip].codes) for clip in range(4)] in ([2, 2, 1, 1], [2, 1, 2, 1])
    with pytest.raises(ShardError, match="a weight is 2"):
        Clip.from_json("a", b'{"events": [{"label": "a", "onset": 0, "offset": 1, "weight": 2}]}')


def test_scores_of_other_models_come_beside_the_targets(folders, tmp_path):
    index = open_shards(folders)
    keys = tuple(str(key) for key in index.key)
    logits = np.random.default_rng(0).standard_normal((len(keys), 4, 3)).astype(np.float16)
    made = PseudoLabels(keys[1:], ("hound", "dog", "cat"), 0.1, logits[1:])
    made.write(tmp_path / "pseudo")
    data = data_of(folders, pseudo_labels=tmp_path / "pseudo")
    batches = iter(data.train_dataloader())
    seen = set()
    for _ in range(6):
        batch = next(batches)
        for row, key in enumerate(batch.keys):
            seen.add(key)
            if key == keys[0]:
                assert batch.pseudo[row].isnan().all()
                continue
            wanted = logits[keys.index(key)][:, [2, 1, 0]].astype(np.float32)
            np.testing.assert_array_equal(batch.pseudo[row, :4], wanted)
            assert batch.pseudo[row, 4:].isnan().all()
    assert keys[0] in seen
    assert next(iter(data.val_dataloader())).pseudo is None
    (tmp_path / "pseudo/logits.npy").write_bytes(b"nothing")
    with pytest.raises(ShardError, match=r"damaged pseudo-labels; write them again"):
        PseudoLabels.read(tmp_path / "pseudo")
    with pytest.raises(ShardError, match=r"no scores of 'cat'"):
        dataclasses.replace(made, labels=("a", "b", "c")).for_clips(index, ["cat"])
