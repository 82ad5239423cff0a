"""Fine-tuning and what follows it, from the outside: what is left behind, what is never touched, one line a mistake."""

import json
import os
import re
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import yaml
from damage import damaged
from sklearn.metrics import average_precision_score

from ssl_audio.checkpoints.checkpoint import Checkpoint, describe, load_checkpoint
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.cli import main
from ssl_audio.data.index import ShardIndex, open_shards
from ssl_audio.evaluation import cost
from ssl_audio.evaluation.predictions import read_predictions
from ssl_audio.experiments.finetune_builder import FinetuneBuilder
from ssl_audio.training.finetuning import Finetuning
from ssl_audio.training.metrics_log import read_rows

ROOT = Path(__file__).parents[2]
BACKBONE = {
    "frontend": {"class_path": "ssl_audio.audio.fbank.Fbank"},
    "encoder": {
        "class_path": "ssl_audio.model.encoders.Transformer",
        "init_args": {"width": 32, "depth": 2, "heads": 2},
    },
    "position_frames": 128,
}


@pytest.fixture
def finetune(tmp_path, demo_shards, monkeypatch):
    """Runs `ssl-audio finetune` on ten kinds of sounds with a small backbone, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")

    def words(*more: str) -> list[str]:
        return [
            "finetune", "--config", str(ROOT / "recipes/finetune/demo_event.yaml"), f"--data.shards=[{demo_shards}]",
            "--checkpoint=none", f"--model.backbone={json.dumps(BACKBONE)}", "--data.crop_seconds=1.295",
            "--adaptation.frames=128", "--data.workers=0", "--data.batch_clips=8", "--trainer.max_epochs=2",
            "--trainer.precision=32-true", "--average_from_epoch=0", "--name=sounds", *more,
        ]  # fmt: skip

    def run(*more: str) -> Path:
        main(words(*more))
        return sorted((tmp_path / "runs/finetune/sounds").iterdir())[-1]

    run.words = words
    return run


@pytest.fixture
def pretraining_of(tmp_path):
    """Leaves a small checkpoint as `ssl-audio pretrain` does, of patches of so many bins and frames."""

    def save(patch: list[int], *, name: str = "begun", mean: float = -4.2677393) -> Path:
        path = tmp_path / f"{name}.ckpt"
        frontend = {**BACKBONE["frontend"], "init_args": {"mean": mean}}
        options = {**BACKBONE, "patch": patch, "frontend": frontend}
        recipe = {"model": {"backbone": {"class_path": "ssl_audio.model.backbone.Backbone", "init_args": options}}}
        fresh = Checkpoint(path, recipe, {}, 0, "").untrained(seed=round(-mean))
        weights = {f"backbone.{key}": value for key, value in fresh.state_dict().items()}
        torch.save({"state_dict": weights, "global_step": 0, "ssl_audio": describe(recipe)}, path)
        return path

    return save


@pytest.fixture
def touched(monkeypatch):
    """The keys of the clips whose audio is read, in the order of reading."""
    keys: list[str] = []
    original = ShardIndex.audio_bytes

    def audio_bytes(self, clip):
        keys.append(str(self.key[clip]))
        return original(self, clip)

    monkeypatch.setattr(ShardIndex, "audio_bytes", audio_bytes)
    return keys


def fails(capsys, words: list[str], *, code: int) -> str:
    with pytest.raises(SystemExit) as caught:
        main(words)
    printed = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code == code, printed
    assert printed[-1].startswith("ssl-audio: ")
    assert "Traceback" not in "".join(printed)
    return printed[-1]


@pytest.mark.parametrize("task", sorted(path.stem for path in (ROOT / "recipes/finetune").glob("*.yaml")))
def test_every_recipe_is_understood(task, pretraining_of, demo_shards, monkeypatch):
    """With weights to begin at, whose statistics and positions the recipe changes; and some without."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["ssl-audio"])
    recipe = yaml.safe_load((ROOT / f"recipes/finetune/{task}.yaml").read_text())
    wanted = recipe.get("adaptation", {})
    base = pretraining_of([128, 2] if wanted.get("stride") == [128, 1] else [16, 16])
    fresh = wanted.get("stride") is not None or task == "demo_event"
    for checkpoint in (str(base), *(["none"] if fresh else [])):
        words = ["--config", task, f"--checkpoint={checkpoint}", f"--data.shards=[{demo_shards}]", "--resume=never"]
        words += [f"--runs={base.parent / 'runs'}"]
        cli = FinetuneBuilder(words)
        assert recipe["model"].get("head", {}).items() <= cli.recipe["model"]["head"].items()
        options = cli.recipe["model"]["backbone"]["init_args"]
        assert options["stride"] == wanted.get("stride") or wanted.get("stride") is None
        assert options["frontend"]["init_args"]["mean"] == pytest.approx(wanted.get("mean", -4.2677393))
        assert float(cli.model.backbone.frontend.mean) == pytest.approx(wanted.get("mean", -4.2677393))


