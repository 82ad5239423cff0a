"""Published files in our terms: the logits of the published implementations, and clear words about anything else."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import ssl_audio
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.checkpoints.adaptation import Adaptation, load_backbone
from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.checkpoints.imported import report
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.checkpoints.sizes import Hints
from ssl_audio.errors import CheckpointError
from ssl_audio.objectives.heads import Head

HINTS = Hints(heads=3)


def saved(tmp_path, weights, *, prefix=""):
    path = tmp_path / "weights.pth"
    torch.save({f"{prefix}{name}": value for name, value in weights.items()}, path)
    return path


def logits_of(backbone, head_weights: dict, frames: int, pooling: str) -> torch.Tensor:
    values = torch.randn(2, frames, 128, generator=torch.Generator().manual_seed(frames)) * 0.5
    lengths = torch.full((2,), frames)
    tokens = backbone.encoder(backbone.embed(backbone.cut(Spectrogram(values, lengths, whole=True))))
    head = Head(backbone.width, labels=head_weights["1.bias"].shape[0], pooling=pooling, norm="layer")
    names = {"0": "norm", "1": "linear"}
    head.load_state_dict({f"{names[n.split('.')[0]]}.{n.split('.')[-1]}": v for n, v in head_weights.items()})
    return head([tokens])


def stated(case: str) -> tuple[int, tuple[int, int]]:
    frames, band, time = (int("".join(filter(str.isdigit, part))) for part in case.split("_"))
    return frames, (band, time)


@pytest.mark.parametrize("kind", ["patch", "frame"])
@pytest.mark.parametrize(
    ("family", "tokens", "cases"), [("ssast", 2, {"patch": 7, "frame": 6}), ("ssamba", 1, {"patch": 4, "frame": 1})]
)
def test_finetuning_goldens(golden, tmp_path, family, tokens, cases, kind):
    """Positions and logits of YuanGongND/ssast@a1a3eec and SiavashShams/ssamba@019b276, their slips included."""
    file = golden(f"{family}_{kind}_mini.pt", full=True)
    found = open_checkpoint(saved(tmp_path, file["state_dict"], prefix="module."), hints=HINTS)
    assert found.kind == f"{family.upper()} pretraining"
    assert len(found.fates) == len(file["state_dict"])
    assert len(file["finetune"]) >= cases[kind]
    for case, expected in file["finetune"].items():
        frames, stride = stated(case)
        adaptation = Adaptation(stride=stride, frames=frames, fixed=True, rule="published")
        backbone = built(adaptation.spec(found))
        load_backbone(backbone, found, rule="published")
        table = expected["pos_embed"][0, tokens:].reshape(backbone.positions.table.shape)
        torch.testing.assert_close(backbone.positions.table, table, atol=1e-5, rtol=0)
        for pooling, name in (("mean", "logits_avgtok"), ("class", "logits_cls")):
            found_logits = logits_of(backbone, bare(expected["mlp_head"]), frames, pooling)
            torch.testing.assert_close(found_logits, expected[name], atol=1e-5, rtol=0, msg=f"{case} {pooling}")


def test_a_finetuned_ssamba_is_the_pretrained_one_with_a_head(golden, tmp_path):
    file = golden("ssamba_frame_mini.pt")
    weights = {name: value for name, value in file["state_dict"].items() if name.startswith("v.")}
    head = {"mlp_head.0.weight": torch.ones(48), "mlp_head.0.bias": torch.zeros(48)}
    head |= {"mlp_head.1.weight": torch.ones(3, 48), "mlp_head.1.bias": torch.zeros(3)}
    found = open_checkpoint(saved(tmp_path, weights | head, prefix="module."), hints=Hints(stride=(128, 2)))
    assert found.kind == "SSAMBA fine-tuned"
    assert found.task["labels"] == ["0", "1", "2"]
    pretrained = open_checkpoint(saved(tmp_path, file["state_dict"]))
    waveform = torch.randn(1, 30000, generator=torch.Generator().manual_seed(1)) * 0.1
    states = [one.backbone()(waveform).states for one in (found, pretrained)]
    torch.testing.assert_close(*states)
    with pytest.raises(CheckpointError, match=r"its head lacks mlp_head.0.bias"):
        open_checkpoint(saved(tmp_path, weights | {k: v for k, v in head.items() if k != "mlp_head.0.bias"}))


@pytest.mark.parametrize("source", ["base384", "tiny224"])
def test_ast_goldens_from_imagenet_weights(golden, tmp_path, source):
    """AST's start from ImageNet: colours summed, positions cut or stretched (YuanGongND/ast@31088be)."""
    file = golden("ast_mini.pt", full=True)[source]
    found = open_checkpoint(saved(tmp_path, file["source_vit_state_dict"]), hints=HINTS)
    assert found.kind == "ImageNet ViT or DeiT (timm)"
    for case, expected in file["cases"].items():
        frames, stride = stated(case)
        backbone = built(Adaptation(stride=stride, frames=frames, fixed=True).spec(found))
        load_backbone(backbone, found)
        torch.testing.assert_close(backbone.embedding.weight, expected["patch_weight"].flatten(1), atol=1e-6, rtol=0)
        logits = logits_of(backbone, bare(expected["mlp_head"]), frames, "class")
        torch.testing.assert_close(logits, expected["logits"], atol=1e-5, rtol=0, msg=case)
    third = open_checkpoint(tmp_path / "weights.pth", hints=Hints(heads=3, colours="mean"))
    torch.testing.assert_close(
        third.weights["backbone.embedding.weight"] * 3, found.weights["backbone.embedding.weight"]
    )
    assert "adapted  patch_embed.proj.weight: red, green and blue to one channel by their sum" in report(
        list(found.fates)
    )


