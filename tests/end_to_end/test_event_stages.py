"""Sound events from shards to a detector: stages, pseudo-labels, PSDS, timelines, events as files, and mistakes."""

# ruff: noqa: E501

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from drawing import lay_out

from ssl_audio.checkpoints.checkpoint import load_checkpoint
from ssl_audio.cli import main
from ssl_audio.data.corpora import Soundscapes, soundscapes
from ssl_audio.data.facts import Facts
from ssl_audio.evaluation.events.predictions import EventPredictions
from ssl_audio.evaluation.predictions import joined, read_predictions
from ssl_audio.experiments.finetune_builder import FinetuneBuilder

ROOT = Path(__file__).parents[2]
BACKBONE = {
    "frontend": {"class_path": "ssl_audio.audio.fbank.Fbank", "init_args": {"bins": 32}},
    "encoder": {"class_path": "ssl_audio.model.encoders.Transformer", "init_args": {"width": 16, "depth": 1, "heads": 2}},
    "patch": [32, 8],
    "position_frames": 256,
}  # fmt: skip
HEAD = {
    "branches": "both", "width": 16, "rnn_layers": 1, "rnn_width": 8,
    "cnn": {"input": "backbone", "channels": [4, 4], "time_pooling": [4, 2], "band_pooling": [8, 4]},
}  # fmt: skip
TEACHER = {"class_path": "ssl_audio.objectives.AveragedTeacher", "init_args": {"decay": 0.9, "rising": True, "buffers": False}}  # fmt: skip


