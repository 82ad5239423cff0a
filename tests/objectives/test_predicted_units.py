"""Units are those of a float64 rewrite, clips stay apart, and what is learnt is to tell units from states."""

import numpy as np
import pytest
import torch
from scipy.fft import dct
from sklearn.cluster import MiniBatchKMeans

from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.batch import collate
from ssl_audio.data.facts import Facts
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Transformer
from ssl_audio.objectives import PredictedUnits
from ssl_audio.objectives.frame_units import FrameUnits
from ssl_audio.objectives.views import Views
from ssl_audio.training.module import Training

ENCODERS = {
    "transformer": lambda: Transformer(width=32, depth=1, heads=4),
    "bimamba": lambda: BiMamba(width=32, depth=1),
}


def clips(count: int = 6, frames: int = 80, bins: int = 40) -> Spectrogram:
    draws = torch.Generator().manual_seed(0)
    return Spectrogram(
        values=torch.randn(count, frames, bins, generator=draws).cumsum(dim=1) / 4 + 2.0,
        frames=torch.tensor([frames, 61, *[frames] * (count - 2)]),
        whole=False,
    )


def rewritten(clip: np.ndarray) -> np.ndarray:
    """Segments around every frame of one clip, statement by statement."""
    cepstra = dct(clip, type=2, norm="ortho", axis=1)[:, :24]
    cepstra = cepstra - cepstra.mean(axis=0)
    rows = []
    for frame in range(len(cepstra)):
        window = cepstra[[min(max(frame + shift, 0), len(cepstra) - 1) for shift in range(-4, 5)]]
        rows.append(dct(window, type=2, norm="ortho", axis=0)[:3].T.flatten())
    return np.stack(rows)


def test_units_are_those_of_a_rewrite_and_do_not_see_the_padding():
    spectrogram = clips()
    codebook = FrameUnits(16, bins=40)
    codebook.find([spectrogram])
    found = codebook(spectrogram, every=1).double().numpy()
    valid = [
        clip[:frames].double().numpy()
        for clip, frames in zip(spectrogram.values, spectrogram.frames.tolist(), strict=True)
    ]
    rows = np.concatenate([rewritten(clip)[::2] for clip in valid])
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    whitening = vectors @ np.diag((values + 0.02 * values.mean() + 1e-12) ** -0.5)
    white = (rows - rows.mean(axis=0)) @ whitening
    centres = MiniBatchKMeans(16, batch_size=4096, max_iter=30, n_init=1, random_state=0).fit(white.astype("f"))

    def near(white: np.ndarray) -> np.ndarray:
        distance = np.linalg.norm(white[:, None] - centres.cluster_centers_.astype(float), axis=2)
        return np.maximum(distance.mean(axis=1, keepdims=True) - distance, 0)

    average, deviation = near(white).mean(axis=0), near(white).std(axis=0) + 0.02
    for number, clip in enumerate(valid):
        expected = (near((rewritten(clip) - rows.mean(axis=0)) @ whitening) - average) / deviation
        np.testing.assert_allclose(found[number, : len(clip)], expected, atol=2e-3)
    louder = Spectrogram(values=spectrogram.values + 3.0, frames=spectrogram.frames, whole=False)
    torch.testing.assert_close(codebook(louder, every=2), codebook(spectrogram, every=2), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("encoder", "patch"), [("transformer", (16, 16)), ("bimamba", (128, 4)), ("transformer", (128, 5))]
)
def test_states_learn_to_tell_units(encoder, patch):
    torch.manual_seed(0)
    backbone = Backbone(frontend=Fbank(), encoder=ENCODERS[encoder](), patch=patch, position_frames=96)
    objective = PredictedUnits(units=8, sketch_weight=0.0)
    objective.attach(backbone, Facts(crop_seconds=0.9))
    draws = np.random.default_rng(0)
    waves = [
        [np.cumsum(draws.normal(size=samples)).astype("f") * np.sin(np.arange(samples) / 300).astype("f") / 200]
        for samples in (14000, 9000, 12000, 14000)
    ]
    batch = collate(waves, [[number] for number in range(4)], ["a", "b", "c", "d"])
    look = lambda: objective(backbone, batch, backbone.spectrogram(batch.waveforms, batch.samples))  # noqa: E731
    with pytest.raises(RecipeError, match="the units were not found; expected before_training"):
        look()
    objective.before_training(lambda: [batch])
    state = objective.state_dict()
    again = PredictedUnits(units=8, sketch_weight=0.0)
    again.attach(backbone, Facts(crop_seconds=0.9))
    again.load_state_dict(state)
    patches = backbone.cut(backbone.spectrogram(batch.waveforms, batch.samples))
    wanted = objective.targets(backbone, batch, patches)
    assert torch.equal(again.targets(backbone, batch, patches), wanted)
    # A clip's targets are those that it has alone.
    alone = collate(waves[1:2], [[1]], ["b"])
    own = objective.targets(backbone, alone, backbone.cut(backbone.spectrogram(alone.waveforms)))
    torch.testing.assert_close(wanted[1, : own.shape[1]], own[0], atol=2e-3, rtol=1e-3)
    optimizer = torch.optim.Adam([*backbone.parameters(), *objective.parameters()], lr=5e-3)
    first = float(look()["units"].detach())
    for _ in range(30):
        optimizer.zero_grad()
        loss = look()["loss"]
        loss.backward()
        optimizer.step()
    assert float(look()["units"].detach()) < 0.6 * first


def test_targets_are_of_the_spectrogram_before_views(monkeypatch):
    """Training hands it over, stretched in time as the views are; only without it are the waveforms looked at again."""
    torch.manual_seed(0)
    backbone = Backbone(frontend=Fbank(), encoder=ENCODERS["transformer"](), patch=(128, 4), position_frames=128)
    objective = PredictedUnits(units=8, sketch_weight=0)
    objective.attach(backbone, Facts())
    batch = collate(
        [[np.random.default_rng(i).normal(size=16000).astype("f") / 9] for i in range(4)], [[1]] * 4, "abcd"
    )
    objective.before_training(lambda: [batch])
    module = Training(backbone=backbone, objective=objective, views=Views(gain_db=12))
    rows, viewed = module.inputs(batch)
    assert not torch.equal(rows.clean.values, viewed.values)
    wanted = objective.targets(backbone, batch, backbone.cut(viewed))
    monkeypatch.setattr(backbone, "spectrogram", None)
    torch.testing.assert_close(objective.targets(backbone, rows, backbone.cut(viewed)), wanted, rtol=0, atol=0)


def test_mistakes_are_one_line():
    with pytest.raises(RecipeError, match="all weights are 0"):
        PredictedUnits(units_weight=0, sketch_weight=0)
    with pytest.raises(RecipeError, match="these have no two frames; expected clips"):
        FrameUnits(4, bins=16).find([])
