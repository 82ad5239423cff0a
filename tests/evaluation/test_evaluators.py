"""Checkpoints by the contracts of HEAR, X-ARES, SUPERB and mteb, and the validators themselves where installed."""

import importlib.machinery
import importlib.util
import sys
import types

import numpy as np
import pytest
import torch

import ssl_audio
from ssl_audio.checkpoints.checkpoint import Checkpoint, describe
from ssl_audio.cli.main import main
from ssl_audio.evaluation.evaluators import hear, mteb, superb, xares

ENCODERS = {
    "Transformer": {"width": 32, "depth": 2, "heads": 4},
    "BiMamba": {"width": 32, "depth": 2},
}


@pytest.fixture(params=ENCODERS)
def path(request, tmp_path):
    spec = {
        "class_path": "ssl_audio.model.backbone.Backbone",
        "init_args": {
            "frontend": {"class_path": "ssl_audio.audio.fbank.Fbank", "init_args": {}},
            "encoder": {
                "class_path": f"ssl_audio.model.encoders.{request.param}",
                "init_args": ENCODERS[request.param],
            },
            "position_frames": 128,
            "class_tokens": 1,
        },
    }
    recipe = {"model": {"backbone": spec}}
    backbone = Checkpoint(tmp_path, recipe, {}, 0, "").untrained()
    weights = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    file = tmp_path / "x.ckpt"
    torch.save({"state_dict": weights, "global_step": 1, "ssl_audio": describe(recipe)}, file)
    return str(file)


def sound(seconds: float) -> torch.Tensor:
    return torch.randn(round(seconds * 16000), generator=torch.Generator().manual_seed(0)) * 0.1


def cosine(one, other) -> float:
    return float(torch.cosine_similarity(torch.as_tensor(one), torch.as_tensor(other), dim=0))


def test_contracts_and_a_short_clip_beside_a_long_one(path, monkeypatch):
    pretrained = ssl_audio.pretrained(path)
    alone = pretrained.embed(sound(1.0), sample_rate=16000)[0]
    assert cosine(pretrained.embed([sound(1.0), sound(5.0)], sample_rate=16000)[0], alone) > 1 - 1e-6

    model = hear.load_model(path)
    states, milliseconds = hear.get_timestamp_embeddings(sound(2.0)[None], model)
    assert states.shape == (1, len(milliseconds[0]), model.timestamp_embedding_size)
    assert (milliseconds.diff() == 160).all()
    assert torch.equal(hear.get_scene_embeddings(sound(1.0)[None], model)[0], alone)

    monkeypatch.setenv("SSL_AUDIO_CHECKPOINT", path)
    encoder = xares.SslAudioEncoder()
    found = encoder(torch.stack([sound(3.125)] * 2))
    assert found.shape[0::2] == (2, encoder.output_dim)
    assert abs(found.shape[1] - 3125 / encoder.hop_size_in_ms) < 1

    upstream = superb.UpstreamExpert(path)
    layers = upstream([sound(1.0), sound(5.0)])["hidden_states"]
    assert len(layers) == 3
    # s3prl takes the number of frames from the length and the downsample rate, and allows five more or fewer.
    assert upstream.get_downsample_rates("hidden_states") == 2560
    assert abs(layers[0].shape[1] - round(5.0 * 16000 / 2560)) <= 2
    own = layers[-1][0][:6]
    assert cosine(own.mean(dim=0).detach(), alone) > 1 - 1e-6
    layers[-1].sum().backward()
    assert upstream.backbone.embedding.weight.grad is not None

    batches = [{"audio": [{"array": one.numpy(), "sampling_rate": 16000} for one in (sound(1.0), sound(5.0))]}]
    assert cosine(mteb.vectors_of(upstream, batches)[0], alone) > 1 - 1e-6


