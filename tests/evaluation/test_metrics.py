"""Metrics: the published numbers, scikit-learn's, and intervals that say what they should."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from ssl_audio.errors import RecipeError, SslAudioError
from ssl_audio.evaluation.metrics import (
    Difference,
    accuracy,
    area_under_curve,
    average_precision,
    confusion,
    equal_error_rate,
    interval,
    mean_average_precision,
    mean_over_runs,
    paired,
    per_label,
    summarise,
)
from ssl_audio.evaluation.predictions import Predictions, joined


@pytest.mark.parametrize("kind", ["multilabel", "singlelabel"])
def test_published_statistics(golden, kind):
    """`calculate_stats` of YuanGongND/ast@31088be."""
    file = golden("metrics.pt")[kind]
    scores, targets = file["output"].numpy(), file["target"].numpy() > 0.5
    np.testing.assert_allclose(average_precision(scores, targets), file["AP"], atol=1e-6)
    np.testing.assert_allclose(area_under_curve(scores, targets), file["auc"], atol=1e-6)
    found = summarise(scores, targets, several=kind == "multilabel")
    for ours, theirs in (("mAP", "mAP"), ("AUC", "mAUC"), ("d_prime", "d_prime")):
        assert found[ours] == pytest.approx(float(file[theirs]), abs=1e-6)
    if kind == "singlelabel":
        assert found["accuracy"] == pytest.approx(float(file["acc"]), abs=1e-6)


def drawn(clips: int = 300, labels: int = 4, *, skill: float = 1.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    targets = np.eye(labels, dtype=bool)[rng.integers(0, labels, clips)]
    return (rng.normal(size=(clips, labels)) + skill * targets).astype(np.float64), targets


def test_metrics_are_scikit_learns():
    scores, targets = drawn()
    assert accuracy(scores, targets) == pytest.approx(sk.accuracy_score(targets.argmax(1), scores.argmax(1)), abs=1e-6)
    mean = sk.average_precision_score(targets, scores, average="macro")
    assert summarise(scores, targets, several=True)["mAP"] == pytest.approx(mean, abs=1e-6)
    assert confusion(scores, targets).sum() == 300
    recall = sk.recall_score(targets.argmax(1), scores.argmax(1), average=None)
    rows = per_label(scores, targets, ["a", "b", "c", "d"], several=False)
    np.testing.assert_allclose([row.recall for row in rows], recall, atol=1e-6)
    # A label that no clip has is left out of the means, not counted as 0.
    wider = np.concatenate([targets, np.zeros((300, 1), bool)], axis=1)
    more = np.concatenate([scores, scores[:, :1]], axis=1)
    assert summarise(more, wider, several=True)["mAP"] == pytest.approx(mean, abs=1e-6)


def test_equal_error_rate_of_two_normals():
    rng = np.random.default_rng(0)
    same = rng.random(200_000) < 0.3
    scores = rng.normal(size=len(same)) + 2.0 * same
    assert equal_error_rate(scores, same) == pytest.approx(stats.norm.cdf(-1.0), abs=0.003)
    assert equal_error_rate(np.array([0.0, 1.0]), np.array([False, True])) == 0.0
    with pytest.raises(RecipeError, match="both kinds"):
        equal_error_rate(np.array([0.0, 1.0]), np.array([True, True]))


def test_the_equal_error_rate_of_claims_is_that_of_all_clips_with_all_labels():
    scores, targets = drawn()
    accepted, found, _ = sk.roc_curve(targets.ravel(), scores.ravel())
    nearest = np.abs(accepted - (1 - found)).argmin()
    assert summarise(scores, targets, several=False)["EER"] == pytest.approx(accepted[nearest], abs=0.005)
    assert np.isnan(summarise(scores[:, :1], np.ones((300, 1), bool), several=False)["EER"])


def test_an_interval_holds_the_truth_and_a_difference_is_seen_only_where_there_is_one():
    truth = np.mean([accuracy(*drawn(seed=seed)) for seed in range(200)])
    inside = 0
    for seed in range(100):
        low, high = interval(*drawn(seed=1000 + seed), accuracy, draws=200)
        inside += low <= truth <= high
    assert 86 <= inside <= 100
    good, targets = drawn(skill=2.0)
    bad = np.random.default_rng(1).normal(size=good.shape)
    better = paired(good, bad, targets, accuracy, draws=300)
    assert better.is_one
    assert better.gain > 0.2
    assert better.p < 0.01
    nothing = paired(bad, bad[:, ::-1], targets, accuracy, draws=300)
    assert not nothing.is_one
    assert nothing.p > 0.05
    assert not Difference(gain=-0.02, low=-0.04, high=-0.002, p=0.06).is_one
    same = paired(good, good, targets, accuracy, draws=50)
    assert (same.gain, same.p) == (0.0, 1.0)
    # Clips of a speaker are alike, so few speakers are little evidence.
    groups = np.repeat(np.arange(6), 50)
    easy = np.where((groups < 3)[:, None], good + 5 * targets, bad)
    wide, narrow = interval(easy, targets, accuracy, groups=groups), interval(easy, targets, accuracy)
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


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
    assert mean_over_runs(shifted, thrice, mean_average_precision, runs) == pytest.approx(alone)
    assert mean_average_precision(shifted, thrice) < alone - 0.05
    groups = np.tile(np.arange(len(scores)), 3)
    together = interval(shifted, thrice, mean_average_precision, groups=groups, runs=runs, draws=200)
    assert together == pytest.approx(interval(scores, targets, mean_average_precision, draws=200), abs=0.02)
    better = np.concatenate([scores + targets] * 3)
    gained = paired(better, shifted, thrice, mean_average_precision, groups=groups, runs=runs, draws=100)
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
