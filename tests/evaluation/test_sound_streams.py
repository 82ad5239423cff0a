"""Streams of sound: the same numbers in any blocks, labels of stretches, rows that are whole."""

import os

import numpy as np
import pytest
import soundfile
import torch

from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.raw import FORMATS, RawSamples
from ssl_audio.audio.resampling import ResamplingStream, resample
from ssl_audio.cli import main
from ssl_audio.cli import stream as cli_stream
from ssl_audio.cli.stream import raw_blocks
from ssl_audio.cli.stream_rows import LabelRows
from ssl_audio.data.facts import Facts
from ssl_audio.errors import AudioError, RecipeError
from ssl_audio.evaluation import stream_benchmark
from ssl_audio.evaluation.checkpoint_modules import CheckpointModules
from ssl_audio.evaluation.memory import resident_megabytes
from ssl_audio.evaluation.metrics import mean_average_precision
from ssl_audio.evaluation.small_models import Clips, Task
from ssl_audio.evaluation.stream_benchmark import by_delay, stream_cost, trained
from ssl_audio.evaluation.streaming import SoundStream, StreamOutput, StretchLabels
from ssl_audio.evaluation.windows import Grid
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Encoder, Transformer
from ssl_audio.objectives import Classification, HeadOptions

LABELS = ("dog", "rain", "=cat")


def modules(encoder: Encoder | None = None, **options) -> CheckpointModules:
    torch.manual_seed(0)
    backbone = Backbone(
        frontend=Fbank(bins=32),
        encoder=encoder or BiMamba(width=16, depth=2, forward_only=True),
        **{"patch": (16, 4), "position_frames": 12, "position_rule": "repeat"} | options,
    ).eval()
    objective = Classification(head=HeadOptions(pooling="bands", layers=True))
    objective.attach(backbone, Facts(labels=LABELS, several=False, crop_seconds=1.0))
    found = CheckpointModules.__new__(CheckpointModules)  # without a file
    found.backbone, found.objective, found.grid = backbone, objective.eval(), Grid.of(backbone)
    found.labels, found.several = list(LABELS), False
    return found


def sound(seconds: float = 1.0, rate: int = 16000) -> torch.Tensor:
    return 0.1 * torch.randn(round(seconds * rate), generator=torch.Generator().manual_seed(1))


def heard(stream: SoundStream, waveform: torch.Tensor, block: int) -> StreamOutput:
    parts = [stream.feed(piece) for piece in waveform.split(block)] + [stream.finish()]
    return StreamOutput(
        torch.cat([part.states for part in parts]),
        torch.cat([part.seconds for part in parts]),
        [one for part in parts for one in part.stretches],
    )


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize(
    "encoder",
    [
        BiMamba(width=16, depth=2, forward_only=True),
        Transformer(width=16, depth=2, heads=4, chunk=3),
        BiMamba(width=16, depth=2),
    ],
    ids=["exact", "chunks", "windows"],
)
def test_blocks_from_10_ms_to_10_s_give_the_same_frames_and_labels(encoder, rate):
    found = modules(encoder)
    waveform = sound(1.0, rate)
    results = []
    for seconds in (0.01, 0.13, 10.0):
        stream = SoundStream(found, sample_rate=rate, every_seconds=0.3, window_seconds=0.5)
        assert stream.exact == (encoder.stream_columns is not None)
        results.append(heard(stream, waveform, round(seconds * rate)))
    first = results[0]
    assert len(first.states) == Grid.of(found.backbone).columns_in(16000)
    assert len(first.stretches) >= 3
    assert first.stretches[1].start == pytest.approx(first.stretches[0].end - 0.015, abs=1e-6)
    for other in results[1:]:
        torch.testing.assert_close(other.states, first.states, atol=1e-5, rtol=0)
        torch.testing.assert_close(other.seconds, first.seconds)
        for mine, theirs in zip(other.stretches, first.stretches, strict=True):
            assert (mine.start, mine.end) == (theirs.start, theirs.end)
            torch.testing.assert_close(mine.probabilities, theirs.probabilities, atol=1e-5, rtol=0)


