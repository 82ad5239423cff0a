"""Folders of Hugging Face and timm, AudioMAE and Dasheng in our terms, and one line about those that have no place."""

import json

import pytest
import torch
import torchaudio
from safetensors.torch import save_file
from torch import nn

import ssl_audio
from ssl_audio.checkpoints.hugging_face_folders import tensors_of
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.checkpoints.sizes import Hints
from ssl_audio.errors import CheckpointError

WIDTH, DEPTH, HEADS = 32, 2, 4


class ViT(nn.Module):
    """What the published encoders compute between embedding and final norm, by torch's own layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        options = {
            "activation": "gelu",
            "batch_first": True,
            "norm_first": True,
            "layer_norm_eps": 1e-6,
            "dropout": 0.0,
        }
        layers = [nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, **options) for _ in range(DEPTH)]
        self.layers, self.norm = nn.Sequential(*layers), nn.LayerNorm(WIDTH, eps=1e-6)
        for value in self.parameters():
            value.data += torch.randn(value.shape) * 0.1
        self.eval()

    def forward(self, x):
        return self.norm(self.layers(x))

    def tensors(self) -> dict[str, torch.Tensor]:
        """In timm's names."""
        names = {
            "self_attn.in_proj_": "attn.qkv.", "self_attn.out_proj.": "attn.proj.", "linear1.": "mlp.fc1.",
            "linear2.": "mlp.fc2.", "layers.": "blocks.",
        }  # fmt: skip
        found = {}
        for name, value in self.state_dict().items():
            for theirs, ours in names.items():
                name = name.replace(theirs, ours)
            found[name] = value
        return found


def sound(samples: int) -> torch.Tensor:
    return torch.sin(torch.arange(samples) ** 1.5 * 1e-3)[None] * 0.3


def test_audio_mae(tmp_path):
    vit, patch = ViT(), nn.Conv2d(1, WIDTH, 16, 16)
    columns, bands = 8, 8
    positions, token = torch.randn(1, 1 + columns * bands, WIDTH), torch.randn(1, 1, WIDTH)
    weights = {**vit.tensors(), "cls_token": token, "pos_embed": positions, "mask_token": token}
    weights |= {f"patch_embed.proj.{name}": value for name, value in patch.state_dict().items()}
    weights |= {"decoder_embed.weight": torch.zeros(8, WIDTH)}
    torch.save({"model": weights}, tmp_path / "mae.pth")
    found = open_checkpoint(tmp_path / "mae.pth", hints=Hints(heads=HEADS))
    assert (found.kind, len(found.fates)) == ("AudioMAE", len(weights))
    assert {fate.tensor for fate in found.fates if fate.outcome == "ignored"} == {"mask_token", "decoder_embed.weight"}
    wave = sound(20640)  # 127 frames: one is padding
    values = torchaudio.compliance.kaldi.fbank(
        wave - wave.mean(), htk_compat=True, use_energy=False, window_type="hanning", num_mel_bins=128, dither=0.0
    )
    picture = nn.functional.pad(values, (0, 0, 0, 128 - len(values)))
    picture = (picture + 4.2677393) / (2 * 4.5689974)
    with torch.inference_mode():
        x = patch(picture[None, None]).flatten(2).transpose(1, 2) + positions[:, 1:]
        expected = vit(torch.cat([token + positions[:, :1], x], dim=1))
        states = found.backbone()(wave).states
    expected = torch.cat(
        [expected[:, :1], expected[:, 1:].unflatten(1, (columns, bands)).transpose(1, 2).flatten(1, 2)], 1
    )
    torch.testing.assert_close(states, expected, atol=1e-4, rtol=0)
    # Without the decoder nothing says which way its pictures lie.
    bare = {name: value for name, value in weights.items() if not name.startswith(("decoder", "mask"))}
    torch.save(bare, tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match=r"give that as hints.time_first: true for \(frame, bin\) as AudioMAE"):
        open_checkpoint(tmp_path / "bare.pth", hints=Hints(heads=HEADS))
    again = open_checkpoint(tmp_path / "bare.pth", hints=Hints(heads=HEADS, time_first=True)).backbone()
    with torch.inference_mode():
        torch.testing.assert_close(again(wave).states, states)


