"""X-ARES: an encoder with a sample rate, a width, a hop and `forward`.

    SSL_AUDIO_CHECKPOINT=best.ckpt python -m xares.run ssl_audio/evaluation/evaluators/xares.py tasks/esc50_task.py

X-ARES takes the one class of this file whose name ends in Encoder.

Source: xares 0.1.3, `audio_encoder_checker.check_audio_encoder`.
"""

from jaxtyping import Float
from torch import Tensor

from ssl_audio.evaluation.evaluators.frozen import Frozen


class SslAudioEncoder(Frozen):
    """A checkpoint with what X-ARES asks of an encoder.

    Attributes:
        sampling_rate: Of the audio that it expects.
        output_dim: Channels of a frame.
        hop_size_in_ms: From one frame to the next.
    """

    def __init__(self, checkpoint: str | None = None) -> None:
        super().__init__(checkpoint)
        self.sampling_rate = int(self._encoder.sample_rate)
        self.output_dim = int(self._encoder.width)
        self.hop_size_in_ms = 1000.0 * self.hop_samples / self.sampling_rate

    def forward(self, audio: Tensor) -> Float[Tensor, "clip frame width"]:
        """Frames of clips of one length; a single waveform is a batch of one."""
        return self.frames(audio[None] if audio.ndim == 1 else audio)
