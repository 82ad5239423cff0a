"""Who trains, chooses and tests: disjoint, complete, and the same for every encoder of a seed."""

import dataclasses
import math

import numpy as np
import pytest
from drawn_clips import indexed

from ssl_audio.data.clip import Clip
from ssl_audio.data.labelled import LabelledShards
from ssl_audio.data.labels import part_clips
from ssl_audio.data.remarks import say_once
from ssl_audio.data.streams import Weighted
from ssl_audio.data.targets import Targets, balanced_shares
from ssl_audio.errors import RecipeError, ShardError


def corpus(count: int = 120, **columns) -> list[Clip]:
    """Clips with labels, speakers and folds of our choosing."""
    clips = [
        Clip(
            key=f"clip{row:03d}",
            duration=1.0,
            labels={"label": [f"label{row % 4}"]},
            speaker=f"speaker{row % 10}",
            fold=1 + row % 5,
            split=("train", "train", "train", "valid", "test")[(row // 4) % 5],
        )
        for row in range(count)
    ]
    return [dataclasses.replace(clip, **columns) for clip in clips]


def keys(part) -> set[str]:
    return {str(key) for key in part.index.key}


@pytest.mark.parametrize("protocol", ["split", "fold", "random"])
@pytest.mark.parametrize("share", [None, 0.2])
def test_parts_are_disjoint(protocol, share):
    clips = corpus()
    parts = part_clips(indexed(clips), target="label", several=False, protocol=protocol, validation_share=share)
    sets = [keys(part) for part in (parts.train, parts.valid, parts.test)]
    assert all(sets)
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]
    again = part_clips(indexed(clips), target="label", several=False, protocol=protocol, validation_share=share)
    assert [keys(part) for part in (again.train, again.valid, again.test)] == sets
    if protocol == "fold":
        tests = [
            keys(part_clips(indexed(clips), target="label", several=False, protocol="fold", fold=fold).test)
            for fold in range(5)
        ]
        assert sum(map(len, tests)) == len(set().union(*tests)) == len(clips)
        # Folds are by speaker here, so a tested speaker neither trains nor chooses.
        assert not set(parts.test.speakers) & (set(parts.train.speakers) | set(parts.valid.speakers))
    if share is not None and protocol != "random":
        assert not set(parts.train.speakers) & set(parts.valid.speakers)


def test_few_labels_are_few_of_each():
    clips = corpus()
    parts = part_clips(indexed(clips), target="label", several=False, protocol="split", labels_per_class=3)
    assert parts.train.targets.sum(axis=0).tolist() == [3, 3, 3, 3]
    assert parts.valid.targets.sum(axis=0).max() <= 3
    whole = part_clips(indexed(clips), target="label", several=False, protocol="split")
    assert keys(parts.train) <= keys(whole.train)
    assert keys(parts.valid) <= keys(whole.valid)
    assert keys(parts.test) == keys(whole.test)


def test_mistakes_in_labels_are_told():
    clips = corpus()
    two = [dataclasses.replace(clips[0], labels={"label": ["label0", "label1"]}), *clips[1:]]
    with pytest.raises(RecipeError, match=r"1 clips have several labels of kind 'label' .*--data.several true"):
        part_clips(indexed(two), target="label", several=False, protocol="split")
    parts = part_clips(indexed(two), target="label", several=True, protocol="split")
    assert parts.labels == ["label0", "label1", "label2", "label3"]
    rare = [dataclasses.replace(clip, labels={"label": ["rare"]}) if clip.split == "test" else clip for clip in clips]
    with pytest.raises(ShardError, match=r"no training clip has the label rare \(1 of 5 labels\)"):
        part_clips(indexed(rare), target="label", several=False, protocol="split")
    with pytest.raises(RecipeError, match=r"data\.fold is 5; these clips have the folds 0 to 4"):
        part_clips(indexed(clips), target="label", several=False, protocol="fold", fold=5)


def test_balanced_draws_favour_rare_labels():
    targets = np.zeros((100, 2), dtype=bool)
    targets[:90, 0], targets[90:, 1] = True, True
    weights = balanced_shares(Targets.of_dense(targets))
    assert weights[95] / weights[5] == pytest.approx(9.0, rel=1e-2)
    drawn, _ = Weighted(weights, seed=1).draw(0, 2000)
    assert (drawn >= 90).mean() == pytest.approx(0.5, abs=0.05)


def said(caplog) -> list[str]:
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    say_once.cache_clear()
    return found


def test_clips_that_come_into_no_part_are_said(caplog):
    say_once.cache_clear()
    clips = corpus()
    odd = {"valid": "dev", "test": "Test"}
    renamed = [dataclasses.replace(clip, split=odd.get(clip.split, clip.split)) for clip in clips]
    with pytest.raises(ShardError, match=r"in split 'test'; .* Test, dev, train; did you mean 'Test'\?"):
        part_clips(indexed(renamed), target="label", several=False, protocol="split", splits=("train", None, "test"))
    part_clips(indexed(renamed), target="label", several=False, protocol="split", splits=("train", None, "Test"))
    hint = " (data.train_split, data.validation_split and data.test_split name the parts)"
    assert said(caplog) == [f"24 labelled clips of split 'dev' are in no part{hint}"]
    few = [dataclasses.replace(clip, split="Train") if row == 0 else clip for row, clip in enumerate(clips)]
    few[4] = dataclasses.replace(few[4], split=None)
    part_clips(indexed(few), target="label", several=False, protocol="split")
    assert said(caplog) == [
        "1 labelled clip without a split is in no part",
        f"1 labelled clip of split 'Train' is in no part; did you mean 'train'?{hint}",
    ]
    part_clips(indexed(clips), target="label", several=False, protocol="split", validation_share=0.2)
    assert said(caplog) == [f"24 labelled clips of split 'valid' are in no part{hint}"]
    folds = [dataclasses.replace(clip, fold=None) if row < 3 else clip for row, clip in enumerate(clips)]
    part_clips(indexed(folds), target="label", several=False, protocol="fold")
    assert said(caplog) == ["3 labelled clips without a fold are in no part"]


@pytest.mark.parametrize("protocol", ["split", "fold", "random"])
def test_background_trains_chooses_and_tests_where_it_is_asked_for(caplog, protocol):
    say_once.cache_clear()
    clips = corpus()
    clips = [dataclasses.replace(clip, labels={}) if row % 3 == 0 else clip for row, clip in enumerate(clips)]
    without = part_clips(indexed(clips), target="label", several=True, protocol=protocol)
    assert sum(len(part) for part in (without.train, without.valid, without.test)) == 80
    (line,) = said(caplog)
    assert line.startswith("40 of 120 clips have no label of kind 'label' and are left out; ")
    parts = part_clips(indexed(clips), target="label", several=True, protocol=protocol, negatives=True)
    assert parts.labels == without.labels
    assert sum(len(part) for part in (parts.train, parts.valid, parts.test)) == 120
    for part in (parts.train, parts.valid, parts.test):
        assert 0.2 < (~part.targets.any(axis=1)).mean() < 0.5
    assert not said(caplog)
    few = part_clips(
        indexed(clips), target="label", several=True, protocol=protocol, negatives=True, labels_per_class=2
    )
    assert (~few.train.targets.any(axis=1)).sum() == 2
    weights = balanced_shares(parts.train.packed)
    shares = [weights[row].sum() for row in (*parts.train.targets.T, ~parts.train.targets.any(axis=1))]
    np.testing.assert_allclose(shares, 0.2, atol=0.01)
    with pytest.raises(RecipeError, match=r"exactly one label a clip; set --data\.several true"):
        part_clips(indexed(clips), target="label", several=False, protocol=protocol, negatives=True)


@pytest.mark.parametrize("several", [False, True])
def test_one_class_only_is_nothing_to_tell_apart(several):
    clips = corpus(labels={"label": ["yes"]})
    with pytest.raises(ShardError, match="all 120 clips have the one label 'yes', so there is nothing to tell apart"):
        part_clips(indexed(clips), target="label", several=several, protocol="split")
    mixed = [dataclasses.replace(clip, labels={}) if row % 2 else clip for row, clip in enumerate(clips)]
    parts = part_clips(indexed(mixed), target="label", several=True, protocol="split", negatives=True)
    assert parts.labels == ["yes"]
    quiet = [dataclasses.replace(clip, labels={}) if clip.split == "test" else clip for clip in clips]
    with pytest.raises(ShardError, match="no clip that tests has a label, so nothing can be measured"):
        part_clips(indexed(quiet), target="label", several=True, protocol="split", negatives=True)


@pytest.mark.parametrize("protocol", ["split", "random"])
def test_stretches_of_one_file_are_never_parted(protocol):
    """Where parts are drawn; a source that is no file parts nothing."""
    clips = corpus(speaker=None)
    splits = ("train", None, "test")
    drawn = part_clips(indexed(clips), target="label", several=False, protocol=protocol, splits=splits)
    collection = [dataclasses.replace(clip, source="freesound") for clip in clips]
    same = part_clips(indexed(collection), target="label", several=False, protocol=protocol, splits=splits)
    assert [keys(part) for part in (same.train, same.valid, same.test)] == [
        keys(part) for part in (drawn.train, drawn.valid, drawn.test)
    ]
    clips = [dataclasses.replace(clip, source=f"{row // 3 % 20}.wav") for row, clip in enumerate(clips)]
    file = {clip.key: clip.source for clip in clips}
    parts = part_clips(indexed(clips), target="label", several=False, protocol=protocol, splits=splits)
    train, valid, test = ({file[key] for key in keys(part)} for part in (parts.train, parts.valid, parts.test))
    assert not train & valid
    assert valid
    if protocol == "random":
        assert not (train | valid) & test
        assert 0.1 < len(parts.test) / len(clips) < 0.4


def test_batches_of_a_task_have_what_is_known_of_their_clips(demo_shards):
    """Quotas by source, clips without labels, and targets of frames: in one batch, whatever takes them."""
    data = LabelledShards(
        shards=[demo_shards],
        target="event",
        several=True,
        unlabelled=True,
        frame_seconds=0.1,
        batch_clips=16,
        crop="start",
    )
    reader, plan = data.training()
    known = set()
    for step in range(3):
        requests = plan.batch(step * plan.stride)
        batch, _ = reader.__getitems__(requests)
        part = data.parts.train
        clips = batch.clip_numbers.numpy()
        assert [str(part.index.key[clip]) for clip in clips] == list(batch.keys)
        np.testing.assert_array_equal(batch.targets.numpy(), part.packed.rows(clips))
        np.testing.assert_array_equal(batch.known.numpy(), part.known[clips])
        assert not batch.targets[~batch.known].any()
        assert batch.frames.shape == (16, math.ceil(batch.waveforms.shape[1] / 1600), len(data.parts.labels))
        # Where a clip has events, its frames have their labels and no others.
        has = batch.frames.amax(dim=1) > 0
        assert (batch.targets[has.any(dim=1)].bool() == has[has.any(dim=1)]).all()
        known |= set(batch.known.tolist())
    assert known == {False, True}
    with pytest.raises(RecipeError, match=r"data.quotas is \[3, 5\]; expected one number for each of the 1"):
        LabelledShards(shards=[demo_shards], target="event", quotas=[3, 5], batch_clips=8).training()
