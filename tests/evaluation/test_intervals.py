"""Intervals and differences: scikit-learn's measures of what was drawn, and what they should say."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from ssl_audio.errors import SslAudioError
from ssl_audio.evaluation.intervals import (
    Difference,
    Resampling,
    accuracy_of_draws,
    mean_average_precision_of_draws,
    mean_over_runs,
)
from ssl_audio.evaluation.metrics import accuracy, mean_average_precision
from ssl_audio.evaluation.predictions import Predictions, joined


def drawn(clips: int = 300, labels: int = 4, *, skill: float = 1.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    targets = np.eye(labels, dtype=bool)[rng.integers(0, labels, clips)]
    return (rng.normal(size=(clips, labels)) + skill * targets).astype(np.float64), targets


@given(seed=st.integers(0, 10_000), clips=st.integers(1, 40))
def test_measures_of_draws_are_scikit_learns_of_the_clips_that_were_drawn(seed, clips):
    """With equal scores, clips of no label and of several, and labels that no clip has or that none of a draw has."""
    rng = np.random.default_rng(seed)
    scores, targets = rng.integers(0, 6, (clips, 3)) / 6, rng.random((clips, 3)) < rng.choice([0.0, 0.1, 0.5, 1.0], 3)
    counts = np.stack([np.bincount(rng.integers(0, clips, clips), minlength=clips) for _ in range(5)], axis=1)
    hits, means = (f(scores, targets, counts) for f in (accuracy_of_draws, mean_average_precision_of_draws))
    for draw, times in enumerate(counts.T):
        rows = np.repeat(np.arange(clips), times)
        own = [
            sk.average_precision_score(targets[rows, label], scores[rows, label])
            for label in range(3)
            if targets[rows, label].any()
        ]
        np.testing.assert_allclose(means[draw], np.mean(own) if own else np.nan, atol=1e-12)
        np.testing.assert_allclose(hits[draw], accuracy(scores[rows], targets[rows]), atol=1e-12)


def test_an_interval_holds_the_truth_and_a_difference_is_seen_only_where_there_is_one():
    truth = np.mean([accuracy(*drawn(seed=seed)) for seed in range(200)])
    inside = 0
    for seed in range(100):
        low, high = Resampling(draws=200).interval(*drawn(seed=1000 + seed), accuracy_of_draws)
        inside += low <= truth <= high
    assert 86 <= inside <= 100
    good, targets = drawn(skill=2.0)
    bad = np.random.default_rng(1).normal(size=good.shape)
    better = Resampling(draws=300).paired(good, bad, targets, accuracy_of_draws)
    assert better.is_one
    assert better.gain > 0.2
    assert better.p < 0.01
    nothing = Resampling(draws=300).paired(bad, bad[:, ::-1], targets, accuracy_of_draws)
    assert not nothing.is_one
    assert nothing.p > 0.05
    assert not Difference(gain=-0.02, low=-0.04, high=-0.002, p=0.06).is_one
    same = Resampling(draws=50).paired(good, good, targets, accuracy_of_draws)
    assert (same.gain, same.p) == (0.0, 1.0)
    # Clips of a speaker are alike, so few speakers are little evidence.
    groups = np.repeat(np.arange(6), 50)
    easy = np.where((groups < 3)[:, None], good + 5 * targets, bad)
    wide, narrow = (
        Resampling(groups=groups).interval(easy, targets, accuracy_of_draws),
        Resampling().interval(easy, targets, accuracy_of_draws),
    )
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_how_often_chance_gives_as_much_is_scipys():
    targets = np.random.default_rng(0).random((60, 2)) < 0.3
    first, second = (np.random.default_rng(seed).normal(size=(60, 2)) + 0.5 * targets for seed in (1, 10))
    both, twice = np.concatenate([first, second]), np.concatenate([targets, targets])

    def gain(one, other):
        return mean_average_precision(both[one], twice[one]) - mean_average_precision(both[other], twice[other])

    found = Resampling(draws=4000).paired(first, second, targets, mean_average_precision_of_draws)
    rows = np.arange(60)
    expected = stats.permutation_test(
        (rows, rows + 60), gain, permutation_type="samples", n_resamples=500, rng=np.random.default_rng(2)
    )
    assert found.gain == pytest.approx(expected.statistic)
    assert 0.05 < expected.pvalue < 0.95
    assert found.p == pytest.approx(expected.pvalue, abs=0.08)


def test_a_speaker_that_is_drawn_twice_counts_twice_though_a_run_of_its_own_tested_it():
    """Speakers left out in turn: a run a speaker. Its interval is that of the mean of so many independent numbers."""
    rng = np.random.default_rng(0)
    share = rng.uniform(0.1, 0.9, 12)
    runs = np.repeat(np.arange(12), 50)
    right = rng.random(600) < share[runs]
    targets = np.eye(2, dtype=bool)[rng.integers(0, 2, 600)]
    answers = Predictions(
        labels=["a", "b"], several=False, keys=np.arange(600).astype(str),
        scores=np.where(right[:, None], targets, ~targets).astype(float), targets=targets,
        speakers=runs.astype(str), runs=runs,
    )  # fmt: skip
    each = np.array([right[runs == run].mean() for run in range(12)])
    low, high = answers.interval(over="speakers")
    expected = stats.bootstrap((each,), np.mean, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.015)
    narrow = answers.interval()
    assert high - low > 2 * (narrow[1] - narrow[0])
    worse = dataclasses.replace(answers, scores=np.where((runs < 4)[:, None], answers.scores, ~targets).astype(float))
    gain = answers.against(worse, over="speakers")
    assert gain.gain == pytest.approx(each[4:].sum() / 12)
    assert gain.is_one
    unnamed = dataclasses.replace(answers, speakers=np.full(600, ""))
    with pytest.raises(SslAudioError, match="600 of 600 test clips name no speaker"):
        unnamed.interval(over="speakers")


def test_runs_are_measured_each_by_itself():
    """Scores of two models do not rank together: mAP of several runs is the mean of each one's, and so is what is
    drawn of it."""
    scores, targets = drawn()
    runs = np.repeat(np.arange(3), len(scores))
    shifted = np.concatenate([scores, scores - 3, scores + 3])
    thrice = np.concatenate([targets] * 3)
    alone = mean_average_precision(scores, targets)
    assert mean_over_runs(shifted, thrice, mean_average_precision_of_draws, runs) == pytest.approx(alone)
    assert mean_average_precision(shifted, thrice) < alone - 0.05
    groups = np.tile(np.arange(len(scores)), 3)
    together = Resampling(groups=groups, runs=runs, draws=200).interval(
        shifted, thrice, mean_average_precision_of_draws
    )
    assert together == pytest.approx(
        Resampling(draws=200).interval(scores, targets, mean_average_precision_of_draws), abs=0.02
    )
    better = np.concatenate([scores + targets] * 3)
    gained = Resampling(groups=groups, runs=runs, draws=100).paired(
        better, shifted, thrice, mean_average_precision_of_draws
    )
    assert gained.gain == pytest.approx(mean_average_precision(scores + targets, targets) - alone)

    def answers(values, run):
        count = len(targets)
        return Predictions(
            labels=list("abcd")[: targets.shape[1]], several=True, keys=np.arange(count).astype(str), scores=values,
            targets=targets, speakers=np.full(count, ""), runs=run,
        )  # fmt: skip

    seeds = joined([answers(scores - 3, None), joined([answers(scores, None), answers(scores + 3, None)])])
    assert np.unique(seeds.runs).tolist() == [0, 1, 2]
    assert seeds.headline == pytest.approx(alone)
    with pytest.raises(SslAudioError, match="in other runs"):
        seeds.against(dataclasses.replace(seeds, runs=seeds.runs[::-1]))
