"""What only a GPU can show: kernels, block masks, precision, compiled blocks and resuming are those of the CPU.

Marked `gpu`; skipped without one. SSL_AUDIO_REHEARSAL=1 runs them on the CPU, to try the tests themselves.
"""

import copy
import csv
import dataclasses
import os

import pytest
import torch
from killing import Launched, words
from torch import Tensor

from ssl_audio.audio.fbank import Fbank
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.checkpoints.sizes import Hints
from ssl_audio.evaluation.scan_benchmark import example
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Transformer
from ssl_audio.model.merging import Merging
from ssl_audio.model.packing import Packing
from ssl_audio.model.patterns import FrequencyTime
from ssl_audio.scan.bidirectional import Way, one_launch, scan_one
from ssl_audio.scan.choice import BACKENDS, refusal
from ssl_audio.scan.selective_scan import selective_scan
from ssl_audio.tokens import Tokens
from ssl_audio.training.engines import compile_blocks

REHEARSAL = os.environ.get("SSL_AUDIO_REHEARSAL") == "1"
pytestmark = pytest.mark.gpu
ENCODERS = {
    "transformer": lambda **more: Transformer(width=64, depth=2, heads=4, **more),
    "bimamba": lambda **more: BiMamba(width=64, depth=2, **more),
}
each = pytest.mark.parametrize("kind", ENCODERS)


@pytest.fixture
def device():
    """Matrix products in full fp32, as the goldens are."""
    if not (REHEARSAL or torch.cuda.is_available()):
        pytest.skip("no CUDA device here")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield torch.device("cpu" if REHEARSAL else "cuda")
    torch.set_float32_matmul_precision(before)


def off(found: Tensor, expected: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    expected = expected.detach().double().cpu()
    return float((found.detach().double().cpu() - expected).abs().max() / expected.abs().max().clamp_min(1e-6))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["torch", "cpu"] if REHEARSAL else ["torch", "triton", "cuda"])
@pytest.mark.parametrize("borders", [False, True])
@pytest.mark.parametrize(("rows", "length", "channels", "states"), [(3, 301, 96, 16), (1, 2500, 32, 7)])
def test_scans_equal_the_definition_in_float64(device, backend, dtype, borders, rows, length, channels, states):
    reason = BACKENDS[backend].unfit(device, dtype) or refusal(backend, device.type, dtype)
    if reason:
        pytest.skip(reason)
    x = example(rows, length, channels=channels, states=states, device=torch.device("cpu"))
    wide = {name: value.detach().to(dtype) if name in ("u", "dt", "B", "C") else value for name, value in x.items()}
    reset = torch.rand(rows, length, generator=torch.Generator().manual_seed(1)) > 0.97 if borders else None

    def outcome(where: torch.device, kind: torch.dtype | None, backend: str) -> list[Tensor]:
        own = [value.detach().to(where, kind or value.dtype).requires_grad_() for value in wide.values()]
        u, dt, A, B, C, D, bias = own
        at = None if reset is None else reset.to(where)
        y = selective_scan(u, dt, A, B, C, D, None, bias, reset=at, backend=backend)
        return [y, *torch.autograd.grad(y.square().sum() * 0.5, own)]

    ours = outcome(device, None, backend)
    exact = outcome(torch.device("cpu"), torch.float64, "reference")
    for name, found, expected in zip(("y", *wide), ours, exact, strict=True):
        assert off(found, expected) < (5e-5 if dtype == torch.float32 else 5e-2), name


def test_both_directions_in_one_launch_are_two_scans(device):
    drawn = [example(2, 300, channels=64, states=16, device=device) for _ in range(2)]
    ahead, back = (Way(**x | {"B": x["B"][:, :, 0], "C": x["C"][:, :, 0]}) for x in drawn)
    apart = scan_one(ahead, reset=None) + scan_one(back, reverse=True, reset=None)
    assert off(one_launch(ahead, back, reset=None), apart) < 1e-5