def test_a_task_from_training_to_labels(finetune, tmp_path, capsys, demo_shards, touched):
    folder = finetune("--statistics=training", "--patience=3")
    # No clip of the test split is read before all others have been read for the last time.
    index = open_shards([demo_shards])
    test = {str(index.key[row]) for row in np.flatnonzero(index.split == "test")}
    first = next(place for place, key in enumerate(touched) if key in test)
    assert set(touched[first:]) <= test
    assert len(touched[first:]) == len(set(touched[first:])), "the test set is opened once"
    assert not set(touched[:first]) & test

    names = {path.name for path in folder.iterdir()}
    assert {
        "recipe.yaml",
        "summary.json",
        "metrics.csv",
        "report.html",
        "confusion.png",
        "predictions.parquet",
    } <= names
    summary = json.loads((folder / "summary.json").read_text())
    score = summary["scores"]["scratch"]
    assert 0 <= score["interval"][0] <= score["headline"] <= score["interval"][1] <= 1
    assert len(summary["labels"]) == 10
    best = folder / "checkpoints/best.ckpt"
    found = load_checkpoint(best)
    assert found.task["labels"] == summary["labels"]
    assert found.backbone().width == 32

    # The same command begins the next run; the checkpoint scores, labels and embeds.
    capsys.readouterr()
    main(["evaluate", "--checkpoint", str(best), "--shards", f"[{demo_shards}]", "--split", "test", "--out", "ev"])
    metrics = json.loads((tmp_path / "ev/metrics.json").read_text())
    assert metrics["clips"] == score["clips"]
    (tmp_path / "audio").mkdir()
    draws = np.random.default_rng(0)
    for name, rate, channels in (("a.mp3", 44100, 2), ("b.wav", 8000, 1)):
        soundfile.write(tmp_path / "audio" / name, draws.uniform(-0.3, 0.3, (rate * 3, channels)), rate)
    (tmp_path / "audio/broken.flac").write_text("nothing")
    main(["predict", "--checkpoint", str(best), "--out", "labels.csv", "--top", "2", "audio"])
    lines = (tmp_path / "labels.csv").read_text().splitlines()
    assert lines[0] == "path,label1,probability1,label2,probability2"
    assert [line.split(",")[0] for line in lines[1:]] == ["audio/a.mp3", "audio/b.wav"]
    (tmp_path / "names.csv").write_text(
        "index,mid,display_name\n" + "".join(f'{n},/m/{n},"kind, {n}"\n' for n in range(10))
    )
    main(["predict", "--checkpoint", str(best), "--out", "labels.json", "--label_names", "names.csv", "audio"])
    renamed = json.loads((tmp_path / "labels.json").read_text())
    expected = [f"kind, {summary['labels'].index(line.split(',')[1])}" for line in lines[1:]]
    assert [row["labels"][0] for row in renamed] == expected
    (tmp_path / "names.csv").write_text("one\ntwo\n")
    named = ["evaluate", "--checkpoint", str(best), "--shards", f"[{demo_shards}]", "--label_names", "names.csv"]
    assert "tells 10 labels apart; expected as many different names, found 2" in fails(capsys, named, code=1)
    embed = ["embed", "--checkpoint", str(best), "--frames", "true", "--bands", "apart", "--out"]
    main([*embed, "merged.npz", "--merge", "9", "--pack", "300", "audio"])
    main([*embed, "vectors.npz", "audio"])
    with np.load("merged.npz") as merged, np.load("vectors.npz") as plain:
        assert merged["frames"].shape == plain["frames"].shape
        assert not np.array_equal(merged["frames"], plain["frames"])
    with np.load(tmp_path / "vectors.npz") as arrays:
        assert arrays["embedding"].shape == (2, 8 * 32)
        assert arrays["offsets"][-1] == len(arrays["frames"]) == len(arrays["seconds"])
    assert not list(tmp_path.glob(".*"))
    assert "broken.flac: cannot be decoded" in capsys.readouterr().err

    import ssl_audio

    model = ssl_audio.pretrained(best)
    assert model.labels == summary["labels"]
    shares = model.predict(torch.randn(2, 20000) * 0.1, sample_rate=16000)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2))


