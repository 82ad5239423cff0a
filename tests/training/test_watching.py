"""What is said of steps that went wrong."""

from pathlib import Path

import pytest
import torch

from ssl_audio.data.batch import Batch
from ssl_audio.training.alerts import Alerts, Limits, read_alerts
from ssl_audio.training.watching import suspects


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (1e29, r"look at a\x1bb, which peaks at 1e+29"),
        (float("nan"), r"look at a\x1bb, which peaks at nan"),
        (0.0, r"look at a\x1bb, which is silent"),
        (0.5, r"no clip of its last batch is silent or beyond full scale: good; a\x1bb; c and 1 more"),
    ],
)
def test_an_alert_names_the_clips_that_may_have_made_gradients_that_are_not_finite(
    sample: float, said: str, tmp_path: Path
) -> None:
    waveforms = torch.full((5, 100), 0.1)
    waveforms[2] *= 0
    waveforms[2, 7] = sample
    batch = Batch(waveforms, None, torch.tensor([0, 0, 1, 2, 3]), torch.arange(5), ("good", "a\x1bb", "c", "d"))
    assert suspects(batch) == said
    alerts = Alerts(tmp_path, Limits())
    alerts.not_finite(3, suspects(batch))
    assert said in read_alerts(tmp_path)[0]["text"]
