"""What a pretraining is told not to hear, it does not hear; a slip of the pen is told rather than heard."""

from itertools import islice

import numpy as np
import pytest
import soundfile
from hostile import watched

from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.data.corpora import Table
from ssl_audio.data.index import open_shards
from ssl_audio.data.labels import Part
from ssl_audio.data.leaving_out import LeftOut
from ssl_audio.data.manifest import manifest_digest
from ssl_audio.data.unlabelled import AudioShards
from ssl_audio.data.writing import write_shards
from ssl_audio.errors import RecipeError
from ssl_audio.experiments.overlap import heard_before


@pytest.fixture
def folds(tmp_path):
    """24 clips in the folds 3, 5 and 9."""
    draws = np.random.default_rng(0)
    for number in range(24):
        soundfile.write(tmp_path / f"{number}.wav", draws.uniform(-0.3, 0.3, 8000), 16000)
    rows = [f"{number}.wav,{(3, 5, 9)[number % 3]},{'train' if number < 20 else 'test'}" for number in range(24)]
    (tmp_path / "meta.csv").write_text("path,fold,split\n" + "\n".join(rows) + "\n")
    write_shards(Table(tmp_path), tmp_path / "folds", name="folds", shard_clips=10)
    return tmp_path / "folds"


def test_clips_of_folds_splits_and_speakers_are_not_heard(folds, demo_shards):
    index = open_shards([demo_shards])
    speaker = next(s for s in (index.describe(row).speaker for row in range(len(index))) if s)
    data = AudioShards(
        shards=[demo_shards, folds],
        leave_out={
            str(folds): LeftOut(folds=[1], splits=["test"]),
            str(demo_shards): LeftOut(speakers=[speaker]),
        },
        crop_seconds=0.4,
        workers=0,
        batch_clips=8,
    )
    heard = {key for batch in islice(iter(data.train_dataloader()), 3 * len(data.index()) // 8) for key in batch.keys}
    spoken = {str(index.key[row]) for row in range(len(index)) if index.describe(row).speaker == speaker}
    others = {str(key) for key in index.key} - spoken
    assert spoken
    # Fold 1, counted from 0, is the one with the number 5.
    assert heard == others | {str(number) for number in range(20) if number % 3 != 1}


@pytest.mark.parametrize(
    ("leave_out", "expected"),
    [
        ({"folds": [3]}, r"folds: no clip has 3; there are 0, 1, 2"),
        ({"splits": ["tset"]}, r"splits: no clip has 'tset'; there are test, train"),
        ({"speakers": ["george"]}, r"speakers: no clip has 'george'; there are none"),
        ({"folds": [0, 1, 2]}, r"leaves none of 24 clips"),
    ],
)
def test_what_is_not_there_cannot_be_left_out(folds, leave_out, expected):
    with pytest.raises(RecipeError, match=expected):
        AudioShards(shards=[folds], leave_out={str(folds): LeftOut(**leave_out)}).index()


def test_shards_that_are_not_trained_on_are_told_with_what_was_meant(folds):
    with pytest.raises(RecipeError, match=f"fold, which is none of data.shards: .*; did you mean {folds}"):
        AudioShards(shards=[folds], leave_out={str(folds)[:-1]: LeftOut(folds=[0])}).index()


def test_what_a_pretraining_heard_of_a_test_is_counted(folds, demo_shards):
    index = open_shards([demo_shards, folds])
    part = Part(index=index, targets=np.zeros((len(index), 1), dtype=bool), speakers=np.full(len(index), ""))

    def heard(**data) -> int | None:
        recipe = {"data": {"crop_seconds": 1.0, "shards": [str(folds)], **data}}
        return heard_before(Checkpoint(folds, recipe, {}, 0, ""), part, [demo_shards, folds])

    assert heard() == 24
    assert heard(split="train") == 20
    assert heard(leave_out={str(folds): {"folds": [0], "splits": [], "speakers": []}}) == 16
    assert heard(shards=[str(folds.parent / "elsewhere")]) is None
    assert heard(target="label") is None, "a fine-tuning's recipe says nothing of its pretraining"
    assert heard_before(Checkpoint(folds, {"model": {}}, {}, 0, ""), part, [demo_shards, folds]) is None


def test_shards_that_a_checkpoint_names_are_compared_and_never_opened(folds, demo_shards, tmp_path):
    index = open_shards([folds])
    part = Part(index=index, targets=np.zeros((len(index), 1), dtype=bool), speakers=np.full(len(index), ""))

    def heard(name: str, *manifests: str | None, **data) -> int | None:
        recipe = {"data": {"crop_seconds": 1.0, "shards": [name]} | data}
        with watched(tmp_path) as seen:
            found = heard_before(Checkpoint(folds, recipe, {}, 0, "", manifests=manifests), part, [folds])
        assert not seen
        return found

    command = f"pipe:touch {tmp_path / 'ran'}"
    for name in (command, "http://127.0.0.1:9/a.tar", "/dev/zero", str(demo_shards), "a\0b"):
        assert heard(name) is None
        assert heard(name, manifest_digest(folds), split="train") == 20, "the same shards, wherever they lay"
        assert heard(name, manifest_digest(demo_shards)) == 0, "known to be others"
        assert heard(name, None) is None
    for wrong in ({"split": 3}, {"leave_out": {str(folds): {"folds": "all"}}}, {"leave_out": [1]}, {"shards": 5}):
        assert heard(str(folds), **wrong) is None
    assert not (tmp_path / "ran").exists()