def pooling_of(found) -> str:
    return found.task["objective"]["init_args"]["head"]["pooling"]


def bare(head: dict) -> dict:
    return {name.split("mlp_head.")[-1].removeprefix("module."): value for name, value in head.items()}


def built(spec: dict):
    return Checkpoint(Path("spec"), {"model": {"backbone": spec}}, {}, 0, "test").untrained()


def finetuned(width: int = 64, places: int = 12 * 50, labels: int = 5) -> dict[str, torch.Tensor]:
    """A file with the names and shapes of SSAST and AST after fine-tuning; one block."""
    draws = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=draws) * 0.1

    vit = {
        "cls_token": draw(1, 1, width),
        "dist_token": draw(1, 1, width),
        "pos_embed": draw(1, 2 + places, width),
        "patch_embed.proj.weight": draw(width, 1, 16, 16),
        "patch_embed.proj.bias": draw(width),
        "blocks.0.attn.qkv.weight": draw(3 * width, width),
        "blocks.0.attn.qkv.bias": draw(3 * width),
        "blocks.0.attn.proj.weight": draw(width, width),
        "blocks.0.mlp.fc1.weight": draw(4 * width, width),
        "blocks.0.mlp.fc1.bias": draw(4 * width),
        "blocks.0.mlp.fc2.weight": draw(width, 4 * width),
    }
    vectors = ("blocks.0.norm1.weight", "blocks.0.norm1.bias", "blocks.0.norm2.weight", "blocks.0.norm2.bias")
    vectors += ("blocks.0.attn.proj.bias", "blocks.0.mlp.fc2.bias", "norm.weight", "norm.bias")
    vit |= {name: draw(width) for name in vectors}
    head = {"mlp_head.0.weight": draw(width), "mlp_head.0.bias": draw(width)}
    head |= {"mlp_head.1.weight": draw(labels, width), "mlp_head.1.bias": draw(labels)}
    # timm's head, which SSAST carries along untrained.
    unused = {"v.head.weight": draw(10, width), "v.head.bias": torch.zeros(10)}
    return {f"v.{name}": value for name, value in vit.items()} | head | unused


