"""What a resumed checkpoint may do: give its numbers back. It removes and opens nothing that it names."""

import copy
from pathlib import Path

import lightning as L
import pytest
import torch
from hostile import content
from lightning.pytorch.callbacks import ModelCheckpoint

from ssl_audio.errors import CheckpointError, RecipeError
from ssl_audio.training.checkpoint_files import AtomicCheckpointIO
from ssl_audio.training.loading import load_training, resuming
from ssl_audio.training.random_state import KEY, RandomState, capture
from ssl_audio.training.resuming import check_resume

NAME = "ModelCheckpoint{'monitor': None}"


@pytest.fixture
def trainer() -> L.Trainer:
    return L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)


def saved(path: Path, **changed) -> Path:
    """A checkpoint of training with states of a callback, or with something else in the place of a part of it."""
    content = {"state_dict": {"a": torch.zeros(2)}, "global_step": 3, "epoch": 1, "loops": {}, "callbacks": {}}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**content, "optimizer_states": [], "lr_schedulers": [], **changed}, path)
    return path


def test_only_files_of_the_run_are_removed(tmp_path):
    home, outside = tmp_path / "run/checkpoints", tmp_path / "outside"
    for folder in (home / "deeper", outside):
        folder.mkdir(parents=True)
    store = AtomicCheckpointIO(home)
    kept = [outside / "a.ckpt", home / "deeper/b.ckpt"]
    for path in kept:
        path.write_text("kept")
    (home / "link.ckpt").symlink_to(kept[0])
    for word in (
        outside, kept[0], f"local://{outside}", f"file://{kept[0]}", home, home / "deeper", home / "deeper/b.ckpt",
        home / "../../outside/a.ckpt", home / "link.ckpt", f"local://{home}", "/", "", home / "gone.ckpt",
    ):  # fmt: skip
        store.remove_checkpoint(str(word))
    assert all(path.read_text() == "kept" for path in kept)
    assert not (home / "link.ckpt").is_symlink(), "the name in the folder goes, not what it leads to"
    store.save_checkpoint({"a": 1}, home / "c.ckpt")
    store.save_checkpoint({"a": 1}, outside / "own.ckpt")  # as a callback of the user with a folder of its own
    for path in (home / "c.ckpt", outside / "own.ckpt"):
        store.remove_checkpoint(path)
        assert not path.exists()


@pytest.mark.parametrize("said", ["same", "dropped", "other"])
def test_paths_in_a_callback_s_state_lead_nowhere_else(tmp_path, said):
    home, outside = tmp_path / "run/checkpoints", tmp_path / "outside.ckpt"
    outside.write_text("kept")
    path, score = saved(home / "last.ckpt"), torch.tensor(0.5)
    (home / "chosen.ckpt").write_text("own")
    state = {
        "best_model_score": score, "best_model_path": str(home / "chosen.ckpt"), "current_score": score,
        "dirpath": str(home), "best_k_models": {str(outside): score, str(home / "chosen.ckpt"): score},
        "kth_best_model_path": f"local://{outside}", "kth_value": score, "last_model_path": str(outside),
    }  # fmt: skip
    state |= {"dirpath": str(tmp_path)} if said == "other" else {}
    state = {name: value for name, value in state.items() if said != "dropped" or name != "dirpath"}
    saved(path, callbacks={NAME: state})
    callback = ModelCheckpoint(dirpath=home)
    callback.load_state_dict(AtomicCheckpointIO(home).load_checkpoint(path)["callbacks"][NAME])
    assert callback.best_model_path == str(home / "chosen.ckpt")
    assert callback.best_k_models == {str(home / "chosen.ckpt"): score}
    assert (callback.last_model_path, callback.kth_best_model_path) == ("", "")
    # Of another run only the best is read, beside the file that was named.
    elsewhere = ModelCheckpoint(dirpath=tmp_path / "new")
    with pytest.warns(UserWarning, match="dirpath has changed"):
        elsewhere.load_state_dict(load_training(path, tmp_path / "new")["callbacks"][NAME])
    assert elsewhere.best_model_path == str(home / "chosen.ckpt")
    assert elsewhere.best_k_models == {}


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"optimizer_states": [1]}, "optimizer_states"),
        ({"lr_schedulers": {}}, "lr_schedulers"),
        ({"loops": None}, "loops"),
        ({"callbacks": {"x": 1}}, "callbacks"),
        ({"global_step": -1}, "global_step"),
        ({"epoch": "1"}, "epoch"),
        ({"AudioShards": {"clips": -5, "processed": 0}}, "clips"),
        ({"callbacks": {NAME: {"kth_value": "x"}}}, "kth_value"),
    ],
)
def test_states_of_other_types_are_one_line(tmp_path, changed, line):
    with pytest.raises(CheckpointError, match=rf"{line}.*damaged"):
        load_training(saved(tmp_path / "x.ckpt", **changed), tmp_path)


