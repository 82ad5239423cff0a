"""The verbs from Python: the page about them, stages, and an objective of somebody else's."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

import ssl_audio
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.checkpoints.teachers import CheckpointTeacher
from ssl_audio.cli import main
from ssl_audio.cli.finetune import run as run_finetune
from ssl_audio.errors import CheckpointError, RecipeError
from ssl_audio.evaluation import cost
from ssl_audio.experiments.values import words_of
from ssl_audio.training.metrics_log import read_rows

ROOT = Path(__file__).parents[2]
ENCODER = {"class_path": "ssl_audio.model.encoders.Transformer", "init_args": {"width": 32, "depth": 1, "heads": 2}}
SMALL = {"data.workers": 0, "trainer.precision": "32-true"}
PRETRAINING = {**SMALL, "data.batch_clips": 4, "probe": [], "model.backbone.encoder": ENCODER}
FINETUNING = {**SMALL, "data.crop_seconds": 1.295, "adaptation.frames": 128, "data.batch_clips": 8}


def blocks(kind: str) -> list[str]:
    page = (ROOT / "docs/python.md").read_text()
    return re.findall(rf"^```{kind}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


@pytest.fixture
def here(tmp_path, demo_shards, monkeypatch) -> Path:
    """A folder with the small demo corpus and recipes that are small too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/demo").symlink_to(demo_shards)
    (tmp_path / "recipes/encoders").mkdir(parents=True)
    (tmp_path / "recipes/encoders/transformer_demo.yaml").write_text(yaml.safe_dump(ENCODER))
    for verb, name, options in (("pretrain", "demo", PRETRAINING), ("finetune", "demo_event", FINETUNING)):
        recipe = yaml.safe_load((ROOT / f"recipes/{verb}/{name}.yaml").read_text())
        for option, value in options.items():
            inner = recipe
            for part in option.split(".")[:-1]:
                inner = inner.setdefault(part, {})
            inner[option.split(".")[-1]] = value
        recipe["trainer"] |= {"max_epochs": 2} if verb == "finetune" else {}
        (tmp_path / f"recipes/{verb}").mkdir()
        (tmp_path / f"recipes/{verb}/{name}.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path


def test_the_page_about_python(here, capsys, monkeypatch):
    train, stream, compare, objective, stages = blocks("python")
    scope: dict = {}
    exec(train.replace("450", "3"), scope)
    assert scope["run"].checkpoint.exists()
    assert {"gain", "low", "high", "p", "over"} <= set(scope["task"].summary["gain"])
    assert len(scope["task"].checkpoints) == 2
    exec(stream, scope)
    assert "the tokens of this Transformer see the whole clip" in capsys.readouterr().out
    monkeypatch.setattr(cost.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="1"))
    exec(compare.replace("steps=20", "steps=2").replace("seeds=2", "seeds=1"), scope)
    assert len(scope["compared"].summary["rows"]) == 3
    (here / "loudness.py").write_text(objective)
    run = ssl_audio.pretrain(
        "demo",
        max_steps=12,
        name="loud",
        options={
            "model.objective": "loudness.Loudness",
            "trainer.log_every_n_steps": 1,
            "model.schedule.warmup_steps": 1,
        },
    )
    losses = [row["train/loss"] for _, row in read_rows(run.folder / "metrics.csv") if "train/loss" in row]
    assert len(losses) == 12
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
    # Its checkpoint opens where nobody has heard of the class: the backbone is a known one.
    assert ssl_audio.pretrained(run.checkpoint).labels == []
    (here / "recipes/finetune/mine").mkdir()
    first = f"verb: pretrain\n{(here / 'recipes/pretrain/demo.yaml').read_text()}"
    (here / "recipes/finetune/mine/1_words.yaml").write_text(first.replace("max_steps: 450", "max_steps: 2"))
    shutil.copy(here / "recipes/finetune/demo_event.yaml", here / "recipes/finetune/mine/2_events.yaml")
    exec(stages, scope)
    ended = scope["ended"]
    assert [each.folder.parts[-3:] for each in ended] == [("pretrain", "1_words", "0"), ("finetune", "2_events", "0")]
    assert ended[1].summary["checkpoint"] == str(ended[0].checkpoint)
    capsys.readouterr()
    main(["finetune", "--config", "mine"])
    assert capsys.readouterr().out.count("had ended before") == 2
    # What ended is not done again, and a change of it is not passed over.
    with pytest.raises(RecipeError, match=r"1_words/0 has ended with another options: trainer.max_steps \(None; now 3"):
        ssl_audio.stages("mine", options={"trainer.max_steps": 3})
    second = here / "recipes/finetune/mine/2_events.yaml"
    second.write_text(second.read_text().replace("target: event", "target: emotion"))
    with pytest.raises(RecipeError, match=r"2_events/0 has ended with another recipe: data.target \(event; now emo"):
        ssl_audio.stages("mine")
    # Stages are read before the first is trained.
    second.write_text(second.read_text().replace("target: emotion", "tarjet: emotion"))
    with pytest.raises(RecipeError, match="does not accept option 'tarjet'"):
        ssl_audio.stages("mine", name="other")
    assert not (here / "runs/stages/other").exists()
    second.rename(second.with_name("events.yaml"))
    with pytest.raises(RecipeError, match=r"events\.yaml: is no stage"):
        ssl_audio.stages("mine", name="other")
    with pytest.raises(RecipeError, match="mine is a folder of stages, over which no recipe can be laid"):
        run_finetune(["--config", "adapters/lora", "--config", "mine"])


