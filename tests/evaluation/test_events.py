"""Metrics of sound events: equal to sed_scores_eval 0.0.4 (`tests/golden/sound_events.py`), and what must hold."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_audio.data.corpora import Table
from ssl_audio.data.events import ClipEvents
from ssl_audio.data.index import open_shards
from ssl_audio.data.writing import write_shards
from ssl_audio.errors import SslAudioError
from ssl_audio.evaluation.event_files import write_events
from ssl_audio.evaluation.events import PSDS1, PSDS2, ScoredClips, Truth, detect, event_f1, psds
from ssl_audio.evaluation.events.collars import event_counts
from ssl_audio.evaluation.events.deciding import Decision, tuned
from ssl_audio.evaluation.events.predictions import grid_ceiling, truth_of
from ssl_audio.evaluation.events.psds import PsdsCurves
from ssl_audio.evaluation.events.runs import runs_of
from ssl_audio.evaluation.events.segments import Segments, segment_f1
from ssl_audio.evaluation.events.smoothing import ChangePoints, MedianFilter

GOLDEN = Path(__file__).parents[1] / "golden/sound_events.npz"


@pytest.fixture(scope="module", params=["dense", "ties", "published"])
def case(request):
    with np.load(GOLDEN) as found:
        return {name.split("/")[1]: found[name] for name in found.files if name.startswith(f"{request.param}/")}


def clips_of(case):
    events = [[(a, b, int(k)) for c, a, b, k in case["events"] if c == clip] for clip in range(len(case["seconds"]))]
    scored = ScoredClips(scores=case["scores"], hop_seconds=float(case["hop"]), seconds=case["seconds"])
    return scored, Truth.of(events, case["seconds"])


@pytest.mark.parametrize(("name", "criteria"), [("psds1", PSDS1), ("psds2", PSDS2)])
def test_psds_is_that_of_sed_scores_eval(case, name, criteria):
    scored, truth = clips_of(case)
    curves = PsdsCurves.of(scored, truth, criteria)
    assert curves.score() == pytest.approx(float(case[name]), abs=1e-6)
    np.testing.assert_allclose(curves.label_scores(), case[f"{name}_labels"], atol=1e-6)


def test_f1_and_partial_areas_are_those_of_sed_scores_eval(case):
    scored, truth = clips_of(case)
    labels = scored.scores.shape[2]
    found = event_counts(detect(scored, case["thresholds"]), truth, labels).f1()
    np.testing.assert_allclose(np.nan_to_num(found), case["event_f1"], atol=1e-6)
    segments = Segments.of(scored, truth)
    np.testing.assert_allclose(np.nan_to_num(segments.counts(case["thresholds"]).f1()), case["segment_f1"], atol=1e-6)
    np.testing.assert_allclose(segments.partial_areas(), case["partial_area"], atol=1e-6)


def perfect(truth, labels, hop):
    frames = int(np.ceil(truth.seconds.max() / hop))
    scores = np.zeros((len(truth), frames, labels))
    for clip, onset, offset, label in zip(truth.clip, truth.onset, truth.offset, truth.label, strict=True):
        scores[clip, round(onset / hop) : round(offset / hop), label] = 1.0
    return ScoredClips(scores=scores, hop_seconds=hop, seconds=truth.seconds)


def test_a_perfect_oracle_has_psds_1_and_f1_1():
    events = [[(0.0, 2.0, 0), (5.0, 6.0, 1)], [(1.0, 9.0, 1)], [(2.0, 3.0, 2), (3.0, 4.0, 0)]]
    truth = Truth.of(events, [10.0, 10.0, 8.0])
    scored = perfect(truth, 3, 0.1)
    assert psds(scored, truth, PSDS1) == psds(scored, truth, PSDS2) == 1.0
    half = np.full(3, 0.5)
    assert event_f1(detect(scored, half), truth, 3) == segment_f1(scored, truth, half) == 1.0
    # Labels beyond a clip's end are cut to it, and what starts behind it is no event.
    longer = Truth.of([[(0.0, 2.0, 0), (5.0, 6.0, 1)], [(1.0, 99.0, 1)], [(2.0, 3.0, 2), (3.0, 4.0, 0)]], truth.seconds)
    assert longer.within().offset.max() == 10.0
    # Silence is worth nothing.
    assert psds(scored.with_scores(0 * scored.scores), truth) == 0.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=9), min_size=1, max_size=4))
def test_runs_are_those_of_every_threshold(rows):
    width = max(map(len, rows))
    scores = np.array([[*row, *[9] * (width - len(row))] for row in rows], dtype=float)
    runs = runs_of(scores, np.array(list(map(len, rows))))
    for threshold in (0, 1, 2, 3, 4):
        there = (runs.above < threshold) & (threshold <= runs.below)
        found = sorted(zip(runs.clip[there], runs.start[there], runs.end[there], strict=True))
        wanted = []
        for clip, row in enumerate(rows):
            active = [0, *(value >= threshold for value in row), 0]
            steps = np.diff(active)
            wanted += [
                (clip, a, b) for a, b in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True)
            ]
        assert found == sorted(wanted)


def test_clips_that_count_twice_are_as_clips_that_are_there_twice(case):
    scored, truth = clips_of(case)
    counts = np.random.default_rng(0).integers(0, 3, len(scored))
    rows = np.repeat(np.arange(len(scored)), counts)
    rows_of = zip(truth.clip, truth.onset, truth.offset, truth.label, strict=True)
    every = [(c, (float(a), float(b), int(k))) for c, a, b, k in rows_of]
    events = [[event for c, event in every if c == clip] for clip in rows]
    drawn = PsdsCurves.of(scored.select(rows), Truth.of(events, truth.seconds[rows]), PSDS2)
    assert PsdsCurves.of(scored, truth, PSDS2).score(counts) == pytest.approx(drawn.score(), abs=1e-12)


@pytest.mark.parametrize("kind", ["median", "change_points", "none"])
@pytest.mark.parametrize("case", ["ties"], indirect=True)
def test_decisions_are_tuned_saved_and_do_not_read_beyond_a_clip(case, kind):
    scored, truth = clips_of(case)
    scored, truth = scored.select(np.arange(3)), truth.select(np.arange(3))
    decision = tuned(scored, truth, kind=kind)
    labels = scored.scores.shape[2]
    again = Decision.of_plain(json.loads(json.dumps(decision.plain())), labels)
    frames = (scored.edges[:, :-1] < scored.edges[:, -1:])[:, :, None]
    one, other = again.events(scored), decision.events(scored.with_scores(np.where(frames, scored.scores, 9.0)))
    assert len(one.clip)
    for name in ("clip", "label", "onset", "offset", "confidence"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    chosen = event_f1(one, truth, labels)
    assert chosen >= event_f1(detect(decision.smoothed(scored), np.full(labels, 0.5)), truth, labels)
    with pytest.raises(SslAudioError, match="thresholds of events are damaged"):
        Decision.of_plain({"smoothing": {"kind": kind}, "thresholds": [float("nan")] * labels}, labels)


def test_boxes_begin_and_end_at_changes_and_close_small_dips():
    scores = np.zeros((1, 100, 1))
    scores[0, 20:40], scores[0, 40:44], scores[0, 44:60], scores[0, 80:90] = 0.9, 0.8, 0.9, 0.6
    clips = ScoredClips(scores=scores, hop_seconds=0.064, seconds=np.array([6.4]))
    found = detect(ChangePoints([0.4], [2.0], [0.2]).apply(clips), np.array([0.1]))
    np.testing.assert_allclose(found.onset, [1.28, 5.12])
    np.testing.assert_allclose(found.offset, [3.84, 5.76])
    np.testing.assert_allclose(found.confidence, [0.89, 0.6], atol=1e-9)
    # A median filter drops what is shorter than half its window.
    filtered = MedianFilter([1.5]).apply(clips)
    np.testing.assert_array_equal(np.flatnonzero(filtered.scores[0, :, 0] > 0.1), np.arange(20, 60))


def test_events_of_one_label_that_overlap_are_one(tmp_path):
    """A row that is in a table twice would halve the F1 of a perfect detector; soft ones that touch are one, too."""
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(160000)) / 2, 16000)
    (tmp_path / "meta.csv").write_text("path\na.wav\n")
    rows = ["1\t2\tdog\t1", "1\t2\tdog\t1", "1.5\t3\tdog\t1", "2\t4\tcat\t1", "4\t5\tcat\t1"]
    heading = "filename\tonset\toffset\tevent_label\tweight\n"
    (tmp_path / "events.tsv").write_text(heading + "".join(f"a.wav\t{row}\n" for row in rows))
    write_shards(Table(tmp_path), tmp_path / "hard", name="hard")
    (tmp_path / "events.tsv").write_text(heading + "".join(f"a.wav\t{row[:-1]}0.8\n" for row in rows))
    write_shards(Table(tmp_path), tmp_path / "soft", name="soft")
    for name, cats in (("hard", [(2, 4), (4, 5)]), ("soft", [(2, 5)])):
        truth = truth_of(ClipEvents(open_shards([tmp_path / name]), ["cat", "dog"]))
        found = list(zip(truth.label.tolist(), truth.onset.tolist(), truth.offset.tolist(), strict=True))
        assert found == [*((0, *cat) for cat in cats), (1, 1.0, 3.0)]
        assert truth.seconds.tolist() == [10.0]
    # Half a second and one need frames that are shorter: overlaps of 70 % of the event and of the detection.
    (tmp_path / "events.tsv").write_text(heading + "a.wav\t2.1\t2.6\tdog\t1\na.wav\t5.0\t6.0\tcat\t1\n")
    write_shards(Table(tmp_path), tmp_path / "short", name="short")
    events = ClipEvents(open_shards([tmp_path / "short"]), ["cat", "dog"])
    found = [grid_ceiling(events, hop_seconds=hop, crop_seconds=10.0) for hop in (0.1, 0.5, 1.0)]
    assert found[0] == pytest.approx(1.0)
    assert found[1] == found[2] == pytest.approx(0.0), "the dog fills half of two frames: 50 %"


def test_files_of_events_are_whole_whatever_recordings_are_called(tmp_path):
    def table(*paths):
        lists = {"onset": [0.5], "offset": [1.0], "label": ["dog"], "confidence": [0.9]}
        return lambda: [pa.table({"path": list(paths), **{name: [one] * len(paths) for name, one in lists.items()}})]

    write_events(tmp_path / "out.txt", table("a/b.wav", "a_b.wav", "./A_B.wav"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "A_B.wav.3.txt", "a_b.wav.2.txt", "a_b.wav.txt"
    ]  # fmt: skip
    for paths in ((), ("a.wav",), ("a.wav", "b.wav")):
        write_events(tmp_path / "out.json", table(*paths) if paths else lambda: [])
        assert [row["path"] for row in json.loads((tmp_path / "out.json").read_text())] == list(paths)