def test_dasheng(tmp_path):
    vit, patch = ViT(), nn.Conv2d(1, WIDTH, (64, 4), (64, 4))
    norm = nn.BatchNorm2d(64).eval()
    for value in (norm.running_mean, norm.weight, norm.bias):
        value.data += torch.randn(64)
    norm.running_var.data += torch.rand(64)
    time, frequency = torch.randn(1, WIDTH, 1, 25), torch.randn(1, WIDTH, 1, 1)
    weights = {**vit.tensors(), "time_pos_embed": time, "freq_pos_embed": frequency}
    weights |= {f"patch_embed.proj.{name}": value for name, value in patch.state_dict().items()}
    weights |= {f"init_bn.1.{name}": value for name, value in norm.state_dict().items()}
    torch.save({"model": weights, "config": {"embed_dim": WIDTH}}, tmp_path / "dasheng.pt")
    found = open_checkpoint(tmp_path / "dasheng.pt", hints=Hints(heads=HEADS))
    assert (found.kind, len(found.fates)) == ("Dasheng", len(weights))
    assert [fate.tensor for fate in found.fates if fate.outcome == "ignored"] == ["init_bn.1.num_batches_tracked"]
    wave = sound(13000)
    mel = torchaudio.transforms.MelSpectrogram(
        f_min=0, sample_rate=16000, win_length=512, center=True, n_fft=512, f_max=8000, hop_length=160, n_mels=64
    )
    with torch.inference_mode():
        values = torchaudio.transforms.AmplitudeToDB(top_db=120)(mel(wave))[:, None]
        x = patch(norm(values.transpose(1, 2)).transpose(1, 2))
        x = x + time[..., : x.shape[3]] + frequency
        expected = vit(x.flatten(2).transpose(1, 2))
        states = found.backbone()(wave).states
    torch.testing.assert_close(states, expected, atol=1e-3, rtol=0)
    encoder = ssl_audio.pretrained(tmp_path / "dasheng.pt", hints=Hints(heads=HEADS))
    together = encoder.embed([wave[0], sound(16000)[0]], sample_rate=16000)
    alone = encoder.embed(wave, sample_rate=16000)
    assert torch.cosine_similarity(together[:1], alone) > 1 - 1e-6


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("modality_encoders.IMAGE.local_encoder.proj.weight", "EAT, and its blocks normalise after"),
        ("encoder.layers.0.self_attn.grep_linear.weight", "BEATs or WavLM, and its attention has gated"),
        ("data2vec_audio.feature_extractor.conv_layers.0.conv.weight", "wav2vec 2.0, data2vec or HuBERT"),
        ("fc_norm.weight", "averages before its norm"),
    ],
)
def test_others_are_refused_with_the_reason(tmp_path, name, kind):
    torch.save({name: torch.ones(3)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=kind):
        open_checkpoint(tmp_path / "x.pt")


def ast_folder(folder):
    """What transformers saves, in parts; its layer norms have our epsilon."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ASTConfig(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=64, max_length=100,
        frequency_stride=16, time_stride=12, layer_norm_eps=1e-6, id2label={0: "dog", 1: "größer"},
        problem_type="multi_label_classification",
    )  # fmt: skip
    model = transformers.ASTForAudioClassification(config).eval()
    for value in model.parameters():
        value.data += torch.randn(value.shape) * 0.1
    model.save_pretrained(folder, max_shard_size="20KB")
    extractor = transformers.ASTFeatureExtractor(max_length=100, mean=-3.0, std=3.5)
    extractor.save_pretrained(folder)
    return model, extractor


def test_a_folder_that_transformers_saved(tmp_path):
    model, extractor = ast_folder(tmp_path / "ast")
    assert len(list((tmp_path / "ast").glob("*.safetensors"))) > 1
    encoder = ssl_audio.pretrained(tmp_path / "ast")
    assert (encoder.labels, encoder.several) == (["dog", "größer"], True)
    for samples in (9000, 16000):
        wave = sound(samples)
        with torch.inference_mode():
            inputs = extractor(wave[0].numpy(), sampling_rate=16000, return_tensors="pt")
            expected = model(**inputs).logits.sigmoid()
        torch.testing.assert_close(encoder.predict(wave, sample_rate=16000), expected, atol=1e-3, rtol=0)
    index = tmp_path / "ast/model.safetensors.index.json"
    parts = json.loads(index.read_text())
    index.write_text(json.dumps({"weight_map": dict.fromkeys(parts["weight_map"], "../x.safetensors")}))
    with pytest.raises(CheckpointError, match="names no files of its own folder"):
        tensors_of(tmp_path / "ast")


def test_a_folder_of_timm_either_way_round(tmp_path):
    vit = ViT()
    weights = vit.tensors() | {"cls_token": torch.randn(1, 1, WIDTH), "pos_embed": torch.randn(1, 1 + 32, WIDTH)}
    weights |= {"patch_embed.proj.weight": torch.randn(WIDTH, 1, 16, 16), "patch_embed.proj.bias": torch.zeros(WIDTH)}
    save_file(weights, tmp_path / "model.safetensors")
    made = {"num_heads": HEADS, "in_chans": 1, "patch_size": [16, 16]}
    tables = []
    for size in ([128, 64], [64, 128]):
        config = {"architecture": "vit", "model_args": {**made, "img_size": size}}
        (tmp_path / "config.json").write_text(json.dumps({**config, "pretrained_cfg": {"mean": [-3.0], "std": [7.0]}}))
        backbone = open_checkpoint(tmp_path).backbone()
        assert backbone.frontend.statistics == (-3.0, 3.5)
        assert (backbone.fixed_frames, backbone.encoder.blocks[0].mixer.transform.heads) == (64, HEADS)
        tables.append(backbone.positions.table)
    assert tables[0].shape == (8, 4, WIDTH)
    assert torch.equal(tables[0].flatten(0, 1).unflatten(0, (4, 8)), tables[1].transpose(0, 1))
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "vit", "model_args": {**made, "img_size": [64, 64]}})
    )
    with pytest.raises(CheckpointError, match=r"its pictures are 64 x 64; expected 128 bins one way"):
        open_checkpoint(tmp_path)


def small_ast(folder) -> dict:
    """A folder in transformers' layout without transformers; returns its tensors."""
    names = {"blocks": "encoder.layer", "norm1": "layernorm_before", "norm2": "layernorm_after"}
    names |= {"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense", "attn.proj": "attention.output.dense"}
    tensors = {}
    for name, value in ViT().tensors().items():
        if "attn.qkv" in name:
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                tensors[name.replace("blocks", "encoder.layer").replace("attn.qkv", f"attention.attention.{part}")] = (
                    rows
                )
            continue
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        tensors["layernorm" + name.removeprefix("norm") if name.startswith("norm.") else name] = value
    tensors |= {f"embeddings.{name}_token": torch.randn(1, 1, WIDTH) for name in ("cls", "distillation")}
    tensors |= {"embeddings.position_embeddings": torch.randn(1, 2 + 8 * 4, WIDTH)}
    tensors |= {"embeddings.patch_embeddings.projection.weight": torch.randn(WIDTH, 1, 16, 16)}
    tensors |= {"embeddings.patch_embeddings.projection.bias": torch.zeros(WIDTH)}
    tensors = {f"audio_spectrogram_transformer.{name}": value.contiguous() for name, value in tensors.items()}
    for name, rows in (("layernorm", None), ("dense", 3)):
        tensors[f"classifier.{name}.weight"] = torch.ones(WIDTH) if rows is None else torch.randn(rows, WIDTH)
        tensors[f"classifier.{name}.bias"] = torch.zeros(rows or WIDTH)
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    config = {
        "model_type": "audio-spectrogram-transformer", "num_attention_heads": HEADS, "frequency_stride": 16,
        "time_stride": 16, "max_length": 64, "id2label": {"0": "dog", "1": "cat", "2": "größer"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return tensors


def changed(**values):
    def change(folder, tensors):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))

    return change


def cut_off(folder, tensors):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def no_json(folder, tensors):
    (folder / "config.json").write_text("{'model_type': ")


def no_weights(folder, tensors):
    (folder / "model.safetensors").unlink()


def part_missing(folder, tensors):
    (folder / "model.safetensors").unlink()
    parts = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(tensors)}
    first = {name: tensors[name] for name, file in parts.items() if "00001-" in file}
    save_file(first, folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))