LOUDER = '''
from loudness import Loudness
import torch
from ssl_audio.objectives.objective import Answer


class Louder(Loudness):
    """Also answers, whatever the labels."""

    def attach(self, backbone, facts):
        super().attach(backbone, facts)
        self.head = torch.nn.Linear(backbone.width, len(facts.labels))

    def predict(self, backbone, spectrogram):
        tokens = backbone.encoder(backbone.embed(backbone.cut(spectrogram)))
        return Answer(clips=self.head(tokens.states.mean(dim=1)))
'''


def test_an_objective_of_somebody_else_is_fine_tuned_if_it_answers(here):
    (here / "loudness.py").write_text(next(block for block in blocks("python") if "class Loudness" in block))
    (here / "louder.py").write_text(LOUDER)
    options = {"model.backbone.encoder": ENCODER, "model.backbone.frontend": "ssl_audio.audio.fbank.Fbank"}
    finetune = lambda objective, **others: ssl_audio.finetune(  # noqa: E731
        "demo_event", checkpoint="none", beside_scratch=False, budget=ssl_audio.Budget(steps=3),
        display=ssl_audio.Silent(), options={**options, "model.objective": objective, **others},
    )  # fmt: skip
    with pytest.raises(RecipeError, match="Loudness gives no scores, so it can be neither validated nor tested"):
        finetune("loudness.Loudness")
    assert finetune("louder.Louder").summary["scores"]["scratch"]["clips"] > 0
    teacher = {"class_path": "ssl_audio.objectives.AveragedTeacher"}
    around = {"objective": {"class_path": "louder.Louder"}, "teacher": teacher}
    finetune({"class_path": "ssl_audio.objectives.Distillation", "init_args": around}, name="taught")


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: ssl_audio.pretrain(None), "pretrain: recipe is None; expected"),
        (lambda: ssl_audio.pretrain(seed=1.5), "pretrain: seed is 1.5; expected"),
        (lambda: ssl_audio.pretrain(seed=-1), "seed_everything is -1; expected 0 to"),
        (lambda: ssl_audio.pretrain(name="../x"), r"name '\.\./x': expected the name of a folder, without slashes"),
        (lambda: ssl_audio.pretrain(display=None), "pretrain: display is None; expected Display"),
        (lambda: ssl_audio.pretrain(options={"print_config": ""}), "print_config is for the command line"),
        (lambda: ssl_audio.pretrain(options={"a": torch.ones(2)}), "a Tensor is no value of an option"),
        (lambda: ssl_audio.finetune("demo_event", budget=5), "finetune: budget is 5; expected Budget"),
        (lambda: ssl_audio.Budget(steps=0), "budget: steps is 0; expected a whole number from 1 on"),
        (lambda: ssl_audio.Budget(steps=5, seconds=5), "--steps and --seconds: one budget for all"),
        (lambda: ssl_audio.probe("x", shards=["y"], targets="event"), "probe: targets is 'event'; expected"),
        (lambda: ssl_audio.probe("x", shards=["y"], targets=[], protocol="folds"), "probe: protocol is 'folds'"),
    ],
)
def test_wrong_values_are_one_line(here, call, line):
    with pytest.raises(RecipeError, match=line) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_numpy_number_is_a_number(here):
    assert words_of("demo", {"seed": np.arange(4)[3]}, {"a": [np.float32(0.5)]})[2:] == ["--seed=3", "--a=[0.5]"]


