"""The joint objective: the published numbers, and what must hold of ours."""

import pytest
import torch
from torch import nn

from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.checkpoints.ssamba import from_ssamba, rename
from ssl_audio.checkpoints.ssast import _rename, from_ssast
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Encoder, Transformer
from ssl_audio.objectives.hiding import hiding_of
from ssl_audio.objectives.masked_patches import MaskedPatches
from ssl_audio.objectives.masking import ClusterMasking, PublishedMasking
from ssl_audio.tokens import pool


def published(file: dict, family: str) -> nn.ModuleDict:
    config = file["config"]
    if family == "ssast":
        encoder: Encoder = Transformer(width=48, depth=2, heads=3)
        convert, class_tokens, frames = from_ssast, 2, 1024
    else:
        encoder = BiMamba(width=48, depth=4, paired_flips=True, second_final_norm=True)
        convert, class_tokens, frames = from_ssamba, 1, config["input_tdim"]
    backbone = Backbone(
        frontend=Fbank(),
        encoder=encoder,
        patch=(config["fshape"], config["tshape"]),
        class_tokens=class_tokens,
        position_frames=frames,
    )
    objective = MaskedPatches(
        masking=PublishedMasking(config["mask_patch"]), direction="published", forwards="separate"
    )
    objective.attach(backbone, Facts())
    model = nn.ModuleDict({"backbone": backbone, "objective": objective})
    weights = convert({f"module.{name}": value for name, value in file["state_dict"].items()})
    missing, unknown = model.load_state_dict(weights, strict=False)
    assert (missing, unknown) == (["backbone.frontend.mean", "backbone.frontend.std"], [])
    return model.eval()


def given_mask(patches, index):
    drawn = torch.zeros(patches.clip.shape, dtype=torch.bool).scatter(1, index, True)
    return hiding_of(drawn, patches, hidden=index.shape[1])


def golden_losses(model: nn.ModuleDict, patches, part: dict, name: str):
    backbone, objective = model["backbone"], model["objective"]
    hiding = given_mask(patches, part)
    states, tokens = objective.states_at(backbone, patches, hiding)
    found = objective.discriminate if name == "mpc" else objective.generate
    return found(patches, hiding, states), tokens


def golden_patches(backbone: Backbone, frames: int):
    # goldens/README.md: every pretraining input is this draw.
    values = torch.randn(2, frames, 128, generator=torch.Generator().manual_seed(5)) * 0.5
    return backbone.cut(Spectrogram(values, torch.tensor([frames, frames]), whole=True))


