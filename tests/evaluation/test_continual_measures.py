"""Measures of continual learning on matrices computed by hand, and a classifier that is one regression on all tasks."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from ssl_audio.evaluation.analytic import AnalyticClassifier
from ssl_audio.evaluation.continual import measures, plain

# Three tasks: the first falls from .9 over .7 to .6, the second from .8 to .6, the third is learnt with .7. Ahead of
# them .3 and .5 were known, at the start .2 and .1.
SCORES = np.array([[0.9, 0.3, 0.2], [0.7, 0.8, 0.5], [0.6, 0.6, 0.7]])
BEFORE = np.array([0.1, 0.2, 0.1])
BY_HAND = {
    "average": (0.6 + 0.6 + 0.7) / 3,
    "average_incremental": (0.9 + (0.7 + 0.8) / 2 + (0.6 + 0.6 + 0.7) / 3) / 3,
    "learning": (0.9 + 0.8 + 0.7) / 3,
    "backward_transfer": ((0.6 - 0.9) + (0.6 - 0.8)) / 2,
    "forward_transfer": ((0.3 - 0.2) + (0.5 - 0.1)) / 2,
    "forgetting": ((0.9 - 0.6) + (0.8 - 0.6)) / 2,
}


def test_measures_are_those_computed_by_hand():
    found = plain(measures(SCORES, BEFORE))
    assert found == pytest.approx(BY_HAND)
    # Forgetting is from the best score, backward transfer from the first: here the first task improves, then falls.
    better = SCORES.copy()
    better[1, 0] = 0.95
    found = plain(measures(better, BEFORE))
    assert found["forgetting"] == pytest.approx(((0.95 - 0.6) + (0.8 - 0.6)) / 2)
    assert found["backward_transfer"] == pytest.approx(BY_HAND["backward_transfer"])


def test_measures_are_those_of_avalanche():
    # What `StreamForgetting` and `StreamForwardTransfer` of avalanche-lib 0.6.0 (avalanche/evaluation/metrics/
    # forgetting_bwt.py and forward_transfer.py, run unchanged) said after each of four experiences of this matrix.
    scores = np.array(
        [[0.91, 0.34, 0.22, 0.15], [0.72, 0.83, 0.51, 0.20], [0.80, 0.64, 0.77, 0.41], [0.61, 0.58, 0.70, 0.88]]
    )
    before = np.array([0.10, 0.21, 0.12, 0.17])
    forgetting = (0.0, 0.19, 0.15, 0.2066666666666667)
    transfer = (0.13, 0.26, 0.25333333333333335)
    for tasks in (2, 3, 4):
        found = plain(measures(scores[:tasks, :tasks], before[:tasks]))
        assert found["backward_transfer"] == pytest.approx(-forgetting[tasks - 1], abs=1e-12)  # its `StreamBWT`
        # It has no name for the fall from the best score, which is larger where a task improved in between.
        assert found["forgetting"] >= forgetting[tasks - 1] - 1e-12
        assert found["forward_transfer"] == pytest.approx(transfer[tasks - 2], abs=1e-12)


def test_measures_of_nothing_forgotten_of_one_task_and_of_many_resamples():
    kept = np.array([[0.9, np.nan], [0.9, 0.8]])
    found = plain(measures(kept))
    assert (found["forgetting"], found["backward_transfer"]) == (0.0, 0.0)
    assert np.isnan(found["forward_transfer"])
    one = plain(measures(np.array([[0.5]]), np.array([0.1])))
    assert one["average"] == one["learning"] == one["average_incremental"] == 0.5
    assert np.isnan([one["forgetting"], one["backward_transfer"], one["forward_transfer"]]).all()
    many = measures(np.stack([SCORES, SCORES * 0.5]), np.stack([BEFORE, BEFORE * 0.5]))
    for name, value in BY_HAND.items():
        np.testing.assert_allclose(many[name], [value, value / 2])


@pytest.mark.parametrize("expansion", [None, 40])
def test_tasks_one_after_the_other_are_one_ridge_regression(expansion):
    draws = np.random.default_rng(0)
    features = draws.standard_normal((90, 6)) + 3.0
    labels = draws.integers(0, 5, 90)
    labels[:30], labels[30:] = labels[:30] % 2, 2 + labels[30:] % 3
    features[np.arange(90), labels] += 2.0
    targets = np.eye(5, dtype=bool)[labels]
    found = AnalyticClassifier(expansion=expansion)
    found.learn(features[:30], targets[:30, :2]).learn(features[30:], targets[30:, 2:])
    assert found.labels == 5
    rows = found._rows(features)[:, 1:]
    penalty = found.penalty * np.square(rows).sum() / rows.shape[1]
    ridge = Ridge(alpha=penalty).fit(rows, np.where(targets, 1.0, -1.0))
    np.testing.assert_allclose(found.scores(features), ridge.predict(rows), atol=1e-5)
    assert (found.scores(features).argmax(axis=1) == labels).mean() > 0.6
    assert found.choose(features, targets).penalty in {1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0}