def test_a_teacher_moves_its_student_and_a_killed_distillation_goes_on_to_the_bit(here, monkeypatch):
    (here / "distilled.yaml").write_text(blocks("yaml")[0])
    finetune = lambda name, **options: ssl_audio.finetune(  # noqa: E731
        ["demo_event", "distilled.yaml"], checkpoint="none", beside_scratch=False, name=name,
        options={"model.backbone.encoder": ENCODER, "model.backbone.frontend": "ssl_audio.audio.fbank.Fbank",
                 "checkpoints.every_steps": 1, "average_from_epoch": None, "model.augmentation.mixup": 0.5, **options},
        budget=ssl_audio.Budget(steps=5), display=ssl_audio.Silent(),
    )  # fmt: skip
    straight = finetune("straight")
    rows = [row for _, row in read_rows(straight.folder / "metrics.csv")]
    original = ssl_audio.training.module.Training.training_step

    def crash(self, batch, batch_idx):
        if self.trainer.global_step == 3:
            raise RuntimeError("power cut")
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patched:
        patched.setattr(ssl_audio.training.module.Training, "training_step", crash)
        with pytest.raises(RuntimeError, match="power cut"):
            finetune("killed")
    again = finetune("killed")
    one, other = (torch.load(run.run.last, weights_only=True)["state_dict"] for run in (straight, again))
    assert one.keys() == other.keys()
    assert any(name.startswith("objective.teacher.average.") for name in one)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    # The teacher is left out of what is tested, and of any checkpoint that is opened.
    best = open_checkpoint(straight.checkpoint)
    assert best.task["objective"]["class_path"].endswith("Classification")
    for found in (best, open_checkpoint(straight.run.last)):
        assert {name.split(".")[1] for name in found.weights if name.startswith("objective.")} == {"head"}
    assert rows
    # And a fine-tuned checkpoint, or several, can teach another architecture.
    teacher = {
        "class_path": "ssl_audio.checkpoints.teachers.CheckpointTeacher",
        "init_args": {"checkpoints": [str(straight.checkpoint), str(again.checkpoint)]},
    }
    mamba = {"class_path": "ssl_audio.model.encoders.BiMamba", "init_args": {"width": 16, "depth": 1}}
    options = {"model.objective.teacher": teacher, "model.objective.weight": 1.0, "model.backbone.encoder": mamba}
    taught = finetune("taught", **options, **{"trainer.log_every_n_steps": 1})
    losses = [row for _, row in read_rows(taught.folder / "metrics.csv") if "train/distilled" in row]
    assert all(row["train/loss"] == pytest.approx(row["train/distilled"]) for row in losses)
    # The weights that taught it are known again.
    state = torch.load(taught.run.last, weights_only=True)["state_dict"]
    state["objective.teacher.identity"][0] ^= 1
    with pytest.raises(CheckpointError, match=r"best\.ckpt: not the weights that taught this run before"):
        CheckpointTeacher(checkpoints=[straight.checkpoint]).load_state_dict(
            {"identity": state["objective.teacher.identity"]}
        )
    with pytest.raises(RecipeError, match=r"does not know the label '\w+' \(4 of 4 are unknown"):
        finetune("other", **options, **{"data.target": "emotion"})
    masking = {"class_path": "ssl_audio.objectives.masking.ClusterMasking", "init_args": {"hidden": 0.5}}
    inner = {"class_path": "ssl_audio.objectives.MaskedPatches", "init_args": {"masking": masking}}
    around = {"objective": inner, "teacher": {"class_path": "ssl_audio.objectives.AveragedTeacher"}}
    options = {"model.objective": {"class_path": "ssl_audio.objectives.Distillation", "init_args": around}}
    with pytest.raises(RecipeError, match=r"Distillation of MaskedPatches, which gives no scores"):
        ssl_audio.pretrain("demo", max_steps=1, name="no", display=ssl_audio.Silent(), options=options)


def test_a_stage_keeps_the_head_of_the_one_before_it(here):
    first = ssl_audio.finetune(
        "demo_event", checkpoint="none", beside_scratch=False, name="first", display=ssl_audio.Silent(),
        options={"model.backbone.encoder": ENCODER, "model.backbone.frontend": "ssl_audio.audio.fbank.Fbank"},
    )  # fmt: skip
    options = {"keep_head": True, "model.tuning.train": [], "model.head_rate": 1e-9, "average_from_epoch": None}
    second = ssl_audio.finetune(
        "demo_event", checkpoint=first.checkpoint, beside_scratch=False, name="second", options=options
    )
    name = "objective.head.linear.weight"
    one = open_checkpoint(first.checkpoint)
    other = open_checkpoint(second.checkpoint, base=first.checkpoint)
    torch.testing.assert_close(one.weights[name], other.weights[name], atol=1e-5, rtol=0)
    with pytest.raises(
        RecipeError, match=r"keep_head: .* 'alarm' is a label of only one of them; expected the same labels"
    ):
        ssl_audio.finetune("demo_event", checkpoint=first.checkpoint, target="emotion", options=options)
    with pytest.raises(RecipeError, match=r"head of another form \(head\..* in this recipe\); expected the same"):
        ssl_audio.finetune("demo_event", checkpoint=first.checkpoint, options=options | {"model.head.pooling": "mean"})
