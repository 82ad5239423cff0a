"""Streams and plans: every clip as often as promised, on any number of ranks, from any place on."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_audio.data.order import Bucketed, Filled, Once, Order
from ssl_audio.data.streams import Labels, Mixture, Shuffled, Weighted, balanced_weights
from ssl_audio.errors import RecipeError

ragged = st.lists(st.integers(1, 17), min_size=1, max_size=7)
worlds = st.integers(1, 4)


def stream_of(sizes: list[int], *, seed: int = 0, window: int = 10) -> Shuffled:
    return Shuffled(np.repeat(np.arange(len(sizes)), sizes), seed=seed, window_clips=window)


def drawn(stream, start: int, count: int) -> list[tuple[int, int]]:
    return list(zip(*(part.tolist() for part in stream.draw(start, count)), strict=True))


@settings(max_examples=150, deadline=None)
@given(sizes=ragged, window=st.integers(1, 40), seed=st.integers(0, 3), batch=st.integers(1, 9), world=worlds)
def test_windows_hold_whole_shards_and_epochs_every_clip_once(sizes, window, seed, batch, world):
    clips, shard = sum(sizes), np.repeat(np.arange(len(sizes)), sizes)
    stream = stream_of(sizes, seed=seed, window=window)
    every = drawn(stream, 0, 3 * clips)
    for epoch in range(3):
        some = every[epoch * clips : (epoch + 1) * clips]
        assert sorted(clip for clip, _ in some) == list(range(clips))
        # A shard once left is not read again: that is what bounds the memory.
        order = [shard[clip] for clip, _ in some]
        spans = [max(i for i, s in enumerate(order) if s == n) - order.index(n) + 1 for n in range(len(sizes))]
        assert max(spans) <= window + max(sizes)
    ranks = [Order(stream, batch, rank=rank, world=world) for rank in range(world)]
    steps = 2 * clips // (batch * world)
    taken = [[order.batch(step * order.stride) for step in range(steps)] for order in ranks]
    merged = [tuple(taken[r][s][p][:2]) for s in range(steps) for p in range(batch) for r in range(world)]
    assert merged == every[: len(merged)]


@settings(max_examples=100, deadline=None)
@given(
    sizes=ragged, world=worlds, other=worlds, batch=st.integers(1, 5), stop=st.integers(0, 9), again=st.integers(1, 7)
)
def test_another_number_of_ranks_and_clips_goes_on_with_the_next_clip(sizes, world, other, batch, stop, again):
    stream, clips = stream_of(sizes), sum(sizes)
    place = stop * batch * world
    before = [
        r
        for s in range(stop)
        for rank in range(world)
        for r in Order(stream, batch, 0, rank, world).batch(s * batch * world)
    ]
    steps = -(-2 * clips // (again * other))
    after = [
        request
        for rank in range(other)
        for requests in islice(Order(stream, again, 0, rank, other).batches(place=place), steps)
        for request in requests
    ]
    counted = {(request.clip, request.epoch) for request in [*before, *after]}
    assert len(counted) == len(before) + len(after)
    whole = (len(before) + len(after)) // clips
    assert all((clip, epoch) in counted for epoch in range(whole) for clip in range(clips))


@settings(max_examples=100, deadline=None)
@given(sizes=ragged, world=worlds, budget=st.floats(0.5, 30), most=st.integers(1, 8), seed=st.integers(0, 3))
def test_a_budget_of_seconds_is_kept_and_every_clip_comes_once(sizes, world, budget, most, seed):
    clips = sum(sizes)
    seconds = np.random.default_rng(seed).gamma(2.0, 2.0, clips).astype(np.float32)
    orders = [
        Bucketed(stream_of(sizes), seconds, batch_seconds=budget, most_clips=most, rank=rank, world=world)
        for rank in range(world)
    ]
    batches = orders[0].epoch_batches
    steps = -(-2 * batches // world)
    ranks = [list(islice(order.batches(), steps)) for order in orders]
    stream = [ranks[rank][step] for step in range(steps) for rank in range(world)]
    for epoch in range(2):
        some = [request for requests in stream[epoch * batches : (epoch + 1) * batches] for request in requests]
        assert sorted(some) == [(clip, epoch, False) for clip in range(clips)]
    for requests in stream:
        lengths = seconds[[request.clip for request in requests]]
        assert len(requests) == 1 or lengths.max() * len(requests) <= budget * 1.0001
        assert len(requests) <= most
        assert lengths.max() <= lengths.min() * 1.21
    assert list(islice(orders[-1].batches(place=3 * world), 2)) == ranks[-1][3:5] or steps < 5


@settings(max_examples=40, deadline=None)
@given(sizes=ragged, world=worlds, budget=st.integers(90, 400), seed=st.integers(0, 3))
def test_a_budget_of_tokens_is_kept_in_any_order_and_every_clip_comes_once(sizes, world, budget, seed):
    clips = sum(sizes)
    tokens = np.random.default_rng(seed).integers(1, 31, clips)
    orders = [Filled(stream_of(sizes), tokens, budget=budget, rank=rank, world=world) for rank in range(world)]
    batches = orders[0].epoch_batches
    steps = -(-2 * batches // world)
    ranks = [list(islice(order.batches(), steps)) for order in orders]
    stream = [ranks[rank][step] for step in range(steps) for rank in range(world)]
    for epoch in range(2):
        some = [request for requests in stream[epoch * batches : (epoch + 1) * batches] for request in requests]
        expected = stream_of(sizes).draw(epoch * clips, clips)[0].tolist()
        assert [request.clip for request in some] == expected
    assert all(0 < sum(tokens[request.clip] for request in requests) <= budget for requests in stream)
    assert list(islice(orders[-1].batches(place=3 * world), 2)) == ranks[-1][3:5] or steps < 5


def test_a_budget_of_tokens_has_room_for_three_of_the_longest_clips():
    with pytest.raises(RecipeError, match="batch_tokens is 89, and the longest clip counts 30; expected at least"):
        Filled(stream_of([5]), np.array([1, 30, 4, 4, 4]), budget=89)


@settings(max_examples=150, deadline=None)
@given(sizes=ragged, world=worlds, batch=st.integers(1, 9))
def test_validation_counts_every_clip_once_on_any_number_of_ranks(sizes, world, batch):
    orders = [Once(stream_of(sizes), batch, rank=rank, world=world) for rank in range(world)]
    ranks = [list(order.batches()) for order in orders]
    assert {len(batches) for batches in ranks} == {orders[0].steps}
    counted = [r.clip for batches in ranks for requests in batches for r in requests if not r.filler]
    assert sorted(counted) == list(range(sum(sizes)))
    assert all(0 < len(requests) <= batch for batches in ranks for requests in batches)


def test_a_mixture_keeps_its_shares_and_each_stream_its_own_order():
    streams = [stream_of([5, 6], seed=1), stream_of([40], seed=2), stream_of([7], seed=3)]
    mixture = Mixture(streams, [0.5, 0.3, 0.2], seed=0)
    clips = mixture.draw(0, 5000)[0]
    assert len(mixture) == 58
    for first, size, stream, share in zip((0, 11, 51), (11, 40, 7), streams, (0.5, 0.3, 0.2), strict=True):
        mine = clips[(clips >= first) & (clips < first + size)] - first
        assert len(mine) / 5000 == pytest.approx(share, abs=0.01)
        np.testing.assert_array_equal(mine, stream.draw(0, len(mine))[0])
    np.testing.assert_array_equal(mixture.draw(1500, 700)[0], clips[1500:2200])
    with pytest.raises(RecipeError, match="2 weights for 3 corpora"):
        Mixture(streams, [1, 2], seed=0)


def test_balanced_draws_make_rare_classes_as_frequent_as_common_ones():
    # 900 clips of class 0, 90 of class 1, 10 of both 0 and 2.
    labels = [[0]] * 900 + [[1]] * 90 + [[0, 2]] * 10
    ends = np.cumsum([len(some) for some in labels])
    weights = balanced_weights(Labels(np.array([code for some in labels for code in some]), ends))
    assert weights[0] == pytest.approx(1000 / 910.01)
    assert weights[-1] == pytest.approx(1000 / 910.01 + 1000 / 10.01)
    stream = Weighted(weights, seed=4)
    clips, places = stream.draw(0, 30000)
    shares = [sum(code in labels[clip] for clip in clips) / 30000 for code in (1, 2)]
    assert shares == pytest.approx([1 / 3, 1 / 3], abs=0.02)
    assert len(set(places)) == 30000
    np.testing.assert_array_equal(stream.draw(4000, 5000)[0], clips[4000:9000])
    with pytest.raises(RecipeError, match="above 0"):
        Weighted(np.zeros(3), seed=0)
