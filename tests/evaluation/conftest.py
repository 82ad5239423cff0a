"""What the tests of this folder share."""

import pytest

from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.evaluation.pretrained import Pretrained


@pytest.fixture
def model(tiny_backbone, tmp_path) -> Pretrained:
    """The tiny backbone by way of a checkpoint: windows of 128 frames, 8 columns."""
    spec = {
        "class_path": "ssl_audio.model.backbone.Backbone",
        "init_args": {
            "frontend": {"class_path": "ssl_audio.audio.fbank.Fbank", "init_args": {}},
            "encoder": {
                "class_path": "ssl_audio.model.encoders.Transformer",
                "init_args": {"width": 32, "depth": 2, "heads": 4},
            },
            "position_frames": 128,
            "class_tokens": 1,
        },
    }
    weights = {f"backbone.{name}": value for name, value in tiny_backbone.state_dict().items()}
    (tmp_path / "x.ckpt").touch()
    return Pretrained(Checkpoint(tmp_path / "x.ckpt", {"model": {"backbone": spec}}, weights, 0, "test"))