def test_what_fails_while_it_is_loaded_is_said_of_the_checkpoint_and_what_fails_later_is_not(tmp_path, trainer):
    path, module = tmp_path / "x.ckpt", L.LightningModule()

    def fails(*, started: bool = False, resumed: bool = True) -> None:
        with resuming(trainer, path if resumed else None):
            if started:
                trainer.callbacks[-1].on_train_start(trainer, module)
            raise KeyError("loops")

    with pytest.raises(CheckpointError, match=r"x.ckpt: cannot be resumed from \(KeyError: 'loops'\)"):
        fails()
    for given in ({"started": True}, {"resumed": False}):
        with pytest.raises(KeyError):
            fails(**given)
    weight = torch.nn.Parameter(torch.zeros(3))
    trainer.strategy._optimizers = [torch.optim.Adam([weight])]
    trainer.optimizers[0].state[weight] = {"exp_avg": torch.zeros(2)}
    with pytest.raises(CheckpointError, match=r"exp_avg is \(2,\)"):
        fails(started=True)


@pytest.mark.parametrize("state", [1, [1], [{}], [{**capture(), "python": [3, "x", None]}]])
def test_states_of_generators_are_looked_at_when_they_are_loaded(state, trainer):
    random_state, module = RandomState(), L.LightningModule()
    random_state.on_load_checkpoint(trainer, module, {KEY: [capture()]})
    with pytest.raises(CheckpointError, match="no states of random generators"):
        random_state.on_load_checkpoint(trainer, module, {KEY: state})


def test_a_resumed_recipe_names_only_classes_that_are_known_or_asked_for(tmp_path):
    found, path = content(), tmp_path / "x.ckpt"
    recipe = copy.deepcopy(found["ssl_audio"]["recipe"])
    model = found["ssl_audio"]["recipe"]["model"]
    torch.save(found, path)
    check_resume(path, recipe)
    for part, name in (("optimizer", "os.system"), ("schedule", "this.s"), ("objective", "torch.optim.AdamX")):
        model[part] = {"class_path": name}
        torch.save(found, path)
        with pytest.raises(CheckpointError, match=f"names '{name}', which is not a known optimizer"):
            check_resume(path, recipe)
        del model[part]
    model["optimizer"] = recipe["model"]["optimizer"] = {"class_path": "others.Optimizer"}
    model["label_smoothing"] = "\x1b[2J\n"
    torch.save(found, path)
    with pytest.raises(RecipeError, match=r"label_smoothing was \\x1b\[2J\\n, is None"):
        check_resume(path, recipe)


def test_an_option_within_an_option_that_an_earlier_version_lacks_has_its_default(tmp_path):
    found, path = content(), tmp_path / "x.ckpt"
    cnn = {"input": "backbone"}
    objective = {"class_path": "ssl_audio.objectives.SoundEvents", "init_args": {"head": {"cnn": cnn}}}
    found["ssl_audio"]["recipe"]["model"]["objective"] = objective
    torch.save(found, path)
    recipe = copy.deepcopy(found["ssl_audio"]["recipe"])
    now = recipe["model"]["objective"]["init_args"]["head"]["cnn"]
    now["input_pooling"] = [1, 1]
    check_resume(path, recipe)
    now["input_pooling"] = [4, 2]
    with pytest.raises(RecipeError, match=r"input_pooling was \[1, 1\], is \[4, 2\]"):
        check_resume(path, recipe)