def test_a_damaged_clip_is_replaced_where_it_trains_and_told_where_it_tests(finetune, tmp_path, capsys, demo_shards):
    index = open_shards([demo_shards])
    events = [row for row in range(len(index)) if "event" in index.describe(row).labels]
    train, test = (next(row for row in events if index.split[row] == split) for split in ("train", "test"))
    for name, bad in (("train", train), ("test", test)):
        damaged(demo_shards, tmp_path / name, [bad])
    for words in ([], ["--model.head.kind=knn"], ["--model.head.begin=probe", "--statistics=training"]):
        more = ["--data.max_replaced=0.2", "--trainer.max_epochs=1", "--average_from_epoch=null", *words]
        folder = finetune(f"--data.shards=[{tmp_path / 'train'}]", *more)
        scores = json.loads((folder / "summary.json").read_text())["scores"]["scratch"]
        assert list(scores["replaced"]) == [index.key[train]]
        assert "1 training clips could not be decoded and were replaced by others" in capsys.readouterr().err
    none = finetune.words(f"--data.shards=[{tmp_path / 'train'}]", "--data.max_replaced=0", "--name=none")
    assert re.search(rf"{index.key[train]}.*cannot be decoded", fails(capsys, none, code=1))
    line = fails(capsys, finetune.words(f"--data.shards=[{tmp_path / 'test'}]", "--trainer.max_epochs=1"), code=1)
    assert re.search(rf"{index.key[test]}.*cannot be decoded", line)


def test_clips_with_several_labels_as_audioset_has_them(finetune, tmp_path, capsys):
    """Class tokens, balanced draws, layer decay, mixing, a mean over epochs; mAP is scikit-learn's, here and in
    `evaluate`."""
    draws, rows = np.random.default_rng(0), []
    for number in range(48):
        names = [name for place, name in enumerate("abcd") if number >> place & 1] or ["a"]
        noise = sum(np.sin(0.05 * (1 + ord(name)) * np.arange(16000)) for name in names)
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * (noise + draws.standard_normal(16000)), 16000)
        rows.append(f"{number}.wav,{';'.join(names)},{'train' if number < 32 else 'eval'}")
    (tmp_path / "meta.csv").write_text("path,event,split\n" + "\n".join(rows) + "\n")
    main(["shards", "write", "--corpus=table", f"--root={tmp_path}", "--out=several", "--labels=[event]"])
    recipe = yaml.safe_load((ROOT / "recipes/finetune/audioset20k.yaml").read_text())
    recipe |= {"average_from_epoch": 0, "adaptation": {}, "trainer": {"max_epochs": 2, "precision": "32-true"}}
    recipe["data"] |= {"shards": ["several"], "crop_seconds": 1.0, "workers": 0, "balanced": True, "batch_clips": 8}
    recipe["data"]["validation_share"] = 0.25
    recipe["model"] |= {"head": {"pooling": "class"}, "layer_decay": 0.7, "backbone": {**BACKBONE, "class_tokens": 1}}
    (tmp_path / "audioset.yaml").write_text(yaml.safe_dump(recipe))
    words = ["--config=audioset.yaml", "--checkpoint=none", "--adaptation.frames=128", "--name=several"]
    assert "clips have several labels of kind 'event'" in fails(
        capsys, ["finetune", *words, "--data.several=false"], code=2
    )
    main(["finetune", *words])
    folder = tmp_path / "runs/finetune/several/0"
    found = read_predictions(folder / "predictions.parquet")
    assert found.several
    assert found.targets.sum() > len(found.keys) == 16
    expected = average_precision_score(found.targets, found.scores, average="macro")
    score = json.loads((folder / "summary.json").read_text())["scores"]["scratch"]
    assert score["headline"] == pytest.approx(expected, abs=1e-6)
    assert not (folder / "confusion.png").exists()
    best = folder / "checkpoints/best.ckpt"
    main(["evaluate", f"--checkpoint={best}", "--shards=[several]", "--split=eval", "--out=again"])
    again = json.loads((tmp_path / "again/metrics.json").read_text())
    assert again["mAP"] == pytest.approx(expected, abs=1e-6)