def as_hugging_face(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same model as transformers names it (written from its documentation of the modules)."""
    names = {
        "v.cls_token": "embeddings.cls_token",
        "v.dist_token": "embeddings.distillation_token",
        "v.pos_embed": "embeddings.position_embeddings",
        "v.patch_embed.proj.": "embeddings.patch_embeddings.projection.",
        "v.blocks.0.norm1.": "encoder.layer.0.layernorm_before.",
        "v.blocks.0.norm2.": "encoder.layer.0.layernorm_after.",
        "v.blocks.0.attn.proj.": "encoder.layer.0.attention.output.dense.",
        "v.blocks.0.mlp.fc1.": "encoder.layer.0.intermediate.dense.",
        "v.blocks.0.mlp.fc2.": "encoder.layer.0.output.dense.",
        "v.norm.": "layernorm.",
    }
    theirs = {}
    for name, value in weights.items():
        old = next((old for old in names if name.startswith(old)), None)
        if old is not None:
            theirs["audio_spectrogram_transformer." + names[old] + name.removeprefix(old)] = value
        elif "qkv" in name:
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                ending = name.rsplit(".", 1)[1]
                layer = "audio_spectrogram_transformer.encoder.layer.0.attention.attention"
                theirs[f"{layer}.{part}.{ending}"] = third
        elif name.startswith("mlp_head"):
            theirs[name.replace("mlp_head.0", "classifier.layernorm").replace("mlp_head.1", "classifier.dense")] = value
    return theirs


def test_finetuned_files_of_both_layouts_are_the_same_model(tmp_path):
    original = finetuned()
    first = open_checkpoint(saved(tmp_path, original, prefix="module."))
    assert first.task == {
        "target": "label", "labels": ["0", "1", "2", "3", "4"], "several": False,
        "objective": {
            "class_path": "ssl_audio.objectives.classification.Classification",
            "init_args": {"head": {"pooling": "mean", "norm": "layer"}},
        },
    }  # fmt: skip
    # 600 positions are 12 x 50: 512 frames at stride 10, as ESC-50's recipe has it.
    options = first.spec["init_args"]
    assert (options["stride"], options["position_frames"], options["fixed_frames"]) == ([10, 10], 512, 512)
    assert {fate.tensor for fate in first.fates} == set(original)
    assert {fate.tensor for fate in first.fates if fate.outcome == "ignored"} == {"v.head.weight", "v.head.bias"}
    assert first.kind == "SSAST, fine-tuned"
    second = open_checkpoint(saved(tmp_path, as_hugging_face(original)))
    assert second.kind == "AST (Hugging Face)"
    assert pooling_of(second) == "class"
    assert set(first.weights) == set(second.weights)
    for name, value in first.weights.items():
        torch.testing.assert_close(second.weights[name], value, atol=0, rtol=0, msg=name)
    waveform = torch.randn(1, 16000, generator=torch.Generator().manual_seed(1)) * 0.1
    torch.testing.assert_close(first.backbone()(waveform).states, second.backbone()(waveform).states)


def test_a_finetuned_ast_is_told_from_an_ssast_by_the_head_that_neither_uses(tmp_path):
    imagenet = finetuned(labels=527) | {"v.head.bias": torch.full((10,), 0.1)}
    for weights, kind, pooling in (
        (finetuned(labels=527), "SSAST, fine-tuned", "mean"),
        (imagenet, "AST, fine-tuned", "class"),
        ({name: value for name, value in imagenet.items() if "v.head" not in name}, "SSAST, fine-tuned", "mean"),
    ):
        found = open_checkpoint(saved(tmp_path, weights, prefix="module."))
        assert (found.kind, found.task["objective"]["init_args"]["head"]["pooling"], found.task["several"]) == (
            kind,
            pooling,
            True,
        )
    hints = ssl_audio.Hints(pooling="class", several=False, mean=-6.6, std=5.4)
    hinted = open_checkpoint(tmp_path / "weights.pth", hints=hints)
    assert (pooling_of(hinted), hinted.task["several"]) == ("class", False)
    frontend = hinted.backbone().frontend
    assert (float(frontend.mean), float(frontend.std)) == pytest.approx((-6.6, 5.4))


def test_an_ast_without_its_classifier_is_no_picture(tmp_path):
    """The original, transformers' `ASTModel` and a bare ViT of one channel: sound, at the places it was trained at."""
    weights = {name: value for name, value in finetuned().items() if not name.startswith(("mlp_head", "v.head"))}
    theirs = {
        name.removeprefix("audio_spectrogram_transformer."): value for name, value in as_hugging_face(weights).items()
    }
    save_file({name: value.contiguous() for name, value in theirs.items()}, tmp_path / "model.safetensors")
    bare = {name.removeprefix("v."): value for name, value in weights.items()}
    opened = [
        open_checkpoint(saved(tmp_path, weights, prefix="module.")),
        open_checkpoint(tmp_path / "model.safetensors"),
        open_checkpoint(saved(tmp_path, bare)),
    ]
    assert [one.kind for one in opened] == [
        "SSAST or AST without its head", "AST (Hugging Face)", "SSAST or AST without its head"
    ]  # fmt: skip
    waveform = torch.randn(1, 16000, generator=torch.Generator().manual_seed(1)) * 0.1
    whole = open_checkpoint(saved(tmp_path, finetuned())).backbone()(waveform).states
    for one in opened:
        assert not one.image
        assert one.task is None
        assert all(fate.outcome == "used" for fate in one.fates)
        torch.testing.assert_close(one.backbone()(waveform).states, whole)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"model.safetensors: damaged or no checkpoint"):
        open_checkpoint(tmp_path / "model.safetensors")


