"""Streams: blocks of any size give the states of a whole pass."""

import pytest
import torch

from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.mel_spectrogram import MelSpectrogram
from ssl_audio.errors import RecipeError
from ssl_audio.model.adapters import Bottleneck, Conformer, LowRank, Prefix, Prompts, StateOffset
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Transformer
from ssl_audio.model.merging import Merging
from ssl_audio.model.packing import Packing
from ssl_audio.model.streaming import BackboneStream

CAUSAL = {
    "forward": (BiMamba, {"forward_only": True}),
    "chunk": (BiMamba, {"chunk": 3}),
    "transformer": (Transformer, {"heads": 4, "chunk": 3, "chunk_past": 2}),
    "nothing carried": (Transformer, {"heads": 4, "chunk": 2, "chunk_past": 0}),
}
RATE = 16000


def backbone(name: str = "forward", *, level: bool = False, adapters=None, **options) -> Backbone:
    torch.manual_seed(0)
    kind, arguments = CAUSAL[name]
    found = Backbone(
        frontend=Fbank(bins=32, **({"level_db": -26.0, "level_seconds": 0.5, "floor": -10.0} if level else {})),
        encoder=kind(width=16, depth=2, **arguments),
        **{"patch": (16, 4), "position_frames": 12, "position_rule": "repeat", "adapters": adapters} | options,
    )
    for parameter in found.adapters.parameters():  # a fresh adapter changes nothing
        torch.nn.init.normal_(parameter, std=0.1)
    return found.eval()


def sound(seconds: float = 0.7) -> torch.Tensor:
    noise = torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(1))
    return 0.1 * noise * torch.linspace(0.01, 1, len(noise))


def streamed(found: Backbone, waveform: torch.Tensor, block: int) -> torch.Tensor:
    stream = BackboneStream(found)
    parts = [part for piece in waveform.split(block) for part in stream.feed(piece)]
    parts += stream.finish()
    assert [part.first for part in parts] == torch.tensor([0, *(part.count for part in parts)]).cumsum(0)[:-1].tolist()
    return torch.cat([part.tokens.states[0] for part in parts])


def whole(found: Backbone, waveform: torch.Tensor) -> torch.Tensor:
    """The states of a whole pass, in the order of time."""
    with torch.no_grad():
        tokens = found(waveform[None])
    return tokens.states[0][tokens.time[0].argsort(stable=True)]


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("options", [{}, {"level": True}, {"stride": (16, 2)}, {"patch": (32, 4)}], ids=str)
def test_blocks_of_any_size_give_the_whole_pass(name, options):
    found, waveform = backbone(name, **options), sound()
    expected = whole(found, waveform)
    for block in (160 if not options else 700, 4000, len(waveform)):
        torch.testing.assert_close(streamed(found, waveform, block), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["forward", "chunk", "transformer"])
def test_what_is_to_come_changes_nothing_and_clips_stay_apart(name):
    """A token depends on its own chunk and on what was before; packing does not change what it says."""
    found = backbone(name)
    waveform, other = sound(), sound().flip(0)
    together = found.encoder.stream_columns
    cut = (found.patch[1] * together * 2 - 1) * 160 + 400  # two chunks
    changed = torch.cat([waveform[:cut], other[cut:]])
    count = 2 * together * found.bands
    torch.testing.assert_close(whole(found, changed)[:count], whole(found, waveform)[:count], atol=1e-5, rtol=0)
    assert not torch.allclose(whole(found, changed), whole(found, waveform), atol=1e-3)
    rows = torch.stack([waveform, torch.nn.functional.pad(other[:5000], (0, len(waveform) - 5000))])
    alone = found(other[None, :5000])
    for packing in (None, Packing()):
        found.packing = packing
        tokens = found(rows, torch.tensor([len(waveform), 5000]))
        torch.testing.assert_close(tokens.states[1, : alone.states.shape[1]], alone.states[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "adapter"),
    [
        ("forward", LowRank(rank=2, targets=["*.into", "*.dt"])),
        ("chunk", StateOffset()),
        ("transformer", Prefix(count=3)),
        ("chunk", Bottleneck(hidden=4, branch="last")),
    ],
    ids=lambda value: getattr(type(value), "__name__", ""),
)
def test_adapters_that_mix_no_tokens_stream(name, adapter):
    found, waveform = backbone(name, adapters=[adapter]), sound(0.3)
    torch.testing.assert_close(streamed(found, waveform, 700), whole(found, waveform), atol=1e-5, rtol=0)


def test_what_cannot_stream_is_refused_in_one_line():
    for options, reason in (
        ({"class_tokens": 2}, "2 class tokens see the whole clip"),
        ({"fixed_frames": 64}, "fixed_frames=64 cuts or pads"),
        ({"position_rule": "start"}, "needs position_rule repeat"),
        ({"adapters": [Conformer(hidden=4, branch="mixer")]}, "the adapter Conformer mixes tokens"),
        (
            {"encoder": Transformer(width=16, depth=2, heads=4, chunk=2), "adapters": [Prompts(count=2)]},
            "the adapter Prompts mixes tokens",
        ),
        ({"merging": Merging(r=2, every=1)}, "merging of 2 tokens a block"),
        ({"frontend": MelSpectrogram(bins=32)}, "MelSpectrogram: its frames depend on the whole clip"),
        ({"frontend": Fbank(bins=32, level_db=-26.0)}, "expected level_seconds beside it"),
        ({"encoder": BiMamba(width=16, depth=2)}, "this BiMamba see the whole clip"),
    ):
        base = {"frontend": Fbank(bins=32), "encoder": BiMamba(width=16, depth=2, forward_only=True)}
        found = Backbone(**base | {"patch": (16, 4), "position_rule": "repeat"} | options)
        with pytest.raises(RecipeError, match=reason):
            BackboneStream(found)
    with pytest.raises(RecipeError, match="needs either forward_only or chunk"):
        BiMamba(width=16, depth=2, forward_only=True, chunk=2)
    with pytest.raises(RecipeError, match=r"level_seconds is 2\.0 and level_db None"):
        Fbank(level_seconds=2.0)


def test_the_running_level_is_a_weighted_mean_of_the_frames_so_far():
    found = Fbank(bins=32, level_db=-26.0, level_seconds=0.05)
    quiet = sound()
    louder = torch.cat([quiet[:8000], 10 * quiet[8000:]])
    first = found.frames_of(8000)
    a, b = (found.log_mel(x[None]).values[0] for x in (quiet, louder))
    torch.testing.assert_close(a[:first], b[:first])  # what comes later changes nothing
    torch.testing.assert_close(a[-1], b[-1], atol=3e-2, rtol=0)  # the level has followed
    power = quiet.unfold(0, 400, 160).var(dim=1, correction=0).double()
    weights = torch.exp(-torch.arange(len(power)).flip(0).double() * 0.01 / 0.05)
    expected = (weights * power).sum() / weights.sum()
    assert abs(found.level().of(power)[-1] / expected - 1) < 1e-9
    accelerator = found._at_once(quiet[None], None)[0]
    torch.testing.assert_close(accelerator, a, atol=1e-3, rtol=0)