def test_frozen_methods_leave_the_backbone_as_it_was(finetune):
    """Whatever is trained on it, it is the same backbone at the end."""
    backbones = []
    for head in ("norm=batch", "pooling=attentive", "layers=true", "kind=knn"):
        words = [f"--model.head.{head}", "--trainer.max_epochs=1", "--average_from_epoch=null"]
        words += ["--trainer.enable_checkpointing=false"] if head == "layers=true" else []
        folder = finetune("--model.tuning.train=[]", *words)
        trained = json.loads((folder / "summary.json").read_text())["trained"]
        assert trained == ("nearest neighbours" if head == "kind=knn" else "frozen backbone")
        if head == "layers=true":  # without checkpoints only the weights that were tested stay
            assert [path.name for path in folder.glob("checkpoints/*")] == ["best.ckpt"]
        if head != "kind=knn":
            backbones.append(load_checkpoint(folder / "checkpoints/best.ckpt").part("backbone"))
    for name, value in backbones[0].items():
        assert all(torch.equal(value, other[name]) for other in backbones[1:]), name


def test_what_is_said_beside_a_checkpoint_is_kept_or_refused_with_both_values(finetune, pretraining_of, capsys):
    """The checkpoint's recipe says nothing of `position_rule`; adapters are put on it, and alone are trained."""
    base = pretraining_of([16, 16])
    adapters = [{"class_path": "LowRank", "init_args": {"rank": 2, "targets": ["qkv[query]", "expand"]}}]
    words = [f"--checkpoint={base}", "--model.backbone.position_rule=centre", f"--adapters={json.dumps(adapters)}"]
    words += ["--model.tuning.train=[adapters.*]", "--trainer.max_epochs=1", "--average_from_epoch=null"]
    words += ["--beside_scratch=false"]
    folder = finetune(*words)
    assert "LowRank adapts 4 of 8 projections" in capsys.readouterr().err
    kept = yaml.safe_load((folder / "recipe.yaml").read_text())
    options = kept["model"]["backbone"]["init_args"]
    assert options["position_rule"] == "centre"
    assert [adapter["init_args"]["targets"] for adapter in options["adapters"]] == [["qkv[query]", "expand"]]
    assert json.loads((folder / "summary.json").read_text())["trained"] == "adapters.* train"
    tested = open_checkpoint(folder / "checkpoints/best.ckpt", base=base).part("backbone")
    before = load_checkpoint(base).part("backbone")
    assert all(torch.equal(value, tested[name]) for name, value in before.items()), "the base is as it was"
    assert any(name.endswith("up") and value.any() for name, value in tested.items()), "and the adapters learnt"
    heads = [*words, "--model.backbone.encoder.init_args.heads=4"]
    assert "holds a Transformer with heads 2, not 4" in fails(capsys, finetune.words(*heads), code=2)


