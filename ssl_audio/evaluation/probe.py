"""Frozen probes: what a linear classifier and nearest neighbours find in embeddings."""

import dataclasses
import warnings
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int, Shaped

from ssl_audio.data.columns import NO_FOLD
from ssl_audio.data.index import ShardIndex
from ssl_audio.data.labels import kinds_in, labels_in
from ssl_audio.errors import ShardError
from ssl_audio.evaluation.neighbours import majority

_PARTS = 5
_NEIGHBOURS = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A classification of the clips of some shards.

    Args:
        name: What it is called.
        labels: Class of each clip.
        parts: Rows to fit on and rows to test on, once a fold.
        clips: Which clips of the index take part.
    """

    name: str
    labels: Shaped[np.ndarray, " clip"]
    parts: list[tuple[Int[np.ndarray, " _"], Int[np.ndarray, " _"]]]
    clips: Int[np.ndarray, " clip"]

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(np.unique(self.labels))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Accuracy of a frozen probe, mean over the folds.

    Args:
        linear: Logistic regression on standardised embeddings.
        neighbours: Five nearest neighbours by cosine of standardised embeddings.
    """

    linear: float
    neighbours: float


def tasks_of(index: ShardIndex, targets: list[str], *, protocol: str = "split", seed: int = 0) -> dict[str, Task]:
    """The tasks that the descriptions in the shards allow.

    Args:
        index: The clips.
        targets: Kinds of label; `speaker` is one too. Clips without exactly one label of the kind are left out.
        protocol: `split` fits on the splits train and valid and tests on test; `fold` holds out each fold in turn.
            Speakers of a test split that others do not share are identified among themselves, in five random parts.
        seed: Decides those parts.

    Raises:
        ShardError: if a kind of label does not occur, nothing is held out, or there is nothing to tell apart.
    """
    tasks = {target: _task(index, target, protocol, seed) for target in targets}
    for target, task in tasks.items():
        for fitted, _ in task.parts:
            if len(np.unique(task.labels[fitted])) < 2:
                raise ShardError(
                    f"probing {target!r} by {protocol}: all {len(fitted)} clips to fit on are "
                    f"{str(task.labels[fitted[0]])!r}, so there is nothing to tell apart; expected two labels or more"
                )
    return tasks


def _task(index: ShardIndex, target: str, protocol: str, seed: int) -> Task:
    names, found = labels_in(index, target)
    chosen = np.flatnonzero(found.counts == 1)
    if not len(chosen):
        raise ShardError(f"no clip has a label of kind {target!r}; these shards have {kinds_in(index)}")
    if protocol == "fold":
        chosen = chosen[index.fold[chosen] != NO_FOLD]
    labels = np.array(names)[found.select(chosen).codes]
    if protocol == "fold":
        marks = index.fold[chosen]
        parts = [(np.flatnonzero(marks != fold), np.flatnonzero(marks == fold)) for fold in np.unique(marks)]
        if len(parts) < 2:
            raise ShardError(f"probing {target!r} by fold: the clips have {len(parts)} fold; expected at least 2")
        return Task(name=target, labels=labels, parts=parts, clips=chosen)
    words, codes = index.splits
    tested = codes[chosen] == (words.index("test") if "test" in words else -2)
    if not tested.any() or tested.all():
        raise ShardError(
            f"probing {target!r} by split: expected clips in test and in other splits; found only one of these"
        )
    if not set(labels[tested]) & set(labels[~tested]):
        chosen, labels = chosen[tested], labels[tested]
        rarest = min(np.unique(labels, return_counts=True)[1])
        if rarest < _PARTS:
            raise ShardError(
                f"probing {target!r} among the clips of test: a class has {rarest} clips; expected at least {_PARTS}"
            )
        return Task(name=target, labels=labels, parts=list(_random_parts(labels, seed)), clips=chosen)
    return Task(name=target, labels=labels, parts=[(np.flatnonzero(~tested), np.flatnonzero(tested))], clips=chosen)


def _random_parts(labels: Shaped[np.ndarray, " clip"], seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import StratifiedKFold  # scikit-learn takes a second to import

    folds = StratifiedKFold(n_splits=_PARTS, shuffle=True, random_state=seed)
    return folds.split(np.zeros(len(labels)), labels)


def score(features: Float[np.ndarray, "clip feature"], task: Task) -> Score:
    """Fit and test both probes on every fold.

    Args:
        features: Embeddings of the task's clips, in its order.
        task: What to tell apart.
    """
    from sklearn.linear_model import LogisticRegression  # scikit-learn takes a second to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    linear = []
    for fitted, tested in task.parts:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=100))
        with warnings.catch_warnings():
            # Stopping short of the optimum is regularisation here, the same for every encoder compared.
            warnings.simplefilter("ignore")
            model.fit(features[fitted], task.labels[fitted])
        linear.append(model.score(features[tested], task.labels[tested]))
    return Score(linear=float(np.mean(linear)), neighbours=score_neighbours(features, task))


def score_neighbours(features: Float[np.ndarray, "clip feature"], task: Task) -> float:
    """Test five nearest neighbours on every fold: quick enough to look at while training."""
    classes = np.unique(task.labels, return_inverse=True)[1]
    found = []
    for fitted, tested in task.parts:
        answers = majority(features[tested], features[fitted], classes[fitted], neighbours=_NEIGHBOURS)
        found.append((answers == classes[tested]).mean())
    return float(np.mean(found))
