"""Packed targets are the dense ones; unlabelled clips train only; frames are active where events overlap them."""

import pickle

import numpy as np
import pytest
from drawn_clips import drawn, indexed
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_audio.data.clip import Clip, Event
from ssl_audio.data.events import ClipEvents, frame_targets
from ssl_audio.data.labels import part_clips
from ssl_audio.data.order import Order
from ssl_audio.data.streams import Labels, Quotas, Shuffled, Weighted
from ssl_audio.data.targets import Targets, balanced_shares
from ssl_audio.errors import RecipeError, ShardError

LABELS = 5


@given(st.lists(st.lists(st.integers(0, LABELS - 1), max_size=6), min_size=1, max_size=8), st.data())
@settings(max_examples=40, deadline=None)
def test_packed_targets_are_the_dense_ones(labels, data):
    dense = np.zeros((len(labels), LABELS), dtype=bool)
    for row, some in enumerate(labels):
        dense[row, some] = True
    found = Labels(
        np.array([code for some in labels for code in some], dtype=np.int32), np.cumsum([len(some) for some in labels])
    )
    packed = Targets.of(found, LABELS)
    chosen = np.array(data.draw(st.lists(st.integers(0, len(labels) - 1), max_size=9)), dtype=np.int64)
    np.testing.assert_array_equal(packed.dense(), dense)
    np.testing.assert_array_equal(Targets.of_dense(dense).codes, packed.codes)
    np.testing.assert_array_equal(packed.rows(chosen), dense[chosen].astype(np.float32))
    np.testing.assert_array_equal(packed.select(chosen).dense(), dense[chosen])
    np.testing.assert_array_equal(packed.counts(), dense.sum(axis=0))
    np.testing.assert_array_equal(packed.with_rest().dense(), np.column_stack([dense, ~dense.any(axis=1)]))
    by_label = packed.by_label()
    assert [column.tolist() for column in np.split(by_label.codes, by_label.ends[:-1])] == [
        np.flatnonzero(column).tolist() for column in dense.T
    ]
    weights = dense @ (1000.0 / (dense.sum(axis=0) + 0.01))
    weights[~dense.any(axis=1)] = 1000.0 / ((~dense.any(axis=1)).sum() + 0.01)
    np.testing.assert_allclose(balanced_shares(packed), weights / weights.sum(), rtol=1e-12)


def soft_clips() -> list[Clip]:
    draws = np.random.default_rng(0)
    clips = []
    for row in range(60):
        weights = {f"event{number}": round(float(draws.random()), 3) for number in draws.permutation(4)[:2]}
        split = ("train", "train", "valid", "test")[row % 4]
        clips.append(Clip(key=f"{row}", labels={"event": list(weights)}, soft={"event": weights}, split=split))
    return [Clip.from_json(clip.key, clip.to_json()) for clip in clips]


def test_soft_labels_are_weights_in_training_and_yes_or_no_elsewhere():
    clips = {clip.key: clip for clip in soft_clips()}
    parts = part_clips(indexed([*clips.values()]), target="event", several=True, protocol="split")
    for part in (parts.train, parts.valid, parts.test):
        for row, targets in enumerate(part.packed.rows(np.arange(len(part)))):
            weights = clips[part.index.key[row]].soft["event"]
            assert {parts.labels[code]: targets[code] for code in np.flatnonzero(targets)} == pytest.approx(weights)
        np.testing.assert_array_equal(part.targets, part.packed.dense() >= 0.5)
    again = pickle.loads(pickle.dumps(parts.train))
    assert "targets" not in vars(again)
    np.testing.assert_array_equal(again.targets, parts.train.targets)


@pytest.mark.parametrize(
    ("corpus", "way"),
    [
        ({"gaps": True}, {"protocol": "split"}),
        ({"gaps": True, "files": 60}, {"protocol": "random"}),
        ({"gaps": True, "files": 60}, {"protocol": "fold", "validation_share": 0.2}),
        ({"speakers": 30}, {"protocol": "split", "splits": ("train", None, "test")}),
    ],
)
def test_unlabelled_clips_train_only(corpus, way):
    clips = drawn(3, **corpus)
    clips = [Clip(**{**_fields(clip), "labels": {}}) if row % 4 == 0 else clip for row, clip in enumerate(clips)]
    index = indexed(clips, folders=2)
    task = {"target": "event", "several": True, **way}
    without, parts = part_clips(index, **task), part_clips(index, **task, unlabelled=True)
    train = parts.train
    for name in ("valid", "test"):
        assert list(getattr(parts, name).index.key) == list(getattr(without, name).index.key)
        assert getattr(parts, name).known.all()
    assert list(train.select(np.flatnonzero(train.known)).index.key) == list(without.train.index.key)
    np.testing.assert_array_equal(train.packed.select(np.flatnonzero(train.known)).dense(), without.train.targets)
    assert not train.packed.rows(np.flatnonzero(~train.known)).any()
    assert 20 < (~train.known).sum() < 150
    assert (np.diff(train.index.rows) > 0).all()
    held = np.concatenate([parts.valid.index.files, parts.test.index.files])
    assert not np.isin(train.index.files[~train.known], held).any()
    if "speakers" in corpus and not set(without.train.speakers) & set(without.valid.speakers):
        assert not set(train.speakers) & set(parts.valid.speakers)
    with pytest.raises(RecipeError, match=r"data\.negatives .*, data\.unlabelled as having any; choose one"):
        part_clips(index, **task, unlabelled=True, negatives=True)