def test_a_fold_begins_at_its_own_pretraining(finetune, pretraining_of, tmp_path, capsys, touched):
    """`{fold}` in the path: weights and statistics are of the pretraining that did not see the fold, and neither does
    anything else before its test."""
    for number in range(24):
        noise = np.random.default_rng(number).standard_normal(16000) * 0.1
        soundfile.write(tmp_path / f"{number}.wav", noise, 16000)
    rows = [f"{number}.wav,{'ab'[number % 2]},{1 + number // 12}" for number in range(24)]
    (tmp_path / "meta.csv").write_text("path,label,fold\n" + "\n".join(rows) + "\n")
    main(["shards", "write", "--corpus=table", f"--root={tmp_path}", f"--out={tmp_path / 'folds'}"])
    for fold, mean in enumerate((-3.0, -5.0)):
        pretraining_of([16, 16], name=str(fold), mean=mean)
    words = [f"--data.shards=[{tmp_path / 'folds'}]", "--data.target=label", "--data.protocol=fold"]
    words += ["--average_from_epoch=null"]
    words += [f"--checkpoint={tmp_path / '{fold}.ckpt'}", "--model.tuning.train=[]", "--trainer.max_epochs=1"]
    words += ["--beside_scratch=false"]
    whole = finetune(*words)
    read = [int(key) for key in touched]
    first = next(place for place, key in enumerate(read) if key < 12)
    assert sorted(read[first : first + 12]) == list(range(12)), "the fold that tests is read once, in one go"
    second = read[first + 12 :]
    assert sorted(second[-12:]) == list(range(12, 24))
    assert max(second[:-12]) < 12, "and the other's after everything else of its training"
    for fold, mean in enumerate((-3.0, -5.0)):
        source = load_checkpoint(tmp_path / f"{fold}.ckpt").part("backbone")
        best = whole / f"pretrained/fold{fold}/checkpoints/best.ckpt"
        ended = open_checkpoint(best, base=tmp_path / f"{fold}.ckpt")
        for name, value in ended.part("backbone").items():
            assert torch.equal(value, source[name]), name
        assert ended.spec["init_args"]["frontend"]["init_args"]["mean"] == mean == float(source["frontend.mean"])
    assert json.loads((whole / "summary.json").read_text())["checkpoint"] == str(tmp_path / "{fold}.ckpt")
    folds = tmp_path / "folds"
    twice = finetune.words(f"--data.shards=[{folds},{folds}]", "--data.target=label")
    assert "folds twice, so a clip could be in training and test" in fails(capsys, twice, code=2)
    (tmp_path / "1.ckpt").unlink()
    assert re.search(r"1\.ckpt: no such checkpoint", fails(capsys, finetune.words(*words, "--resume=never"), code=1))
    assert not (tmp_path / "runs/finetune/sounds/1/pretrained").exists(), "found out before the first fold trained"


def test_an_unfinished_run_goes_on_from_the_weights_it_started_from(
    finetune, pretraining_of, tmp_path, monkeypatch, capsys
):
    def newest(path: Path) -> Path:
        place = tmp_path / f"runs/pretrain/{path.stem}/0/checkpoints/last.ckpt"
        place.parent.mkdir(parents=True)
        return path.rename(place)

    def crash_at(step):
        whole = Finetuning.training_step

        def crash(self, batch, batch_idx):
            if batch_idx == step:
                raise RuntimeError("power cut")
            return whole(self, batch, batch_idx)

        return crash

    words = [
        word
        for word in finetune.words("--checkpoint=newest", "--checkpoints.every_steps=1")
        if not word.startswith(("--model.backbone", "--checkpoint=none"))
    ]
    first = newest(pretraining_of([16, 16]))
    for step, options in enumerate((["--patience=3"], [])):  # nothing is kept of the first, so it binds nothing
        with monkeypatch.context() as patched:
            patched.setattr(Finetuning, "training_step", crash_at(step))
            with pytest.raises(RuntimeError, match="power cut"):
                main([*words, *options])
    second = newest(pretraining_of([16, 16], name="later", mean=-5.0))
    assert "was started from the weights of runs/pretrain/begun" in fails(
        capsys, [*words, f"--checkpoint={second}"], code=2
    )
    assert "was started with patience None, not 3" in fails(capsys, [*words, "--patience=3"], code=2)
    main(words)
    folder = tmp_path / "runs/finetune/sounds/0"
    assert json.loads((folder / "summary.json").read_text())["checkpoint"] == str(first.relative_to(tmp_path))


