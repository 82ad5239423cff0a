"""Write `sound_events.npz`: random scores and events, and what sed_scores_eval 0.0.4 says of them.

It needs packages that the project does not, in an environment of their own:
`pip install "setuptools<82" "pandas<3" sed_scores_eval==0.0.4`. Some scores are rounded, so that many frames share
one; some clips end within a frame.
"""

import sys
from pathlib import Path

import numpy as np
import sed_scores_eval as oracle
from sed_scores_eval.base_modules.scores import create_score_dataframe

CASES = {"dense": (0, 6, 60, 3, None), "ties": (1, 8, 40, 4, 1), "published": (2, 10, 156, 5, None)}


def truth_of(draws, seconds, labels):
    """Up to three events of each label, apart from each other; one ends after the clip."""
    events = []
    for label in range(labels):
        bounds = np.sort(np.round(draws.uniform(0, seconds, 2 * draws.integers(0, 4)), 3))
        events += [(float(a), float(b), label) for a, b in bounds.reshape(-1, 2) if b > a]
    return events


def case(seed, clips, frames, labels, decimals):
    draws = np.random.default_rng(seed)
    hop = 0.064
    names = [f"label{number}" for number in range(labels)]
    seconds = np.round(draws.uniform(0.6, 1.0, clips) * frames * hop, 3)
    events = [truth_of(draws, float(s), labels) for s in seconds]
    scores = np.zeros((clips, frames, labels))
    for clip in range(clips):
        middles = (np.arange(frames) + 0.5) * hop
        for label in range(labels):
            active = np.any(
                [(a <= middles) & (middles < b) for a, b, k in events[clip] if k == label] or [False * middles], axis=0
            )
            walk = np.convolve(draws.standard_normal(frames + 8), np.ones(9) / 3, mode="valid")
            scores[clip, :, label] = 1 / (1 + np.exp(-(walk + 2.0 * active - 1)))
    if decimals is not None:
        scores = np.round(scores, decimals)
    frames_of, truth, durations = {}, {}, {}
    for clip in range(clips):
        count = int(np.ceil(seconds[clip] / hop - 1e-9))
        edges = np.minimum(np.arange(count + 1) * hop, seconds[clip])
        key = f"clip{clip:02d}"
        frames_of[key] = create_score_dataframe(scores[clip, :count], edges, names)
        truth[key] = [(a, b, names[k]) for a, b, k in events[clip]]
        durations[key] = float(seconds[clip])
    one = {"dtc_threshold": 0.7, "gtc_threshold": 0.7, "alpha_ct": 0.0, "alpha_st": 1.0}
    two = {"dtc_threshold": 0.1, "gtc_threshold": 0.1, "cttc_threshold": 0.3, "alpha_ct": 0.5, "alpha_st": 1.0}
    thresholds = draws.uniform(0.3, 0.7, labels)
    per_label = dict(zip(names, thresholds.tolist(), strict=True))
    found = {"scores": scores, "seconds": seconds, "hop": hop, "thresholds": thresholds}
    found["events"] = np.array([(c, *e) for c, some in enumerate(events) for e in some])
    for name, options in (("psds1", one), ("psds2", two)):
        value, each, *_ = oracle.intersection_based.psds(frames_of, truth, durations, max_efpr=100.0, **options)
        found[name] = value
        found[f"{name}_labels"] = np.array([each[n] for n in names])
    f, *_ = oracle.collar_based.fscore(
        frames_of, truth, threshold=per_label, onset_collar=0.2, offset_collar=0.2, offset_collar_rate=0.2
    )
    found["event_f1"] = np.array([f[n] for n in names])
    f, *_ = oracle.segment_based.fscore(frames_of, truth, durations, threshold=per_label, segment_length=1.0)
    found["segment_f1"] = np.array([f[n] for n in names])
    areas, _ = oracle.segment_based.auroc(frames_of, truth, durations, segment_length=1.0, max_fpr=0.1)
    found["partial_area"] = np.array([areas[n] for n in names])
    return found


if __name__ == "__main__":
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".npz")
    np.savez_compressed(
        out, **{f"{name}/{key}": value for name, made in CASES.items() for key, value in case(*made).items()}
    )