def tone(hertz, seconds):
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * 16000)) / 16000)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Tables of strong, weak and no labels: a low or a high tone in noise; and two stages beside pseudo-labels."""
    root, draws = tmp_path_factory.mktemp("events"), np.random.default_rng(0)
    rows, events = {"strong": [], "weak": [], "none": []}, []
    for number in range(40):
        low = number % 2 == 0
        wave = 0.02 * draws.standard_normal(24000)
        onset = float(np.round(draws.uniform(0.1, 0.6), 2))
        piece = tone(400 if low else 3000, 0.6)
        wave[round(onset * 16000) :][: len(piece)] += piece
        soundfile.write(root / f"{number}.wav", wave, 16000)
        name, label = f"{number}.wav", "low" if low else "high"
        part = "weak" if 24 <= number < 28 else "none" if 28 <= number < 32 else "strong"
        split = "train" if number < 32 else "valid" if number < 36 else "test"
        rows[part].append(f"{name},{split},{label if part == 'weak' else ''}")
        if part == "strong":
            events.append(f"{name}\t{onset}\t{onset + 0.6:.2f}\t{label}")
    (root / "events.tsv").write_text("filename\tonset\toffset\tevent_label\n" + "\n".join(events) + "\n")
    for part, found in rows.items():
        (root / f"{part}.csv").write_text("path,split,event\n" + "\n".join(found) + "\n")
        words = [
            "shards",
            "write",
            "--corpus=table",
            f"--root={root}",
            f"--table={root}/{part}.csv",
            f"--out={root}/{part}",
        ]
        main(
            [
                *words,
                f"--labels={'[event]' if part == 'weak' else '[]'}",
                *(["--events=none.tsv"] if part != "strong" else []),
            ]
        )
    recipe = {
        "seed_everything": 0, "checkpoint": "none", "statistics": "training",
        "model": {
            "backbone": BACKBONE,
            "objective": {"class_path": "ssl_audio.objectives.SoundEvents", "init_args": {
                "head": HEAD, "teacher": TEACHER, "consistency": {"weight": 1.0, "kind": "interpolation"},
                "mixing": {"rate": 0.5}, "augmentation": {"filters": 0.5},
            }},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
            "schedule": {"class_path": "ssl_audio.training.optimisation.WarmupCosine", "init_args": {"warmup_steps": 2}},
        },
        "data": {
            "shards": [str(root / part) for part in rows], "sources": [{}, {"labelling": "weak"}, {"labelling": "none"}],
            "quotas": [6, 1, 1], "batch_clips": 8, "target": "event", "several": True, "frame_seconds": "model",
            "crop_seconds": 1.5, "workers": 0,
        },
        "trainer": {"max_steps": 24, "val_check_interval": 12, "check_val_every_n_epoch": None},
    }  # fmt: skip
    folder = root / "mine"
    folder.mkdir()
    (folder / "1_head.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "2_scores.yaml").write_text("verb: pseudo\n")
    again = json.loads(json.dumps(recipe))
    again |= {"checkpoint": "stage 1", "keep_head": True}
    del again["model"]["backbone"], again["statistics"]
    again["model"]["objective"]["init_args"]["pseudo_weight"] = 1.0
    again["data"]["pseudo_labels"] = "previous"
    again["trainer"]["max_steps"] = 6
    (folder / "3_again.yaml").write_text(yaml.safe_dump(again))
    return root


def fails(capsys, words):
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(words)
    printed = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code in (1, 2), printed
    return printed[-1]


def test_from_shards_to_events_in_stages(here, tmp_path, monkeypatch, capsys, drawn):
    monkeypatch.chdir(here)
    main(["finetune", "--config", str(here / "mine"), "--runs", str(tmp_path / "runs")])
    below = tmp_path / "runs/stages/mine"
    first, last = below / "finetune/1_head/0", below / "finetune/3_again/0"
    assert (below / "pseudo/2_scores/logits.npy").exists()
    summary = json.loads((last / "summary.json").read_text())
    test = summary["scores"]["pretrained"]["test"]
    assert summary["scores"]["pretrained"]["headline"] == pytest.approx(test["PSDS1"])
    assert json.loads((first / "summary.json").read_text())["scores"]["scratch"]["test"]["event_F1"] > 0.3, "it learns"
    assert {"PSDS1", "event_F1"} <= summary["scores"]["pretrained"]["validation"].keys() == test.keys()
    low, high = summary["scores"]["pretrained"]["interval"]
    assert 0 <= low <= test["PSDS1"] <= high <= 1
    assert {"PSDS2", "event_F1", "segment_F1", "mpAUC", "mAP"} <= test.keys()
    assert (last / "timelines.png").stat().st_size > 10_000
    assert "Timelines of the best and the worst" in (last / "report.html").read_text()
    # The checkpoint holds what answers, with its thresholds; no teacher.
    found = load_checkpoint(last / "checkpoints/best.ckpt")
    assert not any("teacher" in name or "average" in name for name in found.weights)
    assert len(found.task["events"]["thresholds"]) == 2
    # Predictions are read back as they were, and pair.
    one, other = (read_predictions(run / "predictions.parquet") for run in (last, first))
    assert isinstance(one, EventPredictions)
    assert one.headline == pytest.approx(test["PSDS1"], abs=1e-3)
    assert one.against(one).gain == 0
    together = joined([one, other])
    assert together.headline == pytest.approx((one.headline + other.headline) / 2, abs=1e-9)
    assert together.against(joined([other, one])).gain == pytest.approx(0)
    # `evaluate` scores events, too, as the training did; of clips without times it says so.
    best = str(last / "checkpoints/best.ckpt")
    main(["evaluate", "--checkpoint", best, f"--shards=[{here}/strong]", "--split=test", f"--out={tmp_path}/scores"])
    scores = json.loads((tmp_path / "scores/metrics.json").read_text())
    assert {name: scores[name] for name in test} == pytest.approx(test, abs=1e-6)
    assert scores["interval"] == pytest.approx([low, high], abs=1e-6)
    assert [row["events"] for row in scores["events"]] == [2, 2]
    again = read_predictions(tmp_path / "scores/predictions.parquet")
    assert again.against(one).gain == pytest.approx(0, abs=1e-6)
    capsys.readouterr()
    main(["evaluate", "--checkpoint", best, f"--shards=[{here}/weak]", f"--out={tmp_path}/weak"])
    assert "labels without onset and offset: only whole clips" in capsys.readouterr().err
    # Events of files of any length, as a table, for Audacity and as JSON.
    both = np.concatenate([0.01 * np.random.default_rng(0).standard_normal(64000), tone(400, 0.6), np.zeros(8000)])
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio/long.wav", both, 16000)
    soundfile.write(tmp_path / "audio/silence.wav", 1e-4 * both[:30000], 16000)
    words = [
        "predict",
        "--checkpoint",
        str(first / "checkpoints/best.ckpt"),
        "--events",
        "true",
        str(tmp_path / "audio"),
    ]
    picture = tmp_path / "timelines.png"
    main([*words, "--out", str(tmp_path / "events.tsv"), "--picture", str(picture)])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"{picture}: timelines of all" in capsys.readouterr().out
    for wrong, told in (
        (["--out=x.tsv", "--picture=x.jpg"], "--picture x.jpg: expected a name that ends in .png"),
        (["--out=x.csv", "--picture=x.png", "--events=false"], "expected --events with it"),
        (["--out=x.tsv", "--picture=x.png", "--part=1/2"], "--part reads some; expected one of them"),
    ):
        assert told in fails(capsys, [*words, *wrong])
    table = [line.split("\t") for line in (tmp_path / "events.tsv").read_text().splitlines()]
    assert table[0] == ["filename", "onset", "offset", "event_label", "confidence"]
    for _, onset, offset, label, confidence in (row for row in table[1:] if row[1]):
        assert 0 <= float(onset) < float(offset) <= 5.1
        assert label in ("low", "high")
        assert 0 < float(confidence) <= 1
    main([*words, "--out", str(tmp_path / "events.txt")])
    assert len(list((tmp_path / "events").glob("*.txt"))) == 2
    main([*words, "--out", str(tmp_path / "events.json")])
    rows = {Path(row["path"]).name: row["events"] for row in json.loads((tmp_path / "events.json").read_text())}
    assert len(rows["long.wav"]) == sum(bool(row[1]) for row in table[1:] if row[0].endswith("long.wav"))
    assert "expected a name that ends in .tsv, .txt, .json" in fails(capsys, [*words, "--out", "events.csv"])
    lay_out(monkeypatch)
    # `newest` in a stage is the newest pretraining of all; a frozen stage leaves an adapter file, whose base lies there.
    (tmp_path / "alone").mkdir()
    recipe = yaml.safe_load((here / "mine/1_head.yaml").read_text()) | {"checkpoint": "newest"}
    del recipe["model"]["backbone"]
    recipe["trainer"] = {"max_steps": 1}
    frozen = json.loads(json.dumps(recipe))
    frozen["model"]["tuning"] = {"train": []}
    (tmp_path / "alone/1_frozen.yaml").write_text(yaml.safe_dump(frozen))
    (tmp_path / "alone/2_scores.yaml").write_text("verb: pseudo\n")
    del recipe["checkpoint"], recipe["statistics"]
    recipe["data"]["pseudo_labels"] = "previous"
    (tmp_path / "alone/3_whole.yaml").write_text(yaml.safe_dump(recipe | {"keep_head": True}))
    alone = ["finetune", "--config", str(tmp_path / "alone"), "--runs", str(tmp_path / "runs")]
    assert f"no pretrained checkpoint below {tmp_path}/runs/pretrain" in fails(capsys, alone)
    newest = tmp_path / "runs/pretrain/mine/0/checkpoints/last.ckpt"
    newest.parent.mkdir(parents=True)
    newest.write_bytes((first / "checkpoints/best.ckpt").read_bytes())
    main(alone)
    below = tmp_path / "runs/stages/alone/finetune"
    assert json.loads((below / "1_frozen/0/summary.json").read_text())["checkpoint"] == str(newest)
    assert (below / "1_frozen/0/checkpoints/best.ckpt").stat().st_size < newest.stat().st_size
    assert (below / "3_whole/0/summary.json").exists()
    main(alone)
    assert capsys.readouterr().out.count("had ended before") == 2


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--data.sources=null", "--data.quotas=null", "--data.shards=[{here}/weak]"], "no labelled clip is in split 'valid'; the labelled clips are in train"),
        (["--data.sources=[{{labelling: weak}}]"], "data.sources has 1 entries; expected one for each of the 3 data.shards"),
        (["--data.sources=[{{labels: [hgih]}}, {{labelling: weak}}, {{labelling: none}}]"], "'hgih' is no label of the task; did you mean 'high'"),
        (["--data.quotas=[2, 5, 1]"], "data.quotas takes 5 clips of {here}/weak for every batch, which has 4 training clips"),
        (["--model.objective.init_args.teacher=null"], "consistency.weight is 1.0, but there is no teacher"),
        (["--model.objective=null"], "data.frame_seconds is model, but model.objective gives no scores of frames"),
        (["--model.objective.init_args.source_weights=[1.0]"], "source_weights has 1 numbers; expected one for each of the 3"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(here, tmp_path, capsys, words, line):
    given = [word.format(here=here) for word in words]
    recipe = str(here / "mine/1_head.yaml")
    assert line.format(here=here) in fails(capsys, ["finetune", "--config", recipe, f"--runs={tmp_path}", *given])


def test_events_beyond_a_clip_and_stages_that_are_missing_are_one_line(here, tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", tone(400, 1.0), 16000)
    (tmp_path / "meta.csv").write_text("path,split\na.wav,train\n")
    (tmp_path / "events.tsv").write_text("filename\tonset\toffset\tevent_label\na.wav\t3.0\t4.0\tdog\n")
    main(
        ["shards", "write", "--corpus=table", f"--root={tmp_path}", f"--out={tmp_path}/out", "--labels=[]"]
    ) if False else None
    line = fails(capsys, ["shards", "write", "--corpus=table", f"--root={tmp_path}", f"--out={tmp_path}/out"])
    assert "event 'dog' from 3 to 4 s lies outside of the clip" in line or "rejected" in line
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/1_scores.yaml").write_text("verb: pseudo\n")
    line = fails(capsys, ["finetune", "--config", str(tmp_path / "bad"), f"--runs={tmp_path}/runs"])
    assert "pseudo needs a stage before it that trained" in line


@pytest.mark.parametrize("name", ["cpjku/1_frozen", "cpjku/5_whole_again", "table/2_whole"])
def test_the_recipes_are_understood(name, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["ssl-audio"])
    spec = json.dumps({"class_path": "ssl_audio.model.backbone.Backbone", "init_args": BACKBONE})
    words = [f"--config={ROOT}/recipes/sed/{name}.yaml", "--checkpoint=none", f"--model.backbone={spec}"]
    cli = FinetuneBuilder([*words, "--data.pseudo_labels=null", "--resume=never", f"--runs={tmp_path}/runs"])
    facts = Facts(labels=tuple("abc"), several=True, frame_seconds=0.064, folders=len(cli.datamodule.shards))
    cli.model.attach(facts)
    cli.model.objective.check(cli.model.backbone, facts)
    assert cli.model.objective.frame_seconds(cli.model.backbone) == (0.04 if "table" in name else 0.064)


def test_soundscapes_are_what_they_say(monkeypatch):
    monkeypatch.setattr(soundscapes, "_COUNTS", {"strong": 3, "weak": 2, "unlabelled": 4, "valid": 1, "test": 2})
    for part, count in (("strong", 6), ("weak", 2), ("unlabelled", 4)):
        recordings = Soundscapes(part).recordings()
        assert len(recordings) == count
        clip = recordings[0].clip
        assert bool(clip.events) == (part == "strong")
        assert bool(clip.labels) == (part != "unlabelled")
    scapes = Soundscapes("strong")
    first = scapes.recordings()[0]
    wave = scapes.waveform(first)
    assert len(wave) == 160000
    np.testing.assert_array_equal(wave, Soundscapes("strong").waveform(first))
