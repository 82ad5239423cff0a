"""mteb and its audio benchmark MAEB: an encoder of batches of clips of any rate and length.

    import mteb
    from ssl_audio.evaluation.evaluators.mteb import encoder
    mteb.evaluate(encoder("best.ckpt"), mteb.get_tasks(["ESC50"]))

Source: mteb 2.26, `models/abs_encoder.py`, `models/model_meta.py` and `models/model_implementations/ast_model.py`.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.evaluators.frozen import Frozen
from ssl_audio.evaluation.windows import Sound


def vectors_of(model: Frozen, batches: Iterable[Mapping[str, Any]]) -> Float[np.ndarray, "clip width"]:
    """One vector a clip; what else is in its batch changes nothing.

    Args:
        model: A checkpoint.
        batches: Each with `audio`: clips with `array` (samples, or channels and samples) and `sampling_rate`.
    """
    encoder = model.encoder

    def sounds() -> Iterator[Sound]:
        for batch in batches:
            for clip in batch["audio"]:
                waveform = torch.as_tensor(np.asarray(clip["array"], dtype=np.float32))
                waveform = waveform.mean(dim=0) if waveform.ndim > 1 else waveform
                yield from encoder.sounds([waveform], clip["sampling_rate"])

    return torch.stack(list(encoder.vectors(sounds()))).numpy()


def encoder(checkpoint: str | Path | None = None) -> Any:
    """A checkpoint as a model of mteb.

    Raises:
        RecipeError: if mteb is not installed.
    """
    try:
        from mteb.models.abs_encoder import AbsEncoder
        from mteb.models.model_meta import ModelMeta, ScoringFunction
    except ImportError as error:
        raise RecipeError("an encoder of mteb needs it; install it with pip install mteb") from error

    class SslAudioModel(AbsEncoder):
        """A checkpoint of ssl_audio."""

        def __init__(self) -> None:
            self.model = Frozen(checkpoint)
            found = self.model.encoder
            # Without these mteb takes it for a model of texts, and mixes up the cached results of checkpoints.
            self.mteb_model_meta = ModelMeta.create_empty(
                {
                    "name": "ssl_audio/checkpoint",
                    "revision": found.digest,
                    "modalities": ["audio"],
                    "framework": ["PyTorch"],
                    "similarity_fn_name": ScoringFunction.COSINE,
                    "embed_dim": found.width,
                }
            )

        def encode(self, inputs: Any, **options: Any) -> Float[np.ndarray, "clip width"]:
            """Vectors of the clips of a loader."""
            inputs.collate_fn = _collate
            return vectors_of(self.model, inputs)

    return SslAudioModel()


def _collate(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}
