"""Sound events of streams: those of the whole sound, in whatever blocks it comes."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from test_sound_streams import LABELS, modules, sound

from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.cli import main
from ssl_audio.cli import stream as cli_stream
from ssl_audio.data.facts import Facts
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.ensemble import Ensemble
from ssl_audio.evaluation.event_finder import EventFinder
from ssl_audio.evaluation.events.deciding import Decision
from ssl_audio.evaluation.events.scored import ScoredClips
from ssl_audio.evaluation.events.smoothing import ChangePoints, MedianFilter, Unchanged
from ssl_audio.evaluation.events.tracking import EventTracker
from ssl_audio.evaluation.streaming import SoundStream
from ssl_audio.model.encoders import BiMamba, Transformer
from ssl_audio.objectives.event_detection import EventDetection
from ssl_audio.objectives.event_head import EventHeadOptions


@pytest.mark.parametrize("frames", [1, 3, 40, 200])
@pytest.mark.parametrize("smoothing", [MedianFilter([0.0, 0.3, 1.1]), Unchanged()], ids=["median", "none"])
def test_tracked_events_are_those_of_the_whole_sound(frames, smoothing):
    draws = np.random.default_rng(frames)
    scores = np.clip(draws.standard_normal((frames, 3)).cumsum(axis=0) * 0.15 + 0.5, 0, 1)
    decision = Decision(smoothing=smoothing, thresholds=np.array([0.3, 0.5, 0.55]))
    seconds = (frames - 0.4) * 0.1  # the last frame ends with the sound
    whole = decision.events(ScoredClips(scores=scores[None], hop_seconds=0.1, seconds=np.array([seconds])))
    fields = (whole.onset, whole.offset, whole.label, whole.confidence)
    expected = sorted(zip(*(field.tolist() for field in fields), strict=True))
    for block in (1, 7, 1000):
        tracker = EventTracker(decision, hop_seconds=0.1)
        found = [one for first in range(0, frames, block) for one in tracker.feed(scores[first : first + block])]
        found += tracker.finish(np.zeros((2, 3)), seconds=seconds)  # frames behind the end of the sound
        ended = sorted((one.onset, one.offset, one.label, one.confidence) for one in found if one.offset is not None)
        assert ended == expected
        started = sorted((one.onset, one.label) for one in found if one.offset is None)
        assert started == sorted((onset, label) for onset, _, label, _ in expected)
        assert max(map(len, tracker._waiting)) <= 2 * 5 + block


BURST = sound(1.6)
BURST[6000:12000] *= 0.05


def detector(encoder, decision: Decision, *, frame_seconds: float | None = None, **head):
    """Modules whose head scores frames, with scores that go up and down."""
    found = modules(encoder)
    objective = EventDetection(head=EventHeadOptions(bands="apart", **head), frame_seconds=frame_seconds)
    objective.attach(found.backbone, Facts(labels=LABELS))
    with torch.no_grad():
        logits = objective.eval().predict(found.backbone, found.backbone.spectrogram(BURST[None])).frames[0]
        scale = 1.5 / logits.std(dim=0)
        objective.head.strong.weight.mul_(scale[:, None])
        objective.head.strong.bias.add_(-logits.mean(dim=0)).mul_(scale)
    found.objective, found.several = objective, True
    found.checkpoint = Checkpoint(Path("in memory"), {}, {}, 0, "", task={"events": decision.plain()})
    return found


DECISION = Decision(smoothing=MedianFilter([0.0, 0.2, 0.35]), thresholds=np.array([0.5, 0.4, 0.6]))


def test_scores_for_other_models_are_means_of_logits(model):
    members = [copy.copy(model), copy.copy(model)]
    for member, shift in zip(members, (0.0, 5.0), strict=True):
        member._modules = detector(BiMamba(width=16, depth=1), DECISION)
        with torch.no_grad():
            member._modules.objective.head.strong.bias.add_(shift)
    one, other = (member.frame_logits(BURST[None], None) for member in members)
    found = Ensemble(members).frame_logits(BURST[None])
    torch.testing.assert_close(found, (one + other) / 2)
    assert (found - ((one.sigmoid() + other.sigmoid()) / 2).logit()).abs().max() > 0.1, "not of probabilities"


def streamed(stream: SoundStream, waveform: torch.Tensor, block: int) -> list[tuple]:
    parts = [stream.feed(piece) for piece in waveform.split(block)] + [stream.finish()]
    events = [one for part in parts for one in part.events if one.offset is not None]
    return sorted((one.label, one.onset, one.offset, one.confidence) for one in events)


@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        (BiMamba(width=16, depth=2, forward_only=True), {}),
        (Transformer(width=16, depth=2, heads=4, chunk=3), {"layers": True, "width": 8, "frame_seconds": 0.02}),
        (BiMamba(width=16, depth=2), {"rnn_layers": 1, "rnn_width": 8}),
    ],
    ids=["exact", "chunks", "windows"],
)
def test_events_of_a_stream_are_those_of_the_file(model, encoder, options):
    found = detector(encoder, DECISION, **options)
    model._modules = found
    [whole] = EventFinder(Ensemble([model])).events(model.sounds(BURST, 16000))
    fields = (whole.label, whole.onset, whole.offset, whole.confidence)
    expected = sorted(zip(*(field.tolist() for field in fields), strict=True))
    assert len(expected) >= 6
    exact = encoder.stream_columns is not None
    results = []
    for block in (160, 2080, 160000):
        # A window over all of the sound is the file, too.
        stream = SoundStream(found, sample_rate=16000, every_seconds=0.3 if exact else 10.0, states=False)
        assert stream.exact == exact
        assert stream.event_delay_seconds == pytest.approx(
            stream.delay_seconds + 4 * stream._tracker.hop_seconds, abs=0.3
        )
        results.append(streamed(stream, BURST, block))
    for result in results:
        assert [one[:3] for one in result] == [one[:3] for one in expected]
        np.testing.assert_allclose([one[3] for one in result], [one[3] for one in expected], atol=1e-5)


def test_windows_that_look_ahead_are_nearer_to_the_file():
    found = detector(BiMamba(width=16, depth=2), DECISION)
    waveform = BURST
    with torch.inference_mode():
        whole = found.objective.predict(found.backbone, found.backbone.spectrogram(waveform[None])).frames[0].sigmoid()
    states = found.backbone(waveform[None]).states[0].detach()
    errors = []
    for ahead in (0.0, 0.2):
        scores = []
        for block in (3000, 50000):
            stream = SoundStream(found, sample_rate=16000, every_seconds=0.16, window_seconds=2.0, ahead_seconds=ahead)
            assert stream.delay_seconds == pytest.approx(0.16 + ahead + 0.015, abs=0.01)
            parts = [stream.feed(piece) for piece in waveform.split(block)] + [stream.finish()]
            assert sum(len(part.states) for part in parts) == len(states) // found.backbone.bands
            scores.append(torch.cat([part.scores for part in parts if part.scores is not None]))
        torch.testing.assert_close(*scores)
        assert scores[0].shape == whole.shape
        errors.append(float((scores[0] - whole).abs().mean()))
    assert errors[1] < 0.8 * errors[0]


def test_what_gives_no_events_is_one_line():
    assert "its head, Classification, scores no frames" in str(SoundStream(modules(), sample_rate=16000).event_refusal)
    boxes = Decision(smoothing=ChangePoints([0.5] * 3, [2.0] * 3, [0.2] * 3), thresholds=np.full(3, 0.5))
    causal = BiMamba(width=16, depth=1, forward_only=True)
    assert "ChangePoints smooths over the whole" in str(
        SoundStream(detector(causal, boxes), sample_rate=16000).event_refusal
    )
    for head, reason in (
        ({"rnn_layers": 1}, "recurrent layers see whole clips"),
        ({"branches": "both"}, "see spectrograms, not tokens alone"),
        ({"frame_seconds": 0.03}, "scores frames of 0.03 s of patch columns of 0.04 s"),
    ):
        with pytest.raises(RecipeError, match=reason):
            SoundStream(detector(causal, DECISION, **head), sample_rate=16000, way="exact")
    for ahead, reason in ((-1.0, "expected seconds, 0 or more"), (0.5, "this stream is exact")):
        with pytest.raises(RecipeError, match=reason):
            SoundStream(modules(), sample_rate=16000, ahead_seconds=ahead)
    with pytest.raises(RecipeError, match=r"windows last 0\.\d+ s; expected less"):
        SoundStream(modules(), sample_rate=16000, way="windows", window_seconds=0.5, ahead_seconds=2.0)


def test_the_verb_writes_events_as_they_come(model, tmp_path, monkeypatch, capfd):
    model._modules = detector(BiMamba(width=16, depth=2, forward_only=True), DECISION)
    monkeypatch.setattr(cli_stream, "pretrained", lambda *_, **__: model)
    soundfile.write(tmp_path / "a.wav", BURST.numpy(), 16000)
    words = ["stream", "--checkpoint", "x.ckpt", "--events", str(tmp_path / "a.wav")]
    main(words)
    first = capfd.readouterr()
    assert "as a whole pass; begin and end of an event come" in first.err
    lines = first.out.splitlines()
    assert lines[0] == "onset,offset,label,confidence"
    assert len(lines) > 3
    assert all(float(line.split(",")[0]) < float(line.split(",")[1]) for line in lines[1:])
    main([*words, "--begins", "--rows", "json", "--least", "0"])
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert sum(row["offset"] is not None for row in rows) == len(lines) - 1
    assert sum(row["offset"] is None for row in rows) == len(lines) - 1
    main([word for word in words if word != "--events"])
    assert "this checkpoint finds sound events: --events writes them" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        main([*words, "--events=false", "--begins"])
    assert "expected --events with it" in capfd.readouterr().err
