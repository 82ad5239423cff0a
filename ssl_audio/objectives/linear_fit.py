"""A linear layer fitted to frozen features, to begin fine-tuning at or to be a baseline."""

import warnings

import numpy as np
from jaxtyping import Bool, Float

PENALTIES = (0.01, 0.1, 1.0)
"""Values of scikit-learn's C that validation chooses among."""


def fit_linear(
    features: Float[np.ndarray, "clip feature"], targets: Bool[np.ndarray, "clip label"], *, several: bool, C: float
) -> tuple[Float[np.ndarray, "label feature"], Float[np.ndarray, " label"]]:
    """Weight and bias of a logistic regression on standardised features, in terms of the features as they are.

    Args:
        features: One row a training clip.
        targets: Which labels each has. A label that no clip has, or all, gets weights of 0 and the logit of its share.
        several: A clip may have several labels: each is a regression of its own.
        C: Inverse strength of the L2 penalty.
    """
    from sklearn.exceptions import ConvergenceWarning  # scikit-learn takes a second to import
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    rows = scaler.transform(features)
    labels = targets.shape[1]
    weight, bias = np.zeros((labels, features.shape[1])), np.zeros(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if several:
            share = np.clip(targets.mean(axis=0), 1e-4, 1 - 1e-4)
            bias = np.log(share / (1 - share))
            for label in np.flatnonzero(targets.any(axis=0) & ~targets.all(axis=0)):
                fitted = LogisticRegression(C=C, max_iter=300).fit(rows, targets[:, label])
                weight[label], bias[label] = fitted.coef_[0], fitted.intercept_[0]
        else:
            present = targets.argmax(axis=1)
            fitted = LogisticRegression(C=C, max_iter=300).fit(rows, present)
            if len(fitted.classes_) == 2:  # one row stands for both
                weight[fitted.classes_] = np.concatenate([-fitted.coef_, fitted.coef_]) / 2
                bias[fitted.classes_] = np.concatenate([-fitted.intercept_, fitted.intercept_]) / 2
            else:
                bias[:] = min(0.0, fitted.intercept_.min()) - 5.0  # of labels that no training clip has
                weight[fitted.classes_], bias[fitted.classes_] = fitted.coef_, fitted.intercept_
    weight = weight / scaler.scale_
    return weight, bias - weight @ scaler.mean_