def a_tensor_missing(folder, tensors):
    lost = "audio_spectrogram_transformer.encoder.layer.1.output.dense.bias"
    save_file({name: value for name, value in tensors.items() if name != lost}, folder / "model.safetensors")


def another_model(folder, tensors):
    save_file({"embeddings.word_embeddings.weight": torch.ones(9, 4)}, folder / "model.safetensors")
    changed(model_type="bert")(folder, tensors)


def extractor(**values):
    def change(folder, tensors):
        (folder / "preprocessor_config.json").write_text(json.dumps(values))

    return change


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (cut_off, r"model.safetensors: damaged or no checkpoint .* fetch it again"),
        (no_json, r"config.json: cannot be read as JSON .* copy the folder again"),
        (no_weights, r"has a config.json and no weights; expected model.safetensors or pytorch_model.bin"),
        (part_missing, r"model-00002-of-00002.safetensors: is missing, and .* names it; copy all files of the folder"),
        (a_tensor_missing, r"blocks.1.mlp.transform.contract.bias is missing; it is damaged"),
        (another_model, r"a model of transformers of the kind 'bert'"),
        (changed(num_hidden_layers=5), r"config.json says 5 blocks, but the tensors have 2"),
        (changed(hidden_act="relu"), r"hidden_act is 'relu'; expected 'gelu'"),
        (changed(num_attention_heads="four"), r"num_attention_heads is 'four'; expected int"),
        (changed(id2label={"0": "dog", "7": "cat"}), r"does not name labels 0, 1, 2 and so on"),
        (changed(id2label={"0": "dog", "1": "cat"}), r"config.json names 2 labels, but the head has 3"),
        (changed(id2label={"0": "dog", "1": "dog", "2": "cat"}), r"id2label has the label 'dog' twice"),
        (changed(auto_map={"AutoModel": "code.Model"}), r"has code of its own .* which is never run"),
        (changed(layer_norm_eps=0.1), r"layer_norm_eps is 0.1; expected 0 to 1e-05"),
        (extractor(sampling_rate=8000), r"preprocessor_config.json: sampling_rate is 8000; expected 16000"),
        (extractor(max_length=1024), r"max_length is 1024, and config.json says 64"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_line(tmp_path, change, line):
    tensors = small_ast(tmp_path)
    assert ssl_audio.pretrained(tmp_path).labels == ["dog", "cat", "größer"]
    change(tmp_path, tensors)
    with pytest.raises(CheckpointError, match=line) as found:
        open_checkpoint(tmp_path)
    assert "\n" not in str(found.value)


def test_an_extractor_that_does_not_normalise(tmp_path):
    small_ast(tmp_path)
    extractor(do_normalize=False, mean=-4.0, std=4.0)(tmp_path, {})
    # The values themselves: ours are (x - mean) / (2 std).
    assert ssl_audio.pretrained(tmp_path).backbone.frontend.statistics == (0.0, 0.5)