@pytest.mark.parametrize("kind", ["patch", "frame"])
def test_ssast_goldens(golden, kind):
    """Losses, accuracy, states and gradient norms of the published implementation (YuanGongND/ssast@a1a3eec)."""
    file = golden(f"ssast_{kind}_mini.pt")
    model = published(file, "ssast")
    patches = golden_patches(model["backbone"], 1024)
    tokens = assert_single_losses(model, patches, file)
    inner = file["mpc"]["intermediates_sample0"]
    expected = inner["encoder_out"]
    torch.testing.assert_close(tokens.states[:1, : expected.shape[1]], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(patches.pixels[:1, :4], inner["unfold"], atol=0, rtol=0)
    joint = file["joint"]
    both = golden_losses(model, patches, joint["mask_index_mpc"], "mpc")[0]
    both |= golden_losses(model, patches, joint["mask_index_mpg"], "mpg")[0]
    total = model["objective"].total(both)
    torch.testing.assert_close(total, joint["loss"], atol=1e-5, rtol=0)
    assert_gradients(model, total, joint["grad_norms"])


@pytest.mark.parametrize("kind", ["patch", "frame"])
def test_ssamba_goldens(golden, kind):
    """Losses, states of every layer and gradient norms of the published code (SiavashShams/ssamba@019b276)."""
    file = golden(f"ssamba_{kind}_mini.pt")
    model = published(file, "ssamba")
    encoder = model["backbone"].encoder
    mixed, residuals = [], []
    for branch in encoder.branches()["mixer"]:
        branch.register_forward_hook(
            lambda _, inputs, output: residuals.append(inputs[0].states) or mixed.append(output.states)
        )
    patches = golden_patches(model["backbone"], file["config"]["input_tdim"])
    tokens = assert_single_losses(model, patches, file)
    torch.testing.assert_close(tokens.states[:1], file["mpc"]["norm_f_call1_out"], atol=1e-5, rtol=0)
    for layer, (hidden, residual) in file["mpc"]["layer_trace_sample0"].items():
        flip = (lambda x: x.flip(1)) if int(layer) % 2 else (lambda x: x)
        torch.testing.assert_close(flip(mixed[int(layer)][:1]), hidden, atol=1e-5, rtol=0)
        torch.testing.assert_close(flip(residuals[int(layer)][:1]), residual, atol=1e-5, rtol=0)


def assert_single_losses(model: nn.ModuleDict, patches, file: dict):
    found, tokens = golden_losses(model, patches, file["mpc"]["mask_index"], "mpc")
    torch.testing.assert_close(found["nce"], file["mpc"]["nce"], atol=1e-5, rtol=0)
    torch.testing.assert_close(found["pretext_accuracy"], file["mpc"]["acc"], atol=1e-6, rtol=0)
    assert_gradients(model, found["nce"], file["mpc"]["grad_norms"])
    found, _ = golden_losses(model, patches, file["mpg"]["mask_index"], "mpg")
    torch.testing.assert_close(found["mse"], file["mpg"]["mse"], atol=1e-5, rtol=0)
    assert_gradients(model, found["mse"], file["mpg"]["grad_norms"])
    return tokens


def assert_gradients(model: nn.ModuleDict, loss: torch.Tensor, expected: dict) -> None:
    """Norms by their published names; tensors that we keep in one piece are compared as a whole."""
    model.zero_grad()
    loss.backward(retain_graph=True)
    ours = {name: p.grad.norm() for name, p in model.named_parameters() if p.grad is not None}
    split = {"v.cls_token", "v.dist_token", "v.pos_embed"}
    compared = 0
    for name, norm in expected.items():
        if norm is None or name in split or name.startswith(("v.head", "p_input")):
            continue
        torch.testing.assert_close(ours[_renamed(name)], torch.as_tensor(norm), atol=1e-5, rtol=1e-4, msg=name)
        compared += 1
    tokens = torch.stack([torch.as_tensor(expected[name]) for name in split if "token" in name and name in expected])
    torch.testing.assert_close(ours["backbone.class_tokens"], tokens.norm(), atol=1e-5, rtol=1e-4)
    positions = torch.stack([ours["backbone.class_positions"], ours["backbone.positions.table"]]).norm()
    torch.testing.assert_close(positions, torch.as_tensor(expected["v.pos_embed"]), atol=1e-5, rtol=1e-4)
    assert compared >= 30


def _renamed(name: str) -> str:
    embedded = name.removeprefix("v.patch_embed.proj.")
    return f"backbone.embedding.{embedded}" if embedded != name else _rename(name) or rename(name)


def ours(**options) -> tuple[Backbone, MaskedPatches]:
    torch.manual_seed(0)
    backbone = Backbone(
        frontend=Fbank(), encoder=Transformer(width=32, depth=2, heads=4), position_frames=64, class_tokens=1
    )
    objective = MaskedPatches(masking=ClusterMasking(0.6), **options)
    objective.attach(backbone, Facts())
    return backbone.eval(), objective.eval()


def rows_of(seeds: torch.Tensor, source: torch.Tensor) -> Batch:
    """A batch of views whose waveforms nobody asks for."""
    return Batch(torch.zeros(len(seeds), 1), None, source, seeds, tuple(map(str, source.unique().tolist())))


OPTIONS = [
    {},
    {"direction": "published", "temperature": 0.1},
    {"targets": "normalised", "clip_weight": 1.0, "sketch_weight": 1.0},
    {"forwards": "separate"},
    {"decoder": True, "clip_weight": 1.0, "sketch_weight": 1.0, "pooling": "bands", "temperature": 0.1},
]


def options_of(raw: dict) -> dict:
    return raw | ({"decoder": Transformer(width=16, depth=1, heads=2)} if raw.get("decoder") else {})


@pytest.mark.parametrize("raw", OPTIONS)
def test_padding_enters_no_loss(raw):
    """Whatever lies behind a short clip, and however long its row is: the same losses and gradients."""
    backbone, objective = ours(**options_of(raw))
    values = torch.randn(2, 64, 128)
    seeds, source = torch.tensor([5, 6]), torch.tensor([0, 0])

    def measured(width, garbage):
        rows = torch.full((2, width, 128), garbage)
        rows[0, :64], rows[1, :40] = values[0], values[1, :40]
        frames = torch.tensor([64, 40])
        backbone.zero_grad()
        found = objective(backbone, rows_of(seeds, source), Spectrogram(rows, frames, whole=False))
        found["loss"].backward()
        return found, backbone.embedding.weight.grad.clone()

    (first, gradient), (second, other) = measured(64, 0.0), measured(64, 7.0)
    for name, loss in first.items():
        torch.testing.assert_close(loss, second[name], atol=1e-5, rtol=1e-5, msg=name)
    torch.testing.assert_close(gradient, other, atol=1e-5, rtol=1e-4)
    assert torch.isfinite(first["loss"])


@pytest.mark.parametrize("raw", OPTIONS)
def test_every_parameter_learns(raw):
    backbone, objective = ours(**options_of(raw))
    spectrogram = Spectrogram(torch.randn(4, 64, 128), torch.full((4,), 64), whole=True)
    losses = objective(backbone, rows_of(torch.arange(4), torch.tensor([0, 0, 1, 1])), spectrogram)
    losses["loss"].backward()
    without = [
        name
        for module in (backbone, objective)
        for name, p in module.named_parameters()
        if p.grad is None or not p.grad.any()
    ]
    # Nothing is asked of class tokens; they only take part through attention.
    assert without == []
    assert 0 <= losses["pretext_accuracy"] <= 1
    assert losses["pretext_chance"] == pytest.approx(1 / 19, abs=1e-6)


def test_dropped_patches_never_reach_the_encoder():
    backbone, objective = ours(decoder=Transformer(width=16, depth=1, heads=2))
    seen = []
    backbone.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    values = torch.randn(1, 64, 128)
    spectrogram = Spectrogram(values, torch.tensor([64]), whole=True)
    objective(backbone, rows_of(torch.tensor([3]), torch.tensor([0])), spectrogram)
    tokens = seen[0]
    assert tokens.states.shape[1] == 1 + 32 - 19
    places = (tokens.band * 4 + tokens.time)[0, 1:]
    assert torch.equal(places, places.sort().values)
    assert torch.isfinite(pool(tokens)).all()


def test_a_masked_model_learns_what_can_be_predicted():
    """Columns of equal value: a few steps of training must bring the error far below that of guessing."""
    backbone, objective = ours(decoder=Transformer(width=16, depth=1, heads=2), discriminative_weight=0.0)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *objective.parameters()], lr=3e-3)
    draws, errors = torch.Generator().manual_seed(0), []
    for step in range(80):
        values = torch.randn(16, 1, 1, generator=draws).expand(16, 64, 128)
        spectrogram = Spectrogram(values, torch.full((16,), 64), whole=True)
        losses = objective(backbone, rows_of(torch.arange(16) + 16 * step, torch.arange(16)), spectrogram)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        errors.append(float(losses["mse"]))
    assert sum(errors[-5:]) / 5 < 0.15 * sum(errors[:5]) / 5


def test_contradictions_are_mistakes_in_the_recipe():
    with pytest.raises(RecipeError, match="all weights are 0"):
        MaskedPatches(masking=ClusterMasking(0.5), discriminative_weight=0.0, generative_weight=0.0)
    with pytest.raises(RecipeError, match="asks nothing of whole clips"):
        MaskedPatches(masking=ClusterMasking(0.5), forwards="separate", clip_weight=1.0)