def test_mteb_itself(path, monkeypatch):
    if importlib.util.find_spec("datasets") is None or importlib.util.find_spec("mteb") is None:
        for name in ("mteb", "mteb.models", "mteb.models.abs_encoder", "mteb.models.model_meta"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules["mteb.models.abs_encoder"].AbsEncoder = object
        sys.modules["mteb.models.model_meta"].ModelMeta = types.SimpleNamespace(
            create_empty=lambda told: types.SimpleNamespace(**told)
        )
        sys.modules["mteb.models.model_meta"].ScoringFunction = types.SimpleNamespace(COSINE="cosine")
    rows = [{"audio": {"array": np.stack([sound(1.0).numpy()] * 2), "sampling_rate": 16000}}, {"audio": {
        "array": sound(2.0).numpy(), "sampling_rate": 22050}}]  # fmt: skip
    model = mteb.encoder(path)
    assert list(model.mteb_model_meta.modalities) == ["audio"]
    assert model.mteb_model_meta.revision == ssl_audio.pretrained(path).digest
    found = model.encode(torch.utils.data.DataLoader(rows, batch_size=2, collate_fn=list))
    assert found.shape == (2, 32)
    assert cosine(found[0], ssl_audio.pretrained(path).embed(sound(1.0), sample_rate=16000)[0]) > 1 - 1e-6


def test_the_validator_of_hear(path, monkeypatch):
    pytest.importorskip("hearvalidator")
    stub = types.ModuleType("tensorflow")
    stub.Module = type("Module", (), {})
    stub.__spec__ = importlib.machinery.ModuleSpec("tensorflow", None)  # others ask for it
    monkeypatch.setitem(sys.modules, "tensorflow", stub)
    from hearvalidator.validate import ValidateModel

    ValidateModel("ssl_audio.evaluation.evaluators.hear", path, device="cpu")()


def test_the_check_of_xares(path, monkeypatch):
    pytest.importorskip("xares")
    pytest.importorskip("loguru")
    from xares.audio_encoder_checker import check_audio_encoder

    assert check_audio_encoder(xares.SslAudioEncoder(path))


STUB = {
    "xares/task.py": """
class XaresTask:
    def __init__(self, config):
        self.config = config
        self.encoded_tar_dir = config.env_root / config.name / type(config.encoder).__name__
        self.encoded_ready_path = self.encoded_tar_dir / "ready"

    def make_encoded_tar(self):
        self.encoded_tar_dir.mkdir()
        self.encoded_ready_path.touch()
        clip = next((self.config.env_root / self.config.name).glob("*.tar")).read_bytes()
        (self.encoded_tar_dir / "x.tar").write_bytes(clip)

    run_mlp = run_knn = lambda self: (0.25, 7)
""",
    "xares/utils.py": """
import importlib
def attr_from_py_path(path, endswith):
    return importlib.import_module(path.removesuffix(".py").replace("/", ".")).esc50_config
""",
    "tasks/esc50_task.py": """
import types
def esc50_config(encoder):
    return types.SimpleNamespace(name="esc50", encoder=encoder, do_knn=True, env_root=None)
""",
}


@pytest.mark.parametrize("path", ["BiMamba"], indirect=True)
def test_tasks_of_xares_where_their_data_are_on_disk(path, tmp_path, monkeypatch, capsys):
    words = ["evaluate", "--suite=xares", f"--checkpoint={path}", f"--data={tmp_path}"]

    def fails(task: str) -> str:
        with pytest.raises(SystemExit):
            main([*words, f"--tasks=[{task}]"])
        said = capsys.readouterr().err.strip()
        assert "\n" not in said
        return said

    if importlib.util.find_spec("xares") is None:
        assert "pip install xares" in fails("esc50")
    for name, content in STUB.items():
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).write_text(content)
    monkeypatch.syspath_prepend(tmp_path / "site")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("xares", "tasks")]:
        monkeypatch.delitem(sys.modules, name)
    assert "X-ARES has no such task; expected some of esc50" in fails("esc5")
    assert "there are no tar files in" in fails("esc50")
    (tmp_path / "esc50").mkdir()
    (tmp_path / "esc50/a.tar").touch()
    assert "X-ARES read no clip" in fails("esc50")
    (tmp_path / "esc50/a.tar").write_bytes(b"clip")
    for folder in (tmp_path / "esc50").glob("SslAudioEncoder_*"):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    main([*words, "--tasks=[esc50]"])
    assert capsys.readouterr().out == "esc50: MLP 0.250, nearest neighbours 0.250\n"