def test_one_stretch_over_all_has_the_label_of_the_clip():
    found, waveform = modules(), sound(0.9)
    expected = found.objective.predict(found.backbone, found.backbone.spectrogram(waveform[None])).clips.softmax(dim=1)
    stream = SoundStream(found, sample_rate=16000, every_seconds=100.0)
    (stretch,) = heard(stream, waveform, 700).stretches
    torch.testing.assert_close(stretch.probabilities, expected[0].detach(), atol=1e-5, rtol=0)
    # The labels of short stretches may be from as much.
    short = heard(SoundStream(found, sample_rate=16000, every_seconds=0.2, window_seconds=5.0), waveform, 700).stretches
    assert len(short) > 3
    torch.testing.assert_close(short[-1].probabilities, expected[0].detach(), atol=1e-5, rtol=0)
    # A window over all is the clip too.
    other = SoundStream(found, sample_rate=16000, every_seconds=5.0, window_seconds=5.0, way="windows", states=False)
    (stretch,) = heard(other, waveform, 700).stretches
    torch.testing.assert_close(stretch.probabilities, expected[0].detach(), atol=1e-5, rtol=0)


def test_mistakes_are_one_line():
    with pytest.raises(RecipeError, match="this Transformer see the whole clip"):
        SoundStream(modules(Transformer(width=16, depth=2, heads=4)), sample_rate=16000, way="exact")
    with pytest.raises(RecipeError, match="every_seconds is 0"):
        SoundStream(modules(), sample_rate=16000, every_seconds=0)
    stream = SoundStream(modules(), sample_rate=16000)
    for block, reason in (
        (np.zeros((2, 4), dtype=np.float32), "one channel"),
        (np.zeros(4, dtype=np.int32), "expected floats"),
        (np.full(4, np.nan, dtype=np.float32), "the block after 0 samples: holds NaN"),
    ):
        with pytest.raises(AudioError, match=reason):
            stream.feed(block)
    assert len(stream.feed(np.zeros(0, dtype=np.int16)).states) == 0
    assert stream.finish().stretches == []