def test_a_stopped_run_goes_on_and_ends_like_a_whole_one(finetune, tmp_path, monkeypatch, capsys):
    straight = load_checkpoint(finetune("--trainer.max_epochs=3") / "checkpoints/last.ckpt").weights
    original = Finetuning.training_step

    def crash(self, batch, batch_idx):
        if self.trainer.global_step == 4:
            raise RuntimeError("power cut")
        return original(self, batch, batch_idx)

    monkeypatch.setattr(Finetuning, "training_step", crash)
    with pytest.raises(RuntimeError, match="power cut"):
        finetune("--trainer.max_epochs=3", "--patience=9")
    # Told to stop within an epoch, then by hand at once in its last step.
    for number, code, line in (
        (signal.SIGUSR1, 75, r"told to stop by the machine; step [35] is saved in .*last.ckpt"),
        (signal.SIGINT, 130, r"interrupted; the last whole checkpoint is in .*checkpoints"),
    ):

        def told(self, batch, batch_idx, number=number):
            os.kill(os.getpid(), number)
            if number == signal.SIGINT:
                os.kill(os.getpid(), number)
            return original(self, batch, batch_idx)

        monkeypatch.setattr(Finetuning, "training_step", told)
        printed = fails(capsys, finetune.words("--trainer.max_epochs=3", "--patience=9"), code=code)
        assert re.fullmatch(f"ssl-audio: {line}; give the same command again to resume", printed)
    assert load_checkpoint(tmp_path / "runs/finetune/sounds/1/checkpoints/last.ckpt").step in (3, 5)
    monkeypatch.setattr(Finetuning, "training_step", original)
    again = finetune("--trainer.max_epochs=3", "--patience=9")
    assert again.name == "1"
    assert load_checkpoint(again / "checkpoints/last.ckpt").step == 6
    for name, value in load_checkpoint(again / "checkpoints/last.ckpt").weights.items():
        assert torch.equal(value, straight[name]), name
    steps = [step for step, row in read_rows(again / "metrics.csv") if "train/loss" in row]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["--model.tunning.train=[]"], 2, r"tunning.*did you mean 'model.tuning"),
        (["--model.head.kind=knnn"], 2, r"knnn"),
        (["--model.tuning.train=[encodr.*]"], 2, r"no parameter of the backbone is named 'encodr\.\*'.*encoder.blocks"),
        (["--checkpoint=newest"], 1, r"no pretrained checkpoint below runs/pretrain; run `make pretrain`"),
        (["--checkpoint=gone.pth"], 1, r"gone.pth: no such checkpoint"),
        (["--data.target=colour"], 1, r"no clip has a label of kind 'colour'; these shards have emotion, event"),
        (["--data.validation_split=dev"], 1, r"no labelled clip is in split 'dev'.*test, train, valid"),
        (["--data.protocol=fold"], 1, r"have 0 folds; expected at least 2"),
        (["--data.crop_seconds=2.575"], 2, r"clips last up to .* positions for 128; set --adaptation.frames"),
        (["--data.target=speaker"], 1, r"no training clip has the speaker"),
        (["--model.head.pooling=class"], 2, r"no class tokens; expected mean or attentive"),
        (["--trainer.max_epochs=-1"], 2, r"max_epochs is not set"),
        (["--folds=[3]"], 2, r"--folds 3: there are 0 folds"),
        (["--intervals=speakers"], 1, r"test clips name no speaker; expected several, each clip with one"),
    ],
)
def test_mistakes_in_finetuning_are_one_line(finetune, capsys, words, code, expected):
    line = fails(capsys, finetune.words(*words), code=code)
    assert re.search(expected, line), line


