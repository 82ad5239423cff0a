"""ElasticAST's files: the logits of its forward pass, written down again in double precision; every tensor used."""

import pytest
import torch
import torch.nn.functional as F

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.checkpoints.sizes import Hints
from ssl_audio.errors import CheckpointError
from ssl_audio.evaluation.pretrained import pretrained

WIDTH, HEADS, DEPTH, BANDS, COLUMNS, LABELS, SIDE = 128, 2, 2, 8, 20, 5, 16


def published() -> dict[str, torch.Tensor]:
    """A file with the names and shapes of the published code, and random weights."""
    draws = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.0": (WIDTH, SIDE * SIDE), "mlp_norm": (WIDTH,), "norm": (WIDTH,), "head": (LABELS, WIDTH),
        "attn_pool.to_q": (WIDTH, WIDTH), "attn_pool.to_kv": (2 * WIDTH, WIDTH), "attn_pool.proj": (WIDTH, WIDTH),
    }  # fmt: skip
    for number in range(DEPTH):
        block = f"blocks.modules_list.{number}"
        shapes |= {
            f"{block}.norm1": (WIDTH,), f"{block}.norm2": (WIDTH,),
            f"{block}.attn.to_q": (WIDTH, WIDTH), f"{block}.attn.to_kv": (2 * WIDTH, WIDTH),
            f"{block}.attn.proj": (WIDTH, WIDTH),
            f"{block}.mlp.fc1": (4 * WIDTH, WIDTH), f"{block}.mlp.fc2": (WIDTH, 4 * WIDTH),
        }  # fmt: skip
    found = {}
    for name, shape in shapes.items():
        spread = 1.0 if len(shape) == 1 else shape[1] ** -0.5
        found[f"{name}.weight"] = torch.randn(*shape, generator=draws) * spread * 0.7 + (len(shape) == 1)
        found[f"{name}.bias"] = torch.randn(shape[0], generator=draws) * 0.1
    for name, count in (("pos_embed_freq", BANDS), ("pos_embed_time", COLUMNS)):
        found[name] = torch.randn(count, WIDTH, generator=draws) * 0.5
    return {**found, "attn_pool_queries": torch.randn(WIDTH, generator=draws)}


def reference(weights: dict[str, torch.Tensor], spectrogram: torch.Tensor) -> torch.Tensor:
    """Logits of one clip (frame, bin), alone in its row."""
    w = {name: value.double() for name, value in weights.items()}

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6)

    def attention(x, seen, name):
        key, value = linear(seen, f"{name}.to_kv").chunk(2, dim=-1)
        parts = [part.view(len(part), HEADS, -1).transpose(0, 1) for part in (linear(x, f"{name}.to_q"), key, value)]
        mixed = (parts[0] @ parts[1].transpose(1, 2)).softmax(dim=-1) @ parts[2]  # not over the root of the channels
        return linear(mixed.transpose(0, 1).flatten(1), f"{name}.proj")

    picture = spectrogram.double().T  # bins from low to high, then frames
    columns = picture.shape[1] // SIDE
    rows = []
    for band in range(BANDS):
        for column in range(columns):
            patch = picture[band * SIDE : (band + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
            place = w["pos_embed_freq"][band] + w["pos_embed_time"][column]
            rows.append(linear(patch.flatten(), "patch_embed.0") + place)
    x = torch.stack(rows)
    for number in range(DEPTH):
        block = f"blocks.modules_list.{number}"
        inside = norm(x, f"{block}.norm1")
        x = x + attention(inside, inside, f"{block}.attn")
        x = x + linear(F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
    x = norm(x, "norm")
    pooled = attention(w["attn_pool_queries"][None], x, "attn_pool")[0]
    return linear(norm(pooled, "mlp_norm"), "head")


def test_a_file_of_elastic_ast_gives_its_logits_and_every_tensor_is_used(tmp_path):
    weights = published()
    torch.save({f"module.{name}": value for name, value in weights.items()}, tmp_path / "best.pth")
    found = open_checkpoint(tmp_path / "best.pth")
    assert found.kind == "ElasticAST, trained"
    assert {fate.tensor for fate in found.fates} == set(weights)
    assert {fate.outcome for fate in found.fates} == {"used"}
    model = pretrained(tmp_path / "best.pth")
    assert model.head is not None
    options = found.spec["init_args"]
    assert options["position_factors"]
    assert options["encoder"]["init_args"]["scaled"] is False
    # Clips of other lengths share a row, as published.
    draws = torch.Generator().manual_seed(1)
    clips = [torch.randn(frames, 128, generator=draws) * 0.5 for frames in (160, 48, 320)]
    values = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    lengths = torch.tensor([len(clip) for clip in clips])
    with torch.inference_mode():
        logits = model.head.predict(model.backbone, Spectrogram(values, lengths, whole=False)).clips
    expected = torch.stack([reference(weights, clip) for clip in clips])
    torch.testing.assert_close(logits.double(), expected, atol=2e-4, rtol=1e-4)


def test_its_statistics_are_those_of_its_labels_and_mistakes_are_one_line(tmp_path):
    def opened(weights, **hints):
        torch.save(weights, tmp_path / "best.pth")
        return open_checkpoint(tmp_path / "best.pth", hints=Hints(**hints))

    weights = published()
    sounds = weights | {"head.weight": torch.zeros(309, WIDTH), "head.bias": torch.zeros(309)}
    front = opened(sounds).spec["init_args"]["frontend"]["init_args"]
    assert (front["mean"], front["std"]) == (-5.08, 4.453)
    assert opened(sounds, mean=-1.0).spec["init_args"]["frontend"]["init_args"]["mean"] == -1.0
    averaging = opened(weights, pooling="mean")
    assert [fate.note for fate in averaging.fates if fate.outcome == "ignored"] == [
        "this model averages its patches"
    ] * 7
    lacking = {name: value for name, value in weights.items() if name != "attn_pool.proj.bias"}
    for wrong, line in (
        (lacking, "ElasticAST: its file lacks attn_pool.proj.bias"),
        (weights | {"extra": torch.zeros(1)}, "ElasticAST: its file has the unknown extra"),
        (weights | {"pos_embed_freq": torch.zeros(5, WIDTH)}, "256 values and 5 bands; expected squares that fill 128"),
    ):
        with pytest.raises(CheckpointError, match=line):
            opened(wrong)
    with pytest.raises(CheckpointError, match=r"hints\.heads is 4 for width 128; expected 2"):
        opened(weights, heads=4)