@pytest.mark.parametrize(("have", "want"), [(44100, 16000), (8000, 16000), (48000, 16000), (16000, 16000)])
def test_a_resampled_stream_is_the_resampled_sound(have, want):
    waveform = sound(0.3, have)
    expected = resample(waveform, have=have, want=want)
    for block in (97, 1000, len(waveform)):
        stream = ResamplingStream(have=have, want=want)
        parts = [stream.feed(piece) for piece in waveform.split(block)] + [stream.finish()]
        torch.testing.assert_close(torch.cat(parts), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("form", FORMATS)
def test_raw_samples_in_blocks_that_cut_them(form):
    kind, scale = FORMATS[form]
    values = np.random.default_rng(0).uniform(-0.9, 0.9, size=(50, 2))
    steps = values / scale + (128 if form == "u8" else 0)
    stored = steps.astype(kind) if "f" in form else np.rint(steps).astype(kind)
    data, raw = stored.tobytes(), RawSamples(form, channels=2)
    found = np.concatenate([raw.feed(data[start : start + 7]) for start in range(0, len(data), 7)])
    np.testing.assert_allclose(found, values.mean(axis=1), atol=0.01 if form == "u8" else 1e-4)
    with pytest.raises(AudioError, match="no format 's16'; did you mean 's16le'"):
        RawSamples("s16")


def test_rows_are_whole_and_safe(tmp_path):
    stretch = StretchLabels(1.0, 2.0154, torch.tensor([0.2, 0.1, 0.7]))
    for form, expected in (
        ("csv", "start,end,label,probability\n1.000,2.015,'=cat,0.700000\n1.000,2.015,dog,0.200000\n"),
        ("json", '{"start": 1.0, "end": 2.015, "label": "=cat", "probability": 0.7}\n'
                 '{"start": 1.0, "end": 2.015, "label": "dog", "probability": 0.2}\n'),
    ):  # fmt: skip
        path = tmp_path / form
        with path.open("wb") as file:
            rows = LabelRows(list(LABELS), top=3, least=0.15, form=form, out=file.fileno())
            rows.begin()
            rows.write(StreamOutput(torch.zeros(0, 1), torch.zeros(0), [stretch]))
            assert path.read_text() == expected  # nothing waits in a buffer
    read, write = os.pipe()
    os.write(write, b"\0\x40" * 10)
    os.close(write)
    assert np.concatenate(list(raw_blocks(read, RawSamples()))).tolist() == [0.5] * 10


def test_memory_does_not_grow():
    stream, block = SoundStream(modules(), sample_rate=16000, states=False), sound(5.0)
    for _ in range(4):
        stream.feed(block)
    before = resident_megabytes()
    for _ in range(20):
        stream.feed(block)
    assert resident_megabytes() - before < 4  # MB; 100 s of sound are 6 MB


def test_the_verb_streams_a_file_and_a_pipe_to_the_same_rows(model, tmp_path, monkeypatch, capfd):
    objective = Classification()
    objective.attach(model.backbone, Facts(labels=LABELS))
    model._modules.objective, model._modules.labels = objective.eval(), list(LABELS)
    monkeypatch.setattr(cli_stream, "pretrained", lambda *_, **__: model)
    samples = (sound(2.6) * 32767).round().short().numpy()
    soundfile.write(tmp_path / "a.wav", samples, 16000)
    words = ["stream", "--checkpoint", "x.ckpt", "--every", "0.8", "--top", "2"]
    main([*words, str(tmp_path / "a.wav")])
    first = capfd.readouterr()
    assert "overlapping windows (the tokens of this Transformer see the whole clip" in first.err
    assert [len(line.split(",")) for line in first.out.splitlines()] == [4] * 9  # a header, 4 stretches of 2 labels
    (tmp_path / "a.raw").write_bytes(samples.tobytes())
    with (tmp_path / "a.raw").open("rb") as file:
        monkeypatch.setattr("sys.stdin", file)
        main([*words, "-"])
    assert capfd.readouterr().out == first.out
    for wrong, reason in (
        (["a.wav", "--microphone"], "expected one source"),
        ([str(tmp_path)], "is a folder"),
        (["nowhere.wav"], "no file nowhere.wav"),
        (["-", "--rate", "7"], "--rate 7: expected samples per second, 1000 to 768000"),
        (["-", "--way", "exact"], "an exact stream needs an encoder with chunk"),
        (["--microphone"], "none of arecord, parec, rec is installed; pipe raw samples in"),
    ):
        monkeypatch.setattr(cli_stream.shutil, "which", lambda name: None)
        with pytest.raises(SystemExit) as stopped:
            main([*words, *wrong])
        assert stopped.value.code == 2
        assert reason in capfd.readouterr().err


def test_costs_and_scores_of_streams(monkeypatch):
    cost = stream_cost(modules(), seconds=1.0, block_seconds=0.05, every_seconds=0.3)
    assert cost.exact
    assert len(cost.label_delays) == 3
    assert cost.factor > 0
    assert 0 < cost.frame_delays.min() <= cost.frame_delays.max() < 0.05 + 20 * cost.factor
    encoders = {"Mamba": lambda: BiMamba(width=16, depth=1), "stream": lambda: BiMamba(width=16, depth=1, chunk=2)}
    monkeypatch.setattr(stream_benchmark, "ENCODERS", encoders)
    waveforms = [sound(1.1), sound(1.3).flip(0)]
    clips = Clips(waveforms, torch.eye(2), {0.01: [Fbank()(waveform[None]).values[0] for waveform in waveforms]})
    task = Task(clips, clips, Facts(labels=("a", "b")), fill=0.0)
    for name in ("Mamba", "stream"):
        found = by_delay(*trained(name, task, seed=0, steps=1, seconds=(1.0, 1.2)), task, delays=[0.5])
        assert list(found) == ["whole", "0.5 s", "0.5 s alone"]
        targets = np.eye(2, dtype=bool)
        for heard in found.values():
            right = heard.right(targets)
            assert len(right) == 2
            assert 0 <= right.min() <= right.max() <= 1
            values = heard.precision(targets)
            assert values[0] == pytest.approx(mean_average_precision(heard.scores, targets[heard.clip]))
            assert np.isfinite(values).all()
