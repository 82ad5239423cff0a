"""Steps of a fine-tuning around its training: statistics and probe before, checkpoint selection and test after."""

from typing import Any

import lightning as L
import numpy as np
import torch

from ssl_audio.audio.statistics import Moments
from ssl_audio.data.batch import Batch
from ssl_audio.data.labelled import LabelledShards
from ssl_audio.data.labels import Part
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.events.predictions import EventPredictions, truth_of
from ssl_audio.evaluation.neighbours import choose_neighbours, nearest_scores
from ssl_audio.evaluation.predictions import Predictions, predict_part
from ssl_audio.model.backbone import Backbone
from ssl_audio.objectives.classification import Classification
from ssl_audio.objectives.heads import Standardised
from ssl_audio.objectives.linear_fit import PENALTIES, fit_linear
from ssl_audio.objectives.pooling import QueryPooling
from ssl_audio.objectives.returned import checked_answer
from ssl_audio.tokens import pool
from ssl_audio.training.averaging import WeightAverage
from ssl_audio.training.checkpointing import Checkpoints
from ssl_audio.training.finetuning import Finetuning
from ssl_audio.training.loading import load_training
from ssl_audio.training.module import joined_frames

Weights = dict[str, torch.Tensor]

_MOST_CLIPS_MEASURED = 2000
_COPIES = 2


def measure_statistics(backbone: Backbone, part: Part, data: LabelledShards) -> None:
    """Set the normalisation to the mean and standard deviation of training clips, taken at equal distances."""
    rows = np.linspace(0, len(part) - 1, min(len(part), _MOST_CLIPS_MEASURED)).astype(int)
    few = part.select(rows)
    moments = Moments()
    with torch.inference_mode():
        for batch in data.every(few, replacing=True):
            moments.update(backbone.frontend.unnormalised(batch.waveforms, batch.samples))
    backbone.frontend.set_statistics(moments.mean, moments.std)


def begin_at_probe(module: Finetuning, data: LabelledShards) -> float:
    """Fit the head as a linear probe of the training clips; returns its validation score.

    The clips are used both unchanged and augmented as in training, so that the head also knows masked spectrograms.
    """
    head, parts = classifier(module).head, data.parts
    if not isinstance(head.norm, Standardised) or head.attend is not None:
        raise RecipeError(
            "model.head.begin=probe fits a linear layer to what is pooled; expected model.head.norm=batch and a "
            f"pooling without weights; found norm={module.options.norm}, pooling={module.options.pooling}"
        )
    module.eval()
    with torch.inference_mode():
        batches, answers = zip(
            *(
                (_pooled(module, batch.to(module.device)), targets_of(batch))
                for batch in data.every(parts.train, replacing=True)
            ),
            strict=True,
        )
        # The backbone does not change here, so validation clips pass through it once.
        choosing = torch.cat(
            [_pooled(module, batch.to(module.device), copies=0)[0] for batch in data.every(parts.valid)]
        )
    # (batch, copy) to one row a clip and copy
    features = torch.cat([torch.cat(copies) for copies in zip(*batches, strict=True)])
    targets = np.concatenate(answers * len(batches[0]))
    head.norm.fix(features)
    rows, choosing = head.norm(features).numpy(), head.norm(choosing)
    measure = module.measure
    assert measure is not None
    best, chosen = -1.0, head.linear.state_dict()
    for penalty in PENALTIES:
        weight, bias = fit_linear(rows, targets, several=data.several, C=penalty)
        fitted = {"weight": torch.from_numpy(weight).float(), "bias": torch.from_numpy(bias).float()}
        head.linear.load_state_dict(fitted)
        with torch.inference_mode():
            score = float(np.nan_to_num(measure(head.linear(choosing).numpy(), parts.valid.targets)))
        if score > best:
            best, chosen = score, fitted
    head.linear.load_state_dict(chosen)
    return best


def begin_at_blocks(module: Finetuning) -> None:
    """Begin the attention of the pooling at those of the encoder's blocks.

    Raises:
        RecipeError: if the head or the encoder has none.
    """
    attend = classifier(module).head.attend
    if not isinstance(attend, QueryPooling):
        raise RecipeError(
            "model.head.begin is blocks, which begins the attention of a query; found "
            f"pooling={module.options.pooling}, expected model.head.pooling=query"
        )
    attend.begin_at_blocks(module.backbone.encoder)


def _pooled(module: Finetuning, batch: Batch, *, copies: int = _COPIES) -> list[torch.Tensor]:
    """Inputs of the head for a batch: of the unchanged clips, then of each augmented copy."""
    plain = module.backbone.spectrogram(batch.waveforms, batch.samples)
    seen = [plain, *(module.augmentation.disturb(plain, batch.seeds + copy) for copy in range(1, 1 + copies))]
    return [classifier(module).pooled(module.backbone, one).float().cpu() for one in seen]