def test_a_missing_corpus_falls_back_on_the_demo_and_says_so(finetune, capsys, tmp_path, demo_shards):
    assert "no pretrained checkpoint" in fails(
        capsys, ["finetune", f"--config={ROOT}/recipes/finetune/desed.yaml"], code=1
    )
    wrong = ([f"--config={ROOT}/recipes/pretrain/demo.yaml", f"--{option}"] for option in ("budget=3x", "name=a/b"))
    assert all("; expected a time" in (line := fails(capsys, ["pretrain", *words], code=2)) or "slashes" in line
               for words in wrong)  # fmt: skip
    assert not (tmp_path / "shards").exists(), "found out before the demo is synthesised"
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/demo").symlink_to(demo_shards)
    main(
        [
            "finetune", "--config", str(ROOT / "recipes/finetune/esc50.yaml"), "--checkpoint=none",
            f"--model.backbone={json.dumps(BACKBONE)}", "--data.crop_seconds=1.295", "--adaptation.frames=128",
            "--trainer.max_epochs=1", "--data.workers=0", "--model.tuning.train=[]",
        ]
    )  # fmt: skip
    printed = capsys.readouterr()
    assert "NOT ESC50: shards/esc50 is not here" in printed.err
    assert "How to get the corpus: ESC-50" in printed.err
    assert (tmp_path / "runs/finetune/esc50-on-demo/0/summary.json").exists()


