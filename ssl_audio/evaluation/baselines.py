"""What a linear classifier makes of plain statistics of the spectrogram, or of a frozen model of others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from ssl_audio.audio.fbank import Fbank
from ssl_audio.checkpoints.hugging_face_folders import is_folder
from ssl_audio.checkpoints.huggingface_teacher import frozen_features
from ssl_audio.data.labelled import LabelledShards
from ssl_audio.data.labels import Part
from ssl_audio.data.shard_rates import common_rate
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.embedding import MAX_SECONDS, Embedder, embed_clips, frame_statistics
from ssl_audio.evaluation.metrics import headline
from ssl_audio.evaluation.predictions import Predictions
from ssl_audio.objectives.linear_fit import PENALTIES, fit_linear

Statistics = Literal["cepstra", "mel", "levelled_cepstra", "levelled_mel"]
Baseline = Statistics | Path
"""Statistics by name, or a folder of Hugging Face with a model on waveforms."""
CEPSTRA = 20
LEVEL_DB, FLOOR = -26.0, -10.0


def check_baselines(baselines: Sequence[Baseline]) -> None:
    """Find mistakes before anything is trained.

    Raises:
        RecipeError: if one is neither statistics nor a folder, or two have one name.
    """
    for one in baselines:
        if isinstance(one, Path) and not is_folder(one):
            raise RecipeError(
                f"--baselines {one}: is neither {', '.join(get_args(Statistics))} nor a folder with a config.json, as "
                "`save_pretrained` of transformers writes it"
            )
    names = [baseline_name(one) for one in baselines]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RecipeError(f"--baselines: two have the name {twice}; give each once, or rename one folder")


def baseline_name(baseline: Baseline) -> str:
    """In tables and of files."""
    return baseline.resolve().name if isinstance(baseline, Path) else baseline


def linear_baseline(data: LabelledShards, baseline: Baseline) -> Predictions:
    """Logistic regression on mean and deviation over a clip's frames, trained, chosen and tested as `data` says.

    Args:
        data: The task, at the rate of its shards. Whole clips are measured, longer than the task's crop or not.
        baseline: Of 20 `cepstra`, or of the log-`mel` spectrogram; `levelled` ones of clips brought to one level and
            floor, as the recipe `real_audio` has them. Of a folder: the last states of its model, which is frozen.

    Returns:
        Predictions of the test clips; the strength of the penalty is chosen on validation.
    """
    from scipy.special import expit, softmax  # takes a third of a second to import

    score = headline(several=data.several)
    parts = data.parts
    if isinstance(baseline, Path):
        clips = (parts.train.index, parts.valid.index, parts.test.index)
        longest = max(float(index.seconds.max(initial=1.0)) for index in clips)
        measure, rate = frozen_features(baseline, longest=min(longest, MAX_SECONDS))
    else:
        measure, rate = _statistics(baseline, common_rate(data.shards))

    def features(part: Part) -> Float[np.ndarray, "clip feature"]:
        return embed_clips(part.index, {"it": measure}, sample_rate=rate)["it"].astype(np.float64)

    train, valid = features(parts.train), features(parts.valid)
    fits = [fit_linear(train, parts.train.targets, several=data.several, C=penalty) for penalty in PENALTIES]
    weight, bias = max(fits, key=lambda fit: score(valid @ fit[0].T + fit[1], parts.valid.targets))
    logits = features(parts.test) @ weight.T + bias
    return Predictions(
        labels=parts.labels,
        several=data.several,
        keys=np.array([str(key) for key in parts.test.index.key]),
        scores=expit(logits) if data.several else softmax(logits, axis=1),
        targets=parts.test.targets,
        speakers=parts.test.speakers,
    )


def _statistics(name: Statistics, rate: int) -> tuple[Embedder, int]:
    level = name.startswith("levelled")
    frontend = Fbank(level_db=LEVEL_DB, floor=FLOOR, sample_rate=rate) if level else Fbank(sample_rate=rate)
    return frame_statistics(frontend, cepstra=CEPSTRA if name.endswith("cepstra") else None), rate
