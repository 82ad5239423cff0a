"""Alterations are those of the published code, clips stay apart, and what is learnt is to undo them."""

import pytest
import torch

from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.audio.mel_spectrogram import MelSpectrogram
from ssl_audio.audio.mfcc import Mfcc
from ssl_audio.data.batch import collate
from ssl_audio.data.facts import Facts
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Transformer
from ssl_audio.objectives import AlteredFrames
from ssl_audio.objectives.alterations import Alterations
from ssl_audio.randomness import normal, uniform

FRONTENDS = {
    "fbank": lambda: Fbank(bins=16),
    "mel": lambda: MelSpectrogram(bins=16),
    "mfcc": lambda: Mfcc(coefficients=12, mels=20, mean=-30.0, std=20.0),
    "both": lambda: Mfcc(coefficients=12, mels=20, beside_mel=True, mean=-30.0, std=20.0),
}
ENCODERS = {
    "transformer": lambda: Transformer(width=32, depth=1, heads=4),
    "bimamba": lambda: BiMamba(width=32, depth=1),
}


def rewritten(clip: torch.Tensor, seed: int, *, time: float, size: int, band: float, rate: float, deviation: float):
    """The published loop over clips, statement by statement, with the draws of this seed for its dice."""
    seeds = torch.tensor([seed])
    frames, bins = clip.shape
    found, label = clip.clone(), torch.zeros_like(clip, dtype=torch.bool)

    def different(limit: int, purpose: str) -> list[int]:
        return uniform(seeds, frames, purpose)[0, :limit].argsort().tolist()

    proportion = round(frames * time / size)
    valid_start_max = max(frames - size - 1, 0)
    starts = different(valid_start_max + 1, "alteration/time")[:proportion]
    others = different(valid_start_max + 1, "alteration/from")[:proportion]
    dice = float(uniform(seeds, 1, "alteration/dice"))
    source = clip.clone()
    for start, other in zip(starts, others, strict=True):
        for step in range(size):
            if start + step >= frames:
                continue
            if dice < 0.8:
                found[start + step] = 0
            elif dice < 0.9:
                found[start + step] = source[min(other + step, frames - 1)]
            label[start + step] = True
    if band > 0:
        draws = uniform(seeds, 2, "alteration/band")[0]
        width = int(draws[0] * (round(bins * band) + 1))
        start = int(draws[1] * (bins - width))
        found[:, start : start + width] = 0
        label[:, start : start + width] = True
    if float(uniform(seeds, 1, "alteration/noisy")) < rate:
        found += deviation * normal(seeds, clip.numel(), "alteration/noise").view(clip.shape)
        label[:] = True
    return found, label


def spectrograms(clips: int, frames: int = 321, bins: int = 128) -> Spectrogram:
    values = torch.randn(clips, frames, bins, generator=torch.Generator().manual_seed(0)) + 3.0
    return Spectrogram(values=values, frames=torch.full((clips,), frames), whole=True)


@pytest.mark.parametrize(
    ("time", "size", "band", "rate"), [(0.15, 7, 0.2, 0.1), (0.5, 3, 0.0, 0.5), (0.0, 7, 1.0, 0.0)]
)
def test_alterations_are_those_of_the_published_loop(time, size, band, rate):
    clean, seeds = spectrograms(60, 61, 20), torch.arange(60) * 977
    alterations = Alterations(time_share=time, time_frames=size, band_share=band, noise_rate=rate, noise_deviation=0.2)
    found, asked = alterations.apply(clean, seeds)
    for row, seed in enumerate(seeds.tolist()):
        values, label = rewritten(clean.values[row], seed, time=time, size=size, band=band, rate=rate, deviation=0.2)
        assert torch.equal(found.values[row], values), row
        assert torch.equal(asked[row], label), row


def test_shares_are_the_published_ones_and_the_target_stays_clean():
    clean, seeds = spectrograms(1000, 321, 8), torch.arange(1000)
    before = clean.values.clone()
    found, asked = Alterations(band_share=0.0, noise_rate=0.0).apply(clean, seeds)
    assert torch.equal(clean.values, before)
    share = float(asked[:, :, 0].float().mean())
    assert 0.13 < share <= 49 / 321  # 7 stretches of 7 frames, of which some overlap
    silenced = (found.values == 0).all(dim=2).any(dim=1).float().mean()
    moved = ((found.values != before) & (found.values != 0)).flatten(1).any(dim=1).float().mean()
    assert abs(float(silenced) - 0.8) < 0.04
    assert abs(float(moved) - 0.1) < 0.03
    for share in (0.25, 0.5):
        widths = Alterations(time_share=0.0, noise_rate=0.0, band_share=share).apply(clean, seeds)[1][:, 0].sum(dim=1)
        assert widths.unique().tolist() == list(range(round(8 * share) + 1))
    noisy = Alterations(time_share=0.0, band_share=0.0, noise_rate=0.3)
    assert abs(float(noisy.apply(clean, seeds)[1][:, 0, 0].float().mean()) - 0.3) < 0.04
    alike = Alterations(time_share=0.0, band_share=0.0, noise_rate=0.5, noise_for="batch")
    few = spectrograms(4, 10, 2)
    shares = [float(alike.apply(few, seeds[row : row + 4])[1].float().mean()) for row in range(20)]
    assert set(shares) == {0.0, 1.0}


