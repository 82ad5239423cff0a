"""Each shortcut: how well it tells the labels, where they lie, and what to do."""

import dataclasses
import re

import numpy as np
from jaxtyping import Bool, Float, Int

from ssl_audio.audio.traits import TRAITS
from ssl_audio.evaluation.audit.heard import Heard
from ssl_audio.evaluation.audit.told import Told, told

ALL = "all of these"
CODING = "coding and rate"
ORDER = "order and names"

ADVICE = {
    "level": "bring clips to one level: level_db -26 of Fbank, standardise true of MelSpectrogram and Mfcc",
    "offset": "take the mean off each clip (demean true of Fbank, which is the default)",
    "bandwidth": "low-pass all clips to the narrowest, or end the mel filters there (high_hz)",
    "noise floor": "insert noise in balance over labels, in training and test (--config screening), and test with it",
    "silence": "trim silence alike, or cut windows from within the clips",
    "duration": "cut windows of one length (data.crop_seconds; --config screening)",
    "first 100 ms": "leave out the beginning, if what differs is not the sound itself",
    "last 100 ms": "leave out the end, if what differs is not the sound itself",
    CODING: "bring all clips to the poorest rate and coding before they are labelled",
    ORDER: "no model here sees it; ask whether labels were recorded one after the other, on other days or devices",
    ALL: "what is left after the repairs above must be near chance, or belong to the label",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shortcut:
    """One way to tell labels without listening to what they name.

    Args:
        name: Of a group of traits.
        told: How well it tells the labels; None where that cannot be measured.
        lies: Where the labels lie that are furthest apart, in the trait that separates them best.
        speakers_lie: The same of the speakers; empty where they are not known.
        advice: What to do; empty where nothing need be done.
    """

    name: str
    told: Told | None
    lies: str
    speakers_lie: str
    advice: str

    @property
    def verdict(self) -> str:
        """`tells`, `partly`, `weakly`, `no sign` or `unknown`."""
        return "unknown" if self.told is None else self.told.verdict


def shortcuts(
    heard: Heard,
    targets: Bool[np.ndarray, "clip label"],
    labels: list[str],
    groups: Int[np.ndarray, " clip"],
    speakers: list[str] | None,
    *,
    several: bool,
    seed: int,
) -> list[Shortcut]:
    """All shortcuts of clips that were heard.

    Args:
        heard: The clips.
        targets: Their labels.
        labels: Names of the labels.
        groups: Clips that belong together.
        speakers: Who speaks in each; None where that is not known of all, or is the label itself.
        several: A clip may have several labels.
        seed: Decides everything that is drawn.
    """
    traits: dict[str, tuple[Float[np.ndarray, "clip trait"], tuple[str, ...]]] = {
        name: (values, TRAITS[name]) for name, values in heard.traits.items()
    }
    traits[CODING] = (heard.coding, heard.coding_names)
    every = np.concatenate([values for values, _ in traits.values()], axis=1)
    traits[ORDER] = (
        np.stack([heard.rows, _natural(heard.names)], axis=1),
        ("place in the shards", "place of the name"),
    )
    names = tuple(name for _, own in traits.values() for name in own)
    traits[ALL] = (every, names[: every.shape[1]])
    found = []
    for name, (values, own) in traits.items():
        score = told(values.astype(np.float64), targets, groups, several=several, seed=seed)
        best = name == ALL
        made = Shortcut(
            name=name,
            told=score,
            lies="" if best or name == ORDER else _lies(values, own, targets, labels),
            speakers_lie="" if best or name == ORDER or speakers is None else _speakers_lie(values, own, speakers),
            advice="",
        )
        wanted = made.verdict in ("tells", "partly", "weakly")
        found.append(dataclasses.replace(made, advice=ADVICE[name] if wanted else ""))
    return found


def _natural(names: list[str]) -> Int[np.ndarray, " clip"]:
    """The place of each name among all, with numbers in their order."""
    split = [[(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name)] for name in names]
    order = sorted(range(len(names)), key=lambda clip: [(kind, str(value).zfill(30)) for kind, value in split[clip]])
    return np.argsort(np.array(order))


def _speakers_lie(values: np.ndarray, names: tuple[str, ...], speakers: list[str]) -> str:
    words, codes = np.unique(speakers, return_inverse=True)
    return _lies(values, names, np.eye(len(words), dtype=bool)[codes], words.tolist())


def _lies(values: np.ndarray, names: tuple[str, ...], targets: np.ndarray, labels: list[str]) -> str:
    """Medians of the two labels furthest apart, in the trait whose medians differ most beside the spread within."""
    if np.ptp(values, axis=0).max(initial=0.0) == 0 or targets.shape[1] < 2:
        return "all alike"
    medians = np.stack([np.median(values[column], axis=0) for column in targets.T])
    within = np.stack([_spread(values[column]) for column in targets.T]).mean(axis=0)
    apart = np.ptp(medians, axis=0) / (within + 0.05 * values.std(axis=0) + 1e-9)
    # The first trait of a group is the plainest: another must be far better to be shown.
    apart[1:] *= 0.7
    best = int(apart.argmax())
    low, high = int(medians[:, best].argmin()), int(medians[:, best].argmax())
    name = names[best]
    return f"{name}: {medians[low, best]:.4g} ({labels[low]}) to {medians[high, best]:.4g} ({labels[high]})"


def _spread(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, [25, 75], axis=0)
    return high - low
