"""Tasks one after the other: nothing is forgotten with adapters, and a killed experiment resumes to the bit."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from ssl_audio.checkpoints.rehearsal import Rehearsal
from ssl_audio.cli import main
from ssl_audio.data.corpora import Table
from ssl_audio.data.writing import write_shards
from ssl_audio.errors import CheckpointError, RecipeError, SslAudioError
from ssl_audio.evaluation.predictions import read_predictions
from ssl_audio.experiments.continual import continual
from ssl_audio.experiments.continual_methods import Adapters, Analytic, Replay, Sequential
from ssl_audio.experiments.continual_plan import Continual, Task
from ssl_audio.experiments.display import Silent

ENCODER = {"class_path": "ssl_audio.model.encoders.Transformer", "init_args": {"width": 16, "depth": 1, "heads": 2}}
OPTIONS = {
    "data.labels_per_class": None,
    "data.validation_split": "valid",
    "data.batch_clips": 8,
    "data.crop_seconds": 0.32,
    "data.workers": 0,
    "adaptation.frames": 32,
    "trainer.precision": "32-true",
    "trainer.check_val_every_n_epoch": 100,
    "checkpoints.every_steps": 3,
    "model.schedule.init_args.warmup_steps": 0,
    "model.optimizer.init_args.lr": 0.01,
}
FAST = {"model.optimizer.init_args.lr": 0.03}
PATTERN = {"model.backbone.encoder.init_args.pattern": "FrequencyTime", "model.tuning.adapter_rate": 1}
STEPS = 16
OBJECTIVE = "ssl_audio.objectives.EventDetection"


def sound(task: str, label: int, draws: np.random.Generator) -> np.ndarray:
    """Pitches in one task; where in the clip it is loud in the other; chords of both in the third."""
    time = np.arange(5200) / 16000
    if task == "pitches":
        wave = np.sin(2 * np.pi * (400, 700, 1500)[label] * time)
    elif task == "places":
        wave = draws.standard_normal(len(time)) * np.where((time < 0.16) == bool(label), 1.0, 0.02)
    else:
        wave = sum(np.sin(2 * np.pi * hz * time) for bit, hz in ((1, 400), (2, 1500)) if (label + 1) & bit)
    return 0.2 * wave + 0.05 * draws.standard_normal(len(time))


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tasks")
    draws = np.random.default_rng(0)
    for task in ("pitches", "places", "chords"):
        rows = ["path,label,split"]
        (root / task).mkdir()
        for number in range(36):
            label, split = number % (2 if task == "places" else 3), ("train", "train", "valid", "test")[number // 9]
            soundfile.write(root / task / f"{number}.wav", sound(task, label, draws), 16000)
            names = {0: "low", 1: "high", 2: "low;high"}[label] if task == "chords" else f"{task}{label}"
            rows.append(f"{number}.wav,{names},{split}")
        (root / task / "meta.csv").write_text("\n".join(rows))
        write_shards(Table(root / task), root / "shards" / task, name=task)
    return root / "shards"


def plan_of(shards: Path, runs: Path, **changes) -> Continual:
    tasks = {
        "pitches": Task(recipe="few", options={"data.shards": [str(shards / "pitches")]}),
        "places": Task(recipe="few", options={"data.shards": [str(shards / "places")], **FAST}),
    }
    options = {
        "tasks": tasks,
        "methods": {
            "conv_pass": Adapters(adapters="conv_pass", options=PATTERN),
            "sequential": Sequential(),
            "replay": Replay(clips_per_label=3),
            "analytic": Analytic(adapters="conv_pass", options=PATTERN, expansion=30),
        },
        "unknown": ["pitches", "places"],
        "pretrain_steps": 0,
        "pretrain_options": {"model.backbone.encoder": ENCODER, "data.shards": [str(shards / "pitches")]},
        "options": OPTIONS,
        "steps": STEPS,
        "draws": 20,
        "runs": runs,
        "name": "two",
    }
    return Continual(**{**options, **changes})


class Killed(BaseException):
    """As the process would end."""


class KillsAt(Silent):
    """Ends everything in the training of a number, after so many of its steps."""

    def __init__(self, training: int, step: int) -> None:
        self.training_number, self.step, self.count = training, step, 0

    def training(self):
        progress, outer = super().training(), self

        class Killing(type(progress)):
            def on_train_start(self, *given):
                super().on_train_start(*given)
                outer.count += 1

            def on_train_batch_end(self, trainer, *rest):
                super().on_train_batch_end(trainer, *rest)
                if outer.count == outer.training_number and trainer.global_step == outer.step:
                    raise Killed

        progress.__class__ = Killing
        return progress


@pytest.fixture(scope="module")
def finished(shards, tmp_path_factory):
    return continual(plan_of(shards, tmp_path_factory.mktemp("runs")), display=Silent())


def test_adapters_forget_nothing_and_sequential_training_does(finished):
    summary = finished.summary
    assert summary["unchanged"] == {"conv_pass": True}
    assert summary["known"]["conv_pass"]["forgetting"]["mean"] == 0.0
    assert summary["known"]["analytic"]["forgetting"]["mean"] == 0.0
    assert summary["known"]["sequential"]["forgetting"]["mean"] > 0.2
    assert summary["known"]["sequential"]["learning"]["mean"] > 0.9
    assert {run["method"] for run in summary["runs"]} == {*summary["known"]}
    spent = summary["spent"]
    assert spent["replay"]["stored_bytes"] > spent["sequential"]["stored_bytes"]
    for run in summary["runs"]:
        scores = np.array(run["scores"])
        assert scores.shape == (2, 2)
        assert ((scores >= 0) & (scores <= 1)).all()
        # What is known ahead of a task by a backbone that never changes is what the base knows.
        if run["method"] == "conv_pass":
            assert scores[0, 1] == run["before"]["places"]
        assert set(run["unknown"]) == {"1,0", "1,1"}
    folder = finished.folder
    assert (folder / "scores.png").stat().st_size > 5000
    assert "conv_pass" in (folder / "report.md").read_text()
    assert (folder / "report.html").exists()
    assert json.loads((folder / "summary.json").read_text())["known"]
    # The labels of both tasks as one set.
    found = read_predictions(folder / "answers/analytic/0/pitches-places/pitches.among-pitches-places.parquet")
    assert found.labels == [*(f"pitches/pitches{number}" for number in range(3)), "places/places0", "places/places1"]
    assert found.scores.shape == (9, 5)


def test_methods_share_trainings_and_a_missing_file_is_one_line(finished, shards):
    cells = sorted(path.name for path in (finished.folder / "cells/finetune").iterdir())
    # conv_pass 2, of which the first is analytic's too; sequential 2, of which the first is replay's; replay 1.
    assert len(cells) == 5, cells
    plan = plan_of(shards, finished.folder.parents[1])
    assert continual(plan, display=Silent()).text == finished.text  # nothing is done again
    path = next(path for path in finished.checkpoints if "conv_pass" in str(path))
    moved = path.with_suffix(".away")
    path.rename(moved)
    again = finished.folder / "answers/conv_pass/0/pitches.again.parquet"
    again.unlink()
    try:
        with pytest.raises(CheckpointError, match="the file of a task that was learnt is missing; put it back, or"):
            continual(plan, display=Silent())
    finally:
        moved.rename(path)


def test_files_that_changed_between_calls_are_one_line_or_tested_again(finished, shards):
    plan, folder = plan_of(shards, finished.folder.parents[1]), finished.folder
    outcome = next(folder.glob("cells/finetune/places_conv_pass_*/0/outcome.json"))
    base = json.loads((folder / "base.json").read_text())
    for path, content, line in (
        (folder / "plan.json", "[1]", "plan.json: is no plan of a run"),
        (folder / "base.json", "", "base.json: is no base of a run"),
        (folder / "base.json", '{"digest": "0"}', "was started from the weights of None .* give them back"),
        (
            folder / "base.json",
            json.dumps({**base, "shards": dict.fromkeys(base["shards"], "0")}),
            "pitches: its manifest",
        ),
        (outcome, "{", "outcome.json: is no outcome of a run"),
        (outcome, '{"steps": 3}', "says no steps and seconds of a training; put it back"),
    ):
        kept = path.read_bytes()
        path.write_text(content)
        try:
            with pytest.raises(SslAudioError, match=line):
                continual(plan, display=Silent())
        finally:
            path.write_bytes(kept)
    # What a task that was learnt again says is not what the file before it said.
    best, answers = outcome.parent / "checkpoints/best.ckpt", folder / "answers/conv_pass/0"
    before = {path: path.stat().st_mtime_ns for path in answers.rglob("*.parquet")}
    best.touch()
    assert continual(plan, display=Silent()).text == finished.text
    after = {path: path.stat().st_mtime_ns for path in answers.rglob("*.parquet")}
    changed = {path.name for path in before if before[path] != after[path]}
    assert {"places.again.parquet", "pitches.among-pitches-places.parquet"} <= changed


def test_what_no_sequence_can_be_of_is_one_line_before_anything_is_learnt(shards, tmp_path):
    few = {"data.shards": [str(shards / "pitches")]}
    for changes, line in (
        (
            {"options": {**OPTIONS, "trainer.devices": 2}},
            "trainer.devices 2, trainer.num_nodes 1; tasks are learnt on one",
        ),
        ({"pretrain_options": {"trainer.num_nodes": 2}}, "expected 1"),
        ({"tasks": {"a-b": Task(recipe="few")}, "unknown": []}, "'a-b': expected a name of letters, digits and _"),
        (
            {"tasks": {"a": Task(recipe="few", options={**few, "model.head.kind": "knn"})}, "unknown": []},
            "tasks.a: model.head.kind is knn, which learns nothing",
        ),
        (
            {"tasks": {"a": Task(recipe="few", options={**few, "model.objective": OBJECTIVE})}, "unknown": []},
            "tasks.a: its recipe learns by EventDetection; expected labels of clips",
        ),
        ({"pretrain_steps": 1}, "holds a base that was pretrained with another pretrain_steps"),
    ):
        with pytest.raises(RecipeError, match=line):
            continual(plan_of(shards, tmp_path, **changes), display=Silent())
    assert not (tmp_path / "continual/two/cells/finetune").exists()


def test_an_experiment_killed_within_the_second_task_resumes_to_the_bit(finished, shards, tmp_path):
    plan = plan_of(shards, tmp_path, methods={"replay": Replay(clips_per_label=3)}, unknown=[])
    with pytest.raises(Killed):
        continual(plan, display=KillsAt(2, 7))
    first = next((plan.folder / "cells/finetune").glob("pitches_all_*/0/outcome.json"))
    before = first.stat().st_mtime_ns
    resumed = continual(plan, display=Silent())
    assert first.stat().st_mtime_ns == before  # the first task was not learnt again
    whole, again = (
        [run["scores"] for run in one.summary["runs"] if run["method"] == "replay"] for one in (finished, resumed)
    )
    assert whole == again
    answers = "answers/replay/0/pitches-places/pitches.parquet"
    one, other = (read_predictions(experiment.folder / answers) for experiment in (finished, resumed))
    assert np.array_equal(one.scores, other.scores)


def test_the_verb_learns_tasks_of_different_kinds_from_a_recipe(shards, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plan = plan_of(shards, tmp_path)
    chords = {"recipe": "few", "options": {"data.shards": [str(shards / "chords")], "data.several": True}}
    recipe = {
        "tasks": {"pitches": vars(plan.tasks["pitches"]), "chords": chords},
        "orders": [["chords", "pitches"]],
        "methods": {"replay": {"class_path": "Replay", "init_args": {"clips_per_label": 2}}},
        "options": {**OPTIONS, "model.optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}}},
        "pretrain_options": plan.pretrain_options,
    }
    recipe["options"].pop("model.optimizer.init_args.lr")
    Path("mine.yaml").write_text(yaml.safe_dump(recipe))
    words = ["continual", "--config", "mine.yaml", "--pretrain_steps=0", "--draws=5"]
    main([*words, "--steps=2"])
    printed = capsys.readouterr().out
    assert "task known at test time; means of 1 orders x 1 seeds" in printed
    assert "chords (mAP)" in printed
    assert Path("runs/continual/mine/summary.json").exists()
    for changed, line in (
        ("--steps=3", "was started with steps 2, not 3; expected the same, or another --name"),
        ("--unknown=[chords,pitches]", "unknown: clips of chords may have several labels"),
        ("--unknown=[pitches]", "unknown: pitches alone"),
        ("--orders=[[chord,pitches]]", "did you mean 'chords'"),
        ("--methods={a: {class_path: Adapters, init_args: {adapters: conv_pas}}}", "did you mean 'conv_pass'"),
        (
            "--methods={a: {class_path: Sequentia}}",
            "no class 'Sequentia'; did you mean 'Sequential'?; expected one of A",
        ),
        ("--methods={a: {class_path: Adapters}}", "required: adapters"),
    ):
        with pytest.raises(SystemExit) as caught:
            main([*words, *(["--steps=2"] if "steps" not in changed else []), changed, "--name=mine"])
        printed = capsys.readouterr().err.strip().splitlines()
        assert caught.value.code == 2
        assert line in printed[-1], printed


def test_an_encoder_without_a_place_and_files_that_do_not_match_are_one_line(shards, tmp_path):
    mamba = {"class_path": "ssl_audio.model.encoders.BiMamba", "init_args": {"width": 16, "depth": 1}}
    changed = {"model.backbone.encoder": mamba, "data.shards": [str(shards / "pitches")]}
    with pytest.raises(RecipeError, match=r"methods\.conv_pass: ConvPass on BiMamba: this encoder has no branch 'mlp'"):
        continual(plan_of(shards, tmp_path, pretrain_options=changed, name="mamba"), display=Silent())
    with pytest.raises(RecipeError, match="2 checkpoints and 1 files of clips"):
        Rehearsal(earlier=[Path("a"), Path("b")], clips=[Path("c")])
