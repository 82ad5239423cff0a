"""What merging tokens costs in score and brings in speed: after training, after short re-training, and distilled."""

import copy
import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.checkpoints.huggingface_teacher import HuggingFaceTeacher
from ssl_audio.data.batch import Batch, collate
from ssl_audio.data.facts import Facts
from ssl_audio.evaluation.encoder_benchmark import encoder_of
from ssl_audio.evaluation.small_models import Clips, Task, correct, small_encoder, spectrogram_of, train
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import Encoder
from ssl_audio.objectives import Answer, Classification, Distillation, HeadOptions, Objective, Teacher

SHIFT = 0.010


class KnownScores(Teacher):
    """Gives the scores that a teacher gave each whole training clip, found once before training.

    Args:
        logits: Of every training clip.

    Differs: the published teacher hears the student's augmented input; here the student hears random stretches.
    """

    def __init__(self, logits: Float[Tensor, "clip label"]) -> None:
        super().__init__()
        self.logits = logits

    def attach(self, backbone: Backbone, objective: Objective, facts: Facts) -> None:
        """Nothing is made."""

    def answer(self, batch: Batch, spectrogram: Spectrogram) -> Answer:
        assert batch.clip_numbers is not None
        return Answer(clips=self.logits[batch.clip_numbers])


def teach(
    folder: Path, task: Task, *, layer: int | None, seconds: float | None
) -> tuple[Float[Tensor, "clip label"], float]:
    """Scores of every training clip by a folder of Hugging Face with a linear layer fitted to them, and its accuracy
    on the test clips.

    The layer that scores a training clip is fitted to the other four fifths of them, so that it says what it would say
    of clips that it does not know.
    """
    backbone = Backbone(frontend=Fbank(), encoder=small_encoder("transformer"))
    reader = HuggingFaceTeacher(folder=folder, layer=layer, seconds=seconds)
    reader.attach(backbone, Classification(), task.facts)
    known, unknown = _features(reader, task.train), _features(reader, task.test)
    places = np.random.default_rng(0).permutation(len(task.train)) % 5
    scores = torch.zeros(len(task.train), len(task.facts.labels))
    for part in range(5):
        rest = torch.from_numpy(places != part)
        reader.fit(known[rest], task.train.targets[rest])
        scores[~rest] = reader.scores(known[~rest])
    reader.fit(known, task.train.targets)
    right = reader.scores(unknown).argmax(dim=1) == task.test.targets.argmax(dim=1)
    return scores, float(right.float().mean())


def _features(teacher: HuggingFaceTeacher, clips: Clips, *, batch: int = 8) -> Float[Tensor, "clip feature"]:
    found = []
    for start in range(0, len(clips), batch):
        rows = [[waveform.numpy()] for waveform in clips.waveforms[start : start + batch]]
        numbers = range(len(rows))
        found.append(teacher.features(collate(rows, [[0]] * len(rows), [str(number) for number in numbers])))
    return torch.cat(found)


@dataclasses.dataclass(frozen=True, slots=True)
class Merged:
    """What one way of training came to.

    Args:
        after: Of each r, the test clips that each seed recognises without further training.
        again: The same after a short training with that r; that with r=0 shows what the training does by itself.
    """

    after: dict[int, Bool[np.ndarray, "seed clip"]]
    again: dict[int, Bool[np.ndarray, "seed clip"]]