def test_a_comparison_is_one_table_and_goes_on_where_it_was(finetune, tmp_path, capsys, demo_shards, monkeypatch):
    (tmp_path / "recipes/encoders").mkdir(parents=True)
    (tmp_path / "recipes/encoders/small.yaml").write_text(json.dumps(BACKBONE["encoder"]))
    options = ["--data.crop_seconds=1.295", "--adaptation.frames=128", "--data.workers=0", "--model.head.begin=probe"]
    options += [f"--data.shards=[{demo_shards}]", "--average_from_epoch=null", "--data.batch_clips=8"]
    pretraining = tmp_path / "pretraining.yaml"
    pretraining.write_text(
        (ROOT / "recipes/pretrain/demo.yaml").read_text().replace("shards/demo", str(demo_shards))
        .replace("batch_clips: 64", "batch_clips: 4").replace("workers: 1", "workers: 0")
    )  # fmt: skip
    words = [
        "compare", "--task", str(ROOT / "recipes/finetune/demo_event.yaml"), "--encoders=[small]", "--seeds=1",
        "--baselines=[levelled_mel]",
        f"--pretraining={pretraining}", "--pretrain_steps=10", f"--options={json.dumps(options)}", "--name=x",
        "--clips=24",
    ]  # fmt: skip
    main(words)
    folder = tmp_path / "runs/compare/x"
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["scores"]) == {"small scratch", "small pretrained", "levelled_mel statistics"}
    assert summary["cost"]["small"]["training_flops"] > 1e6
    assert summary["cost"]["small"]["peak_bytes"] > 1e6
    assert (folder / "report.md").read_text().count("| small ") == 4
    assert (folder / "report.html").read_text().count("data:image/png") == 2
    assert (folder / "pretraining.png").read_bytes().startswith(b"\x89PNG")
    before = {path: path.stat().st_mtime_ns for path in folder.glob("cells/**/outcome.json")}
    assert len(before) == 2
    assert [path.name for path in folder.glob("cells/**/*.ckpt")] == ["best.ckpt"] * 2
    given = words.index(f"--options={json.dumps(options)}")
    main([*words[:given], f"--options={' '.join(options)}", *words[given + 1 :]])
    assert {path: path.stat().st_mtime_ns for path in folder.glob("cells/**/outcome.json")} == before
    steps = [json.loads(path.read_text())["steps"] for path in before]
    assert steps == [3, 3], "24 clips in batches of 8"
    assert "was started with clips 24, not 32" in fails(capsys, [*words[:-1], "--clips=32"], code=2)
    new = [*words[:-2], "--name=y", words[-1]]
    assert "nothing" in fails(capsys, [new[0], "--task", "nothing", *new[3:]], code=2)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/demo").symlink_to(demo_shards)
    alone = [*new, "--options", "--model.hed.kind=linear"]
    assert "hed" in fails(capsys, alone, code=2), "an option of finetune, though it looks like one of compare"
    listed = [*new, "--options=[--data.shards=[x], --data.workers=0]"]
    assert "expected options of finetune, such as" in fails(capsys, listed, code=2)
    assert "one budget for all" in fails(capsys, [*new, "--steps=3"], code=2)
    assert not (tmp_path / "runs/compare/y/plan.json").exists(), "a mistake leaves nothing that binds"
    (tmp_path / "runs/compare/y").mkdir()
    (tmp_path / "runs/compare/y/plan.json").write_text("{")
    assert "plan.json: unreadable" in fails(capsys, new, code=2)
    assert "--encoders smal: no such recipe; did you mean 'small'?" in fails(
        capsys, [*words[:3], "--encoders=[smal]", *words[4:]], code=2
    )
    base = next(folder.glob("pretrained/**/last.ckpt"))
    given = [
        *words[:4],
        "--seeds=1",
        "--baselines=[]",
        "--name=z",
        f"--options={' '.join(options)} --model.head.kind=knn",
    ]
    assert "--checkpoints smll: is not one of --encoders small; did you mean 'small'?" in fails(
        capsys, [*given, f"--checkpoints={{smll: {base}}}"], code=2
    )
    (tmp_path / "recipes/encoders/other.yaml").write_text('{"class_path": "ssl_audio.model.encoders.BiMamba"}')
    assert f"--checkpoints other: {base} is a Transformer; expected a BiMamba" in fails(
        capsys, [*given, "--encoders=[other]", f"--checkpoints={{other: {base}}}"], code=2
    )
    given[-1] = given[-1].replace("--model.head.begin=probe", "")
    main([*given, f"--checkpoints={{small: {base}}}"])
    neighbours = json.loads((tmp_path / "runs/compare/z/summary.json").read_text())
    assert neighbours["cost"] == {}, "nothing was trained"
    assert set(neighbours["scores"]) == {"small scratch", "small pretrained"}
    # Adapters on one checkpoint, beside one another; what an encoder has no place for is left out and said.
    monkeypatch.setattr(cost.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="1"))
    (tmp_path / "recipes/adapters").mkdir()
    for name in ("linear", "lora", "mamba_lora"):
        recipe = (ROOT / f"recipes/adapters/{name}.yaml").read_text().replace("reduction: 64", "reduction: 16")
        (tmp_path / f"recipes/adapters/{name}.yaml").write_text(recipe)
    given = [
        *given[:-2],
        "--name=a",
        f"--options={' '.join(options)}",
        f"--checkpoints={{small: {base}}}",
        "--steps=2",
    ]
    main([*given, "--adapters=[linear,lora,mamba_lora]"])
    adapted = json.loads((tmp_path / "runs/compare/a/summary.json").read_text())
    assert set(adapted["scores"]) == {"small linear", "small lora"}
    assert "no projection of Transformer is named" in adapted["refused"]["small mamba_lora"]
    trained = {name: spent["trained_parameters"] for name, spent in adapted["cost"].items()}
    # Rank 2 on two thirds of the projections of two blocks, the final norm, and a head that is the same.
    assert trained["small lora"] - trained["small linear"] == 2 * 2 * 2 * (32 + 32) + 64
    assert "small lora - small linear" in (tmp_path / "runs/compare/a/report.md").read_text()
    assert "no such recipe" in fails(capsys, [*given, "--adapters=[lorra]"], code=2)
    other = json.dumps({**BACKBONE, "encoder": {"class_path": "ssl_audio.model.encoders.BiMamba"}})
    assert f"{base} holds a Transformer, not a BiMamba; expected" in fails(
        capsys, finetune.words(f"--checkpoint={base}", f"--model.backbone={other}"), code=2
    )