def targets_of(batch: Batch) -> np.ndarray:
    """Which labels each clip of a labelled batch has."""
    assert batch.targets is not None
    return batch.targets.numpy() > 0


def classifier(module: Finetuning) -> Classification:
    """The classification that a module trains, without its teacher.

    Raises:
        RecipeError: if its objective is another one, which has no head of that kind.
    """
    found = module.objective.answering
    if not isinstance(found, Classification):
        raise RecipeError(
            f"model.head.begin=probe and model.head.kind=knn need Classification; found {type(found).__name__}"
        )
    return found


def answer_of(module: Finetuning, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The module's logits of unaugmented clips, and of their frames if it gives any.

    Raises:
        RecipeError: if its objective gives no scores of clips.
    """
    answer = module.objective.predict(module.backbone, module.backbone.spectrogram(batch.waveforms, batch.samples))
    labels = None if batch.targets is None else batch.targets.shape[1]
    answer = checked_answer(module.objective, answer, clips=len(batch.keys), labels=labels)
    assert answer.clips is not None
    return answer.clips, answer.frames


def predict(
    module: Finetuning, data: LabelledShards, part: Part, *, noisy: bool = False, **options: Any
) -> Predictions:
    """The module's predictions for every clip of a part; of frames, too, where labels are located in time.

    Args:
        module: What predicts.
        data: Where clips are from.
        part: Which.
        noisy: Test clips have noise under them.
        options: Of `predict_part`.
    """
    module.eval()
    frames: list[np.ndarray] = []

    def logits(batch: Batch) -> torch.Tensor:
        clips, located = answer_of(module, batch)
        if located is not None and data.located:
            frames.append(located.float().sigmoid().cpu().numpy())
        return clips

    found = predict_part(
        logits,
        data.every(part, noisy=noisy),
        part,
        data.parts.labels,
        several=data.several,
        device=module.device,
        **options,
    )
    if not frames:
        return found
    assert data.frame_seconds is not None
    truth = truth_of(data.truth(part), crop_seconds=data.crop_seconds)
    return EventPredictions.beside(found, joined_frames(frames), data.frame_seconds, truth)


def copied(module: Finetuning) -> Weights:
    """A copy of the current weights, which training does not change."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def choose(
    trainer: L.Trainer, module: Finetuning, data: LabelledShards, *, probe: Weights | None = None
) -> tuple[float, str, float]:
    """Load the weights with the best validation score: of the last step, the best epoch, the mean, or the probe.

    Returns:
        Their score, their name, and the score after the last step.
    """
    last = copied(module)
    candidates = {"last step": last}
    if probe is not None:
        candidates["probe"] = probe
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Checkpoints) and (best := callback.best_path) is not None:
            candidates["best epoch"] = load_training(best, None)["state_dict"]
        if isinstance(callback, WeightAverage) and callback.count > 1:
            candidates[f"mean of {callback.count} epochs"] = {**last, **callback.mean}
    scores = {}
    for name, weights in candidates.items():
        module.load_state_dict(weights)
        scores[name] = predict(module, data, data.parts.valid).choice
    # Of equal scores the mean wins, because it is the smoother function, then the best epoch.
    chosen = max(scores, key=lambda name: (scores[name], name.startswith("mean"), name == "best epoch"))
    module.load_state_dict(candidates[chosen])
    return scores[chosen], chosen, scores["last step"]


def neighbours(module: Finetuning, data: LabelledShards) -> tuple[Predictions, float, str]:
    """Classify by the nearest training clips, without training; their number is selected on validation."""
    module.eval()
    found = classifier(module)

    def embed(batch: Any) -> torch.Tensor:
        if found.head.attend is not None:  # untrained attention weights
            return pool(module.backbone(batch.waveforms, batch.samples))
        return found.pooled(module.backbone, module.backbone.spectrogram(batch.waveforms, batch.samples))

    def embeddings(part: Part, *, replacing: bool = False) -> tuple[Any, Any]:
        vectors, answers = [], []
        with torch.inference_mode():
            for batch in data.every(part, replacing=replacing):
                vectors.append(embed(batch.to(module.device)).float().cpu())
                answers.append(targets_of(batch))
        return torch.cat(vectors).numpy(), np.concatenate(answers)

    parts = data.parts
    (known, answers), (choosing, _) = embeddings(parts.train, replacing=True), embeddings(parts.valid)
    number = choose_neighbours(choosing, parts.valid.targets, known, answers, several=data.several)

    def answer(queries: Any, part: Part) -> Predictions:
        return Predictions(
            labels=parts.labels,
            several=data.several,
            keys=np.array([str(key) for key in part.index.key]),
            scores=nearest_scores(queries, known, answers, neighbours=number),
            targets=part.targets,
            speakers=part.speakers,
        )

    valid = answer(choosing, parts.valid).headline
    return answer(embeddings(parts.test)[0], parts.test), valid, f"{number} neighbours"
