"""Metrics: the published numbers, and scikit-learn's."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.metrics import (
    accuracy,
    area_under_curve,
    average_precision,
    confusion,
    equal_error_rate,
    per_label,
    summarise,
)
from ssl_audio.evaluation.pictures import confusion_picture
from ssl_audio.evaluation.predictions import Predictions


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


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("several", [False, True])
def test_one_class_only_is_measured_as_far_as_it_can_be(several):
    """Without a warning of numpy or scikit-learn: what cannot be measured is NaN."""
    scores = np.random.default_rng(0).uniform(size=(30, 3)).astype(np.float32)
    targets = np.zeros((30, 3), dtype=bool)
    targets[:, 1] = True
    found = summarise(scores, targets, several=several)
    assert 0 < found["accuracy"] < 1
    assert found["mAP"] == 1
    assert np.isnan([found["AUC"], found["d_prime"]]).all()
    assert [row.clips for row in per_label(scores, targets, ["a", "b", "c"], several=several)] == [0, 30, 0]
    confusion(scores, targets)
    shown = Predictions(
        labels=["a", "b", "c"],
        several=several,
        keys=np.array([str(row) for row in range(30)]),
        scores=scores,
        targets=targets,
        speakers=np.full(30, "s"),
    )
    assert np.isfinite(shown.interval()).all()
    assert np.isnan(summarise(scores, np.zeros_like(targets), several=True)["mAP"])


def test_any_label_may_stand_in_a_picture(recwarn):
    labels = [r"$\foo$", "a\x1b[31m\nb", "\u65e5\u672c"]
    assert confusion_picture(np.eye(3), labels).startswith(b"\x89PNG")
    assert not recwarn.list