def tokens_on(device: torch.device, *, clips: int = 2, bands: int = 4, columns: int = 24, width: int = 64) -> Tokens:
    states = torch.randn(clips, bands * columns, width, generator=torch.Generator().manual_seed(0))
    place = torch.arange(bands * columns).expand(clips, -1)
    owner = torch.arange(clips)[:, None].expand_as(place)
    size = torch.ones(place.shape)
    found = Tokens(states, owner, place % columns, place // columns, size, True, clips, (bands, columns))
    tensors = ("states", "clip", "time", "band", "size")
    return dataclasses.replace(found, **{name: getattr(found, name).to(device) for name in tensors})


def outcome(encoder, tokens: Tokens) -> tuple[Tensor, list[Tensor]]:
    states = encoder(tokens).states
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    return states, list(torch.autograd.grad(states.float().square().mean(), weights, allow_unused=True))


@each
def test_an_encoder_and_its_gradients_are_those_of_float64(device, kind):
    torch.manual_seed(0)
    encoder = ENCODERS[kind]().eval()
    tokens = tokens_on(torch.device("cpu"))
    exact, gradients = outcome(
        copy.deepcopy(encoder).double(), dataclasses.replace(tokens, states=tokens.states.double())
    )
    states, found = outcome(encoder.to(device), tokens_on(device))
    assert off(states, exact) < 1e-5
    for ours, theirs in zip(found, gradients, strict=True):
        if theirs is not None:
            assert off(ours, theirs) < 1e-3


@each
def test_bf16_is_close_to_fp32(device, kind):
    torch.manual_seed(0)
    encoder = ENCODERS[kind]().eval().to(device)
    exact = encoder(tokens_on(device)).states
    with torch.autocast(device.type, torch.bfloat16):
        assert off(encoder(tokens_on(device)).states, exact) < 5e-2


@each
def test_compiled_blocks_give_what_the_others_do(device, kind):
    torch.manual_seed(0)
    encoder = ENCODERS[kind]().to(device)
    compiled = copy.deepcopy(encoder)
    if REHEARSAL:  # compiling for the CPU takes a minute, and is tested elsewhere
        pytest.skip("compiled on a GPU alone")
    compile_blocks(compiled, lengths_vary=False)
    expected, gradients = outcome(encoder, tokens_on(device))
    states, found = outcome(compiled, tokens_on(device))
    assert off(states, expected) < 1e-5
    for ours, theirs in zip(found, gradients, strict=True):
        if theirs is not None:
            assert off(ours, theirs) < 1e-4


def backbone_of(kind: str, *, packing: Packing | None = None, merged: int = 0, **more) -> Backbone:
    torch.manual_seed(0)
    found = Backbone(
        frontend=Fbank(),
        encoder=ENCODERS[kind](**more),
        position_frames=256,
        packing=packing,
        merging=Merging(r=merged, every=1) if merged else None,
    )
    return found.eval()


@each
@pytest.mark.parametrize("merged", [0, 2])
def test_packed_padded_and_merged_clips_are_those_alone(device, kind, merged):
    lengths = [12000, 30000, 9000, 21000]
    clips = [torch.randn(n, generator=torch.Generator().manual_seed(n)) * 0.3 for n in lengths]
    waveforms = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True).to(device)
    samples = torch.tensor(lengths, device=device)
    alone = backbone_of(kind, merged=merged).to(device)
    packed = backbone_of(kind, merged=merged, packing=Packing(room=160, fit="next")).to(device)
    together = alone(waveforms, samples).unmerged()
    rows = packed(waveforms, samples).unmerged()
    for number, clip in enumerate(clips):
        expected = alone(clip[None].to(device)).unmerged().states[0]
        for tokens in (together, rows):
            own = tokens.states[tokens.clip == number]
            assert off(own, expected) < 1e-4


def test_attention_along_bands_and_columns_is_that_of_the_table(device, monkeypatch):
    outputs = []
    for fewest in (0, 10**9):
        monkeypatch.setattr("ssl_audio.model.patterns.FEWEST_PATCHES", fewest)
        torch.manual_seed(0)
        encoder = ENCODERS["transformer"](pattern=FrequencyTime()).eval().to(device)
        outputs.append(encoder(tokens_on(device)).states)
    assert off(*outputs) < 1e-5


@pytest.mark.parametrize("file", ["ssast_patch_mini.pt", "ssamba_frame_mini.pt"])
def test_published_weights_give_what_they_give_on_a_cpu(device, golden, tmp_path, file):
    torch.save(golden(file)["state_dict"], tmp_path / "weights.pth")
    found = open_checkpoint(tmp_path / "weights.pth", hints=Hints(heads=3))
    waveform = torch.randn(2, 20000, generator=torch.Generator().manual_seed(1)) * 0.1
    exact = found.backbone()(waveform).states
    assert off(found.backbone().to(device)(waveform.to(device)).states, exact) < 1e-4


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_killed_pretraining_resumes_with_the_losses_of_another(device, demo_shards, tmp_path, encoder):
    cuda = not REHEARSAL
    options = [f"--trainer.accelerator={'gpu' if cuda else 'cpu'}"]
    environment = {"CUDA_VISIBLE_DEVICES": "0"} if cuda else {}
    losses = []
    for kills in (0, 1):
        folder = tmp_path / str(kills)
        call = words(demo_shards, encoder, *options, "--name=gpu")
        if kills:
            run = Launched(call, folder, environment=environment)
            run.until(folder / "runs" / "pretrain" / "gpu" / "0" / "checkpoints" / "last.ckpt", seconds=180)
            run.kill()
        run = Launched(call, folder, environment=environment)
        assert run.wait(240) == [0], run.log.read_text()[-2000:]
        with (folder / "runs" / "pretrain" / "gpu" / "0" / "metrics.csv").open() as file:
            losses.append([float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")])
    assert len(losses[0]) == len(losses[1]) == 12
    torch.testing.assert_close(*map(torch.tensor, losses), atol=1e-2 if cuda else 1e-5, rtol=0)
