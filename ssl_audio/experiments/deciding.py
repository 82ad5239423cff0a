"""Thresholds and smoothing of a model of sound events: tuned on validation, kept in its checkpoint."""

import numpy as np
import torch

from ssl_audio.data.labelled import LabelledShards
from ssl_audio.data.labels import Part
from ssl_audio.evaluation.events.deciding import Kind, tuned
from ssl_audio.evaluation.events.predictions import EventPredictions, grid_ceiling
from ssl_audio.evaluation.predictions import Predictions
from ssl_audio.experiments.choice import predict
from ssl_audio.training.finetuning import Finetuning

_ENOUGH = 0.9


def decide(module: Finetuning, data: LabelledShards, *, kind: Kind) -> EventPredictions | None:
    """What a module says of the validation clips, with the decision that was tuned on them, which makes events of its
    scores; None if it gives no scores of frames.

    The decision becomes a part of the module's task, so that checkpoints have it.

    Args:
        module: With the weights that will be tested.
        data: Whose validation clips it is tuned on.
        kind: Of smoothing.
    """
    if not data.located:
        return None
    found = predict(module, data, data.parts.valid)
    if not isinstance(found, EventPredictions):
        return None
    decision = tuned(found.raw(), found.truth, kind=kind)
    assert module.task is not None
    module.task["events"] = {**decision.plain(), "hop_seconds": found.hop_seconds}
    return found.decided(decision)


def decided(predictions: Predictions, tuned_on: EventPredictions | None) -> Predictions:
    """Predictions with the decision that was tuned on others, if they are of events."""
    if tuned_on is None or not isinstance(predictions, EventPredictions):
        return predictions
    return predictions.decided(tuned_on.decision)


def coarse(data: LabelledShards) -> str | None:
    """What to say of frames that are too long for the events of the validation clips; None if they are not."""
    if not data.located or data.frame_seconds is None:
        return None
    hop = data.frame_seconds
    most = grid_ceiling(data.truth(data.parts.valid), hop_seconds=hop, crop_seconds=data.crop_seconds)
    if not most < _ENOUGH:  # NaN where validation misses a label
        return None
    return (
        f"frames of {hop:g} s are long for these events: a detector that is right in every frame has a PSDS1 of "
        f"{most:.2f} on the validation clips; for shorter ones use head.branches both (or cnn) with less "
        "head.cnn.time_pooling"
    )


def timelines(module: Finetuning, data: LabelledShards, part: Part, predictions: Predictions) -> bytes | None:
    """A picture of the best and the worst clips of a part; None if predictions are not of events."""
    if not isinstance(predictions, EventPredictions):
        return None
    from ssl_audio.evaluation.event_pictures import Timeline, best_and_worst, timelines_picture  # matplotlib

    chosen = best_and_worst(predictions)
    rows = np.array([row for row, _ in chosen])
    drawn: list[Timeline] = []
    with torch.inference_mode():
        for batch in data.every(part.select(rows)):
            spectrogram = module.backbone.frontend.cpu()(batch.waveforms.cpu(), None)
            for values in spectrogram.values.float().numpy():
                row, title = chosen[len(drawn)]
                hop = module.backbone.frontend.hop_seconds
                drawn.append(Timeline(row=row, title=title, spectrogram=values, hop_seconds=hop))
    return timelines_picture(predictions, drawn)
