"""SUPERB: an upstream of s3prl, with the states behind every block.

Put a folder with `from ssl_audio.evaluation.evaluators.superb import UpstreamExpert` in its `expert.py` among s3prl's
upstreams, and give the checkpoint with `-k best.ckpt`.

Source: s3prl 0.4.18, `upstream/example/expert.py`.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ssl_audio.evaluation.evaluators.frozen import Frozen


class UpstreamExpert(Frozen):
    """A checkpoint as an upstream, frozen or trained with its downstream.

    Args:
        ckpt: A file or folder that `ssl_audio.pretrained` opens.
        model_config: s3prl's `-g`; a checkpoint of ours needs none.
        options: Whatever else s3prl passes.
    """

    def __init__(self, ckpt: str | None = None, model_config: str | None = None, **options: Any) -> None:
        super().__init__(ckpt)

    def get_downsample_rates(self, key: str) -> int:
        """Samples from one frame to the next: of patches of 16 frames 2560, not the 160 of the spectrogram's."""
        return self.hop_samples

    def forward(self, wavs: Sequence[Tensor]) -> dict[str, Any]:
        """States behind every block and behind the final norm, each (clip, frame, width)."""
        layers = self.layers(wavs)
        return {"hidden_states": layers, "last_hidden_state": layers[-1]}