def _fields(clip: Clip) -> dict:
    return {name: getattr(clip, name) for name in Clip.__dataclass_fields__}


@given(
    st.lists(st.tuples(st.floats(0, 12), st.floats(0, 3), st.integers(0, 2), st.floats(0, 1)), max_size=5),
    st.sampled_from([0.0, 0.35, 2.0]),
    st.sampled_from([0.1, 0.25, 1.0]),
)
@settings(max_examples=25, deadline=None)
def test_a_frame_is_active_where_an_event_overlaps_it(events, start, hop):
    onset, length, codes, weights = np.array(events, dtype=np.float64).reshape(-1, 4).T
    codes = codes.astype(np.int64)
    found = frame_targets(
        onset, onset + length, codes, weights, labels=3, start_seconds=start, frames=20, hop_seconds=hop
    )
    slack = 1e-5 * hop
    for frame in range(20):
        first, last = start + frame * hop, start + (frame + 1) * hop
        surely = (onset < last - slack) & (onset + length > first + slack)
        perhaps = (onset < last + slack) & (onset + length > first - slack)
        for label in range(3):
            least = max(weights[surely & (codes == label)], default=0.0)
            most = max(weights[perhaps & (codes == label)], default=0.0)
            assert np.float32(least) <= found[frame, label] <= np.float32(most)


def test_frames_of_clips_come_from_the_index():
    bounds = frame_targets(
        np.array([0.3, 0.5]),
        np.array([0.7, 0.5]),
        np.array([0, 1]),
        labels=2,
        start_seconds=0.0,
        frames=10,
        hop_seconds=0.1,
    )
    assert np.flatnonzero(bounds[:, 0]).tolist() == [3, 4, 5, 6]
    assert np.flatnonzero(bounds[:, 1]).tolist() == [5], "an event without length"
    clips = [
        Clip(
            key=f"{row}",
            duration=4.0,
            events=[Event(label=f"e{row % 3}", onset=row / 4, offset=row / 4 + 0.5)] * (row > 0),
        )
        for row in range(6)
    ]
    index = indexed(clips, folders=2).select(np.array([5, 0, 2]))
    events = ClipEvents(index, ["e2", "e1"])
    assert [events[clip].codes.tolist() for clip in range(3)] == [[0], [], [0]]
    assert index.event_counts.tolist() == [1, 0, 1]
    assert index.events(0) == clips[5].events
    frames = events.frames(0, start_seconds=1.0, frames=4, hop_seconds=0.25)
    np.testing.assert_array_equal(frames, [[0, 0], [1, 0], [1, 0], [0, 0]])


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9)), min_size=1, max_size=3),
    st.integers(1, 5),
    st.integers(0, 30),
    st.integers(1, 5),
)
@settings(max_examples=12, deadline=None)
def test_every_batch_of_every_rank_has_its_quotas(sources, world, batches, later):
    quotas, sizes = zip(*sources, strict=True)
    firsts = np.cumsum([0, *sizes])

    def stream() -> Quotas:
        return Quotas([Shuffled(np.zeros(size, np.int64), seed=number) for number, size in enumerate(sizes)], quotas)

    # A run goes on with another number of ranks, wherever it stopped.
    start = batches * sum(quotas)
    for ranks, place in ((world, start), (later, start + 2 * world * sum(quotas))):
        orders = [Order(stream(), sum(quotas), rank=rank, world=ranks) for rank in range(ranks)]
        for step in (0, 1):
            for order in orders:
                clips = [request.clip for request in order.batch(place + step * order.stride)]
                source = np.searchsorted(firsts, clips, side="right") - 1
                assert np.bincount(source, minlength=len(sizes)).tolist() == list(quotas)
    # Which clips come does not depend on how they are drawn, and each source goes on in its own order.
    pieces = [np.stack(stream().draw(place, 1)) for place in range(start, start + 2 * sum(quotas))]
    at_once = np.stack(stream().draw(start, 2 * sum(quotas)))
    assert sorted(map(tuple, np.concatenate(pieces, axis=1).T)) == sorted(map(tuple, at_once.T))
    assert len(stream()) == sum(sizes)


def test_wrong_quotas_are_told():
    streams = [Weighted(np.ones(3), seed=0), Weighted(np.ones(4), seed=0)]
    with pytest.raises(RecipeError, match="1 quotas for 2 sources"):
        Quotas(streams, [4])
    with pytest.raises(RecipeError, match=r"quotas are \[4, 0\]; expected 1 or more each"):
        Quotas(streams, [4, 0])


def test_events_outside_of_their_clip_are_refused(tmp_path):
    import soundfile

    from ssl_audio.data.corpora import Table
    from ssl_audio.data.writing import write_shards

    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.3, 0.3, 16000), 16000)
    (tmp_path / "meta.csv").write_text("path\na.wav\n")
    (tmp_path / "events.tsv").write_text("filename\tonset\toffset\tlabel\na.wav\t0.5\t1.2\tbell\na.wav\t1.5\t2\tdog\n")
    with pytest.raises(ShardError, match=r"event 'dog' from 1\.5 to 2 s lies outside of the clip, which lasts 1 s"):
        write_shards(Table(tmp_path), tmp_path / "out", name="x")