def scores_by_r(
    task: Task,
    encoder: str,
    *,
    counts: Sequence[int],
    seeds: int,
    steps: int,
    steps_again: int,
    seconds: float,
    patch: tuple[int, int],
    taught: Float[Tensor, "clip label"] | None,
    say: Callable[[str], Any],
) -> tuple[Merged, Backbone, Objective]:
    """Clips recognised with r tokens merged in a block, and the last model.

    Args:
        task: The clips.
        encoder: `transformer` or `bimamba`.
        counts: Values of r; the first training merges none.
        seeds: Trainings.
        steps: Batches of each.
        steps_again: Batches of the short training with each r, from the weights of the first.
        seconds: Length of training stretches.
        patch: Bins and frames of a patch.
        taught: Scores of a teacher for the training clips; None trains on labels alone.
        say: Is told what was trained.
    """
    after: dict[int, list[np.ndarray]] = {r: [] for r in counts}
    again: dict[int, list[np.ndarray]] = {r: [] for r in counts}
    for seed in range(seeds):
        torch.manual_seed(seed)
        backbone = Backbone(frontend=Fbank(), encoder=small_encoder(encoder), patch=patch, position_frames=512)
        objective: Objective = Classification(head=HeadOptions(pooling="bands", norm="batch"))
        if taught is not None:
            objective = Distillation(objective=objective, teacher=KnownScores(taught), tempered="teacher")
        objective.attach(backbone, task.facts)
        learn = partial(
            train,
            task=task,
            seed=seed,
            draw_seconds=lambda draws, count: [seconds] * count,
            draw_shifts=lambda draws, count: [SHIFT] * count,
        )
        learn(backbone, objective, steps=steps)
        for r in counts:
            backbone.merge(r)
            after[r].append(correct(backbone, objective, task, seconds=seconds))
            tuned, its = copy.deepcopy((backbone, objective))
            tuned.merge(r)
            learn(tuned, its, steps=steps_again, rate=3e-4)
            again[r].append(correct(tuned, its, task, seconds=seconds))
        backbone.merge(0)
        told = [f"r={r} {after[r][-1].mean():.2f}/{again[r][-1].mean():.2f}" for r in counts]
        say(f"{encoder}{' distilled' if taught is not None else ''} seed {seed}: {', '.join(told)}")
    stacked = [{r: np.stack(rows) for r, rows in found.items()} for found in (after, again)]
    return Merged(*stacked), backbone, objective


@dataclasses.dataclass(frozen=True, slots=True)
class Speed:
    """Medians over the rounds.

    Args:
        seconds: From beginning to end.
        cpu_seconds: Of all threads, which does not count what else the machine does.
    """

    seconds: float
    cpu_seconds: float


def speeds(
    backbone: Backbone, objective: Objective, task: Task, *, counts: Sequence[int], seconds: float, rounds: int
) -> dict[int, Speed]:
    """Time for a test clip with r tokens merged in a block, from the spectrogram to the scores, in turn."""
    numbers = range(min(16, len(task.test)))
    count = len(numbers)
    shown = spectrogram_of(task, task.test, numbers, [0.0] * count, [seconds] * count, [SHIFT] * count)
    times = _in_turn(backbone, objective, lambda: shown, counts=counts, rounds=rounds)
    return {r: Speed(each.seconds / count, each.cpu_seconds / count) for r, each in times.items()}


def long_clip(contender: str, *, width: int, counts: Sequence[int], rounds: int) -> dict[int, Speed]:
    """Time for a clip end to end, from the waveform to the scores of 527 labels, of AST's 1,212 patches and two class
    tokens, with r tokens merged in a block.

    Args:
        contender: `transformer` or `bimamba`, of the published depth.
        width: Channels of a token.
        counts: Values of r.
        rounds: How often each is timed.
    """
    torch.manual_seed(0)
    encoder = encoder_of(contender, width)
    assert isinstance(encoder, Encoder)
    backbone = Backbone(frontend=Fbank(), encoder=encoder, stride=(10, 10), class_tokens=2)
    objective = Classification()
    objective.attach(backbone, Facts(labels=tuple(map(str, range(527))), several=True, crop_seconds=10.24))
    waveforms = torch.randn(1, 16000 * 1024 // 100 + 240) * 0.1
    assert backbone.embed(backbone.cut(backbone.spectrogram(waveforms))).clip.shape[1] == 1214
    return _in_turn(backbone, objective, lambda: backbone.spectrogram(waveforms), counts=counts, rounds=rounds)


def _in_turn(
    backbone: Backbone, objective: Objective, shown: Callable[[], Spectrogram], *, counts: Sequence[int], rounds: int
) -> dict[int, Speed]:
    backbone.eval()
    objective.eval()

    @torch.inference_mode()
    def answer(r: int) -> None:
        backbone.merge(r)
        objective.predict(backbone, shown())

    seconds: dict[int, list[tuple[float, float]]] = {r: [] for r in counts}
    for turn in range(rounds + 1):  # in turn, after one warm-up each
        for r in counts:
            wall, cpu = time.perf_counter(), time.process_time()
            answer(r)
            if turn:
                seconds[r].append((time.perf_counter() - wall, time.process_time() - cpu))
    backbone.merge(0)
    return {r: Speed(*(statistics.median(each) for each in zip(*spent, strict=True))) for r, spent in seconds.items()}
