"""What a linear classifier makes of plain statistics of the spectrogram: no encoder at all."""

from typing import Literal

import numpy as np
from jaxtyping import Float

from ssl_audio.audio.fbank import Fbank
from ssl_audio.data.labelled import LabelledShards
from ssl_audio.data.labels import Part
from ssl_audio.data.shard_rates import common_rate
from ssl_audio.evaluation.embedding import embed_clips, frame_statistics
from ssl_audio.evaluation.metrics import headline
from ssl_audio.evaluation.predictions import Predictions
from ssl_audio.objectives.linear_fit import PENALTIES, fit_linear

Statistics = Literal["cepstra", "mel", "levelled_cepstra", "levelled_mel"]
CEPSTRA = 20
LEVEL_DB, FLOOR = -26.0, -10.0


def statistics_baseline(data: LabelledShards, statistics: Statistics) -> Predictions:
    """Logistic regression on mean and deviation over a clip's frames, trained, chosen and tested as `data` says.

    Args:
        data: The task, at the rate of its shards. Whole clips are measured, longer than the task's crop or not.
        statistics: Of 20 `cepstra`, or of the log-`mel` spectrogram; `levelled` ones of clips brought to one level
            and floor, as the recipe `real_audio` has them.

    Returns:
        Predictions of the test clips; the strength of the penalty is chosen on validation.
    """
    from scipy.special import expit, softmax  # takes a third of a second to import

    level, rate = statistics.startswith("levelled"), common_rate(data.shards)
    frontend = Fbank(level_db=LEVEL_DB, floor=FLOOR, sample_rate=rate) if level else Fbank(sample_rate=rate)
    measure = frame_statistics(frontend, cepstra=CEPSTRA if statistics.endswith("cepstra") else None)
    score = headline(several=data.several)
    parts = data.parts

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
