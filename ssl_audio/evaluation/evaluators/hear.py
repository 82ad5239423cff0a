"""HEAR: `load_model`, `get_timestamp_embeddings` and `get_scene_embeddings` of the Holistic Evaluation of Audio
Representations.

    python -m heareval.embeddings.runner ssl_audio.evaluation.evaluators.hear --model best.ckpt --tasks-dir tasks

Source: hearbenchmark.com, the common API of 2021.
"""

from jaxtyping import Float
from torch import Tensor

from ssl_audio.evaluation.evaluators.frozen import Frozen


class HearModel(Frozen):
    """A checkpoint with what HEAR asks of a model.

    Attributes:
        sample_rate: Of the audio that it expects.
        scene_embedding_size: Channels of a clip's vector.
        timestamp_embedding_size: Channels of a frame's vector.
    """

    def __init__(self, checkpoint: str | None = None) -> None:
        super().__init__(checkpoint)
        self.sample_rate = int(self._encoder.sample_rate)
        self.scene_embedding_size = self.timestamp_embedding_size = int(self._encoder.width)


def load_model(model_file_path: str = "") -> HearModel:
    """The model of a checkpoint; without one, that of the environment variable SSL_AUDIO_CHECKPOINT."""
    return HearModel(model_file_path or None)


def get_timestamp_embeddings(
    audio: Float[Tensor, "clip sample"], model: HearModel
) -> tuple[Float[Tensor, "clip frame width"], Float[Tensor, "clip frame"]]:
    """A vector for each patch column of each clip, and the columns' centres in milliseconds."""
    states, seconds = model.encoder.embed_frames(audio, sample_rate=model.sample_rate)
    return states.to(audio.device), (1000.0 * seconds).expand(len(audio), -1).to(audio.device)


def get_scene_embeddings(audio: Float[Tensor, "clip sample"], model: HearModel) -> Float[Tensor, "clip width"]:
    """A vector for each clip: the mean over its patch columns."""
    return model.encoder.embed(audio, sample_rate=model.sample_rate).to(audio.device)