def test_a_wrong_file_says_what_it_is_and_what_was_expected(tmp_path):
    def message(weights) -> str:
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(saved(tmp_path, weights))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    line = message({"layer1.0.conv1.weight": torch.zeros(4, 4)})
    assert "1 tensors (layer1.0.conv1.weight) of no known kind; expected a checkpoint of ssl-audio or one of" in line
    with pytest.raises(CheckpointError, match=r"number of attention heads cannot be guessed; give it as hints\.heads"):
        open_checkpoint(saved(tmp_path, finetuned(width=48)))
    short = finetuned()
    short["v.pos_embed"] = short["v.pos_embed"][:, :-1]
    assert "599 positions" in message(short)
    lacking = finetuned()
    del lacking["mlp_head.0.bias"]
    assert "its head lacks mlp_head.0.bias" in message(lacking)
    path = tmp_path / "list.pth"
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="holds a list; expected tensors by name"):
        open_checkpoint(path)


def test_positions_keep_their_place_at_another_stride(tmp_path):
    """With the repaired rule a patch has the position of the bins and frames it covers."""
    found = open_checkpoint(saved(tmp_path, finetuned(places=8 * 64)))
    assert found.spec["init_args"]["stride"] == [16, 16]
    rows, columns = torch.arange(8.0)[:, None, None], torch.arange(64.0)[None, :, None]
    found.weights["backbone.positions.table"] = (16 * (100 * rows + columns)).expand(8, 64, 64)
    backbone = built(Adaptation(stride=(8, 4), frames=512).spec(found))
    load_backbone(backbone, found)
    table = backbone.positions.table
    assert table.shape[:2] == (15, 125)
    rows, columns = torch.arange(15.0)[:, None, None] * 8, torch.arange(125.0)[None, :, None] * 4
    torch.testing.assert_close(table.data, (100 * rows + columns).expand_as(table), atol=1e-2, rtol=1e-5)
    other = built(found.spec)
    other.embedding.weight.data = torch.zeros(64, 4)
    with pytest.raises(CheckpointError, match=r"embedding.weight is \(64, 256\), expected \(64, 4\)"):
        load_backbone(other, found)