def test_a_clip_is_altered_alike_alone_and_padded():
    long, seeds = spectrograms(3, 80, 8), torch.tensor([3, 4, 5])
    frames = torch.tensor([80, 33, 5])
    found, asked = Alterations(noise_rate=0.0).apply(Spectrogram(values=long.values, frames=frames, whole=False), seeds)
    for row, count in enumerate(frames.tolist()):
        one = Spectrogram(values=long.values[row : row + 1, :count], frames=frames[row : row + 1], whole=True)
        alone, wanted = Alterations(noise_rate=0.0).apply(one, seeds[row : row + 1])
        band = wanted[0].all(dim=0)
        assert torch.equal(asked[row, :count].all(dim=0), band)
        # The draws of a clip do not depend on the padding behind it.
        assert torch.equal(found.values[row, :count], alone.values[0])
        assert not (asked[row, count:] & ~band).any()


def batch_of(seconds=(1.0, 0.6)):
    generator = torch.Generator().manual_seed(1)
    crops = [[(0.1 * torch.randn(round(16000 * long), generator=generator)).numpy()] for long in seconds]
    return collate(crops, [[number + 11] for number in range(len(crops))], [f"c{n}" for n in range(len(crops))])


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("frontend", FRONTENDS)
@pytest.mark.parametrize("over", ["all", "altered"])
def test_every_frontend_goes_with_every_encoder(frontend, encoder, over):
    """The loss is the mean distance over the right values, counted by hand on whole columns, one a token."""
    torch.manual_seed(0)
    made = FRONTENDS[frontend]()
    backbone = Backbone(
        frontend=made, encoder=ENCODERS[encoder](), patch=(made.bins, 1), position_start="sines", position_fixed=True
    ).eval()
    batch = batch_of()
    clean = backbone.spectrogram(batch.waveforms, batch.samples)
    objective = AlteredFrames(loss_over=over)
    objective.attach(backbone, Facts(crop_seconds=1.0))
    losses = objective(backbone, batch, clean)
    altered, asked = objective.alterations.apply(clean, batch.seeds)
    tokens = backbone.encode(backbone.embed(backbone.cut(altered)))
    error, count = 0.0, 0
    for row, frames in enumerate(clean.frames.tolist()):
        restored = objective.restore(tokens.states[row, :frames])
        chosen = asked[row, :frames] if over == "altered" else torch.ones_like(asked[row, :frames])
        error += float((restored - clean.values[row, :frames])[chosen].detach().abs().sum())
        count += int(chosen.sum())
    assert float(losses["l1"]) == pytest.approx(error / count, rel=1e-4)
    assert float(losses["l1_as_altered"]) > 0
    losses["loss"].backward()
    assert backbone.embedding.weight.grad.abs().sum() > 0
    picture = objective.picture(backbone, clean, batch.seeds)
    assert [panel.title for panel in picture.rows[0]] == ["original", "altered", "restored"]


def test_it_learns_to_undo_and_mistakes_are_named():
    torch.manual_seed(0)
    backbone = Backbone(frontend=Fbank(bins=16), encoder=Transformer(width=32, depth=1, heads=4), patch=(16, 2))
    wave = torch.sin(torch.arange(16000) * 0.3) * (1 + torch.sin(torch.arange(16000) * 0.002)) * 0.2
    batch = collate([[wave.numpy()]] * 4, [[n] for n in range(4)], list("abcd"))
    objective = AlteredFrames()
    objective.attach(backbone, Facts())
    clean = backbone.spectrogram(batch.waveforms)
    optimizer = torch.optim.Adam([*backbone.parameters(), *objective.parameters()], lr=3e-3)
    for step in range(60):
        losses = objective(
            backbone, collate([[wave.numpy()]] * 4, [[4 * step + n] for n in range(4)], list("abcd")), clean
        )
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    losses = objective(backbone, batch, clean)
    assert float(losses["l1"]) < 0.5 * float(losses["l1_as_altered"])
    with pytest.raises(RecipeError, match="nothing is altered"):
        AlteredFrames(alterations=Alterations(time_share=0, band_share=0, noise_rate=0))
    with pytest.raises(RecipeError, match="all weights are 0"):
        AlteredFrames(l1_weight=0)
    with pytest.raises(RecipeError, match=r"clip_weight is 1\.0, but each clip has one view"):
        AlteredFrames(clip_weight=1.0).check(backbone, Facts())
