"""Frames and labels of an endless sound that comes in blocks of any size."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal, SupportsFloat

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ssl_audio.audio.resampling import ResamplingStream
from ssl_audio.errors import AudioError, RecipeError
from ssl_audio.evaluation.checkpoint_modules import CheckpointModules
from ssl_audio.evaluation.events.deciding import decision_in
from ssl_audio.evaluation.events.tracking import EventTracker, StreamEvent
from ssl_audio.evaluation.windows import Grid, check_finite
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.streaming import BackboneStream, Columns, refusal
from ssl_audio.objectives.event_detection import EventDetection
from ssl_audio.objectives.frame_states import Bands
from ssl_audio.objectives.objective import Objective
from ssl_audio.tokens import Tokens

Way = Literal["auto", "exact", "windows"]


@dataclasses.dataclass(frozen=True, slots=True)
class StretchLabels:
    """What is said of a stretch of a stream.

    Args:
        start: Where it begins, in seconds since the begin of the stream.
        end: Where it ends.
        probabilities: Of the labels.
    """

    start: float
    end: float
    probabilities: Float[Tensor, " label"]


@dataclasses.dataclass(frozen=True, slots=True)
class StreamOutput:
    """What the last block completed.

    Args:
        states: One vector for every patch column.
        seconds: Their centres.
        stretches: Stretches that ended, with their labels; none without a head.
        scores: Probabilities of the labels in the frames of `hop_seconds` that a head for sound events scores; None
            without such a head.
        events: Sound events that ended, and such that began (without an offset), in the order of time.
    """

    states: Float[Tensor, "frame width"]
    seconds: Float[Tensor, " frame"]
    stretches: list[StretchLabels]
    scores: Float[Tensor, "scored label"] | None = None
    events: list[StreamEvent] = dataclasses.field(default_factory=list)


class _Engine(ABC):
    """Sound at the backbone's rate to states and labels."""

    delay: float

    @abstractmethod
    def feed(self, waveform: Float[Tensor, " sample"]) -> Iterator[StreamOutput]:
        """What the next samples complete."""

    @abstractmethod
    def finish(self) -> Iterator[StreamOutput]:
        """What is left at the end."""


class SoundStream:
    """An endless sound through a checkpoint: frames with times, label probabilities and sound events as they come.

    What is given back depends on the sound, not on the blocks that it comes in. Memory does not grow.

    Args:
        modules: Of the checkpoint.
        sample_rate: Of the blocks.
        every_seconds: Labels are given for stretches of this length, one after the other; rounded to whole chunks.
        window_seconds: How much sound up to its end a stretch has its labels from, no less than the stretch. Exact
            streams pool the states of so much, and by default those of the stretch alone, which carry what was before;
            windows are computed from so much, by default as much as the backbone has positions for.
        way: `exact` gives the states of a whole pass, for encoders that were trained so that a stream can; `windows`
            computes overlapping windows, for all others; `auto` is `exact` where it can be.
        bands: As `Pretrained` has it.
        states: Whether states are wanted; without them `windows` is faster.
        ahead_seconds: How much sound behind it a stretch waits for in `windows`, so that its last frames have seen what
            comes after them: less is lost at the borders, and everything comes so much later.

    Attributes:
        exact: Whether states are those of a whole pass.
        delay_seconds: A frame is given at most this long after its sound began, beside what computing takes.
        refusal: Why it is not exact; None if it is.
        event_refusal: Why it gives no sound events; None if it does.
        event_delay_seconds: The begin or end of a sound event is given at most this long after it.

    Raises:
        AudioError: if the rate is none.
        RecipeError: if it is to be exact and cannot; the message says why.
    """

    def __init__(
        self,
        modules: CheckpointModules,
        *,
        sample_rate: SupportsFloat,
        every_seconds: float = 1.0,
        window_seconds: float | None = None,
        way: Way = "auto",
        bands: Bands = "mean",
        states: bool = True,
        ahead_seconds: float = 0.0,
    ) -> None:
        if not every_seconds > 0:
            raise RecipeError(f"every_seconds is {every_seconds}; expected seconds above 0")
        if not ahead_seconds >= 0:
            raise RecipeError(f"ahead_seconds is {ahead_seconds}; expected seconds, 0 or more")
        backbone, objective = modules.backbone, modules.objective
        self.refusal = _refusal(backbone, objective)
        if way == "windows":
            self.refusal = "overlapping windows were asked for"
        elif way == "exact" and self.refusal is not None:
            raise RecipeError(f"stream: {self.refusal}; or take overlapping windows (way: windows)")
        self.exact = self.refusal is None
        if self.exact and ahead_seconds:
            raise RecipeError(
                f"ahead_seconds is {ahead_seconds}, and this stream is exact, which sees ahead to the end of its "
                "chunks and no further; expected 0, or way windows"
            )
        self.width = backbone.width * (backbone.bands if bands == "apart" else 1)
        self._rate = ResamplingStream(have=sample_rate, want=backbone.frontend.sample_rate)
        self._samples = 0
        options = _Options(modules, every_seconds, bands == "apart", states)
        self._options = options
        self._engine: _Engine = (
            _Exact(options, window_seconds) if self.exact else _Windows(options, window_seconds, ahead_seconds)
        )
        self._tracker, self.event_refusal = _tracker(modules)
        self._rated = 0  # samples at the backbone's rate

    @property
    def event_delay_seconds(self) -> float:
        """See the class."""
        return self.delay_seconds + (0.0 if self._tracker is None else self._tracker.delay_seconds)

    @property
    def delay_seconds(self) -> float:
        """See the class."""
        return self._engine.delay

    def feed(self, block: Tensor | np.ndarray) -> StreamOutput:
        """What the next samples complete.

        Args:
            block: Mono, any number of samples; float in [-1, 1], or int16.

        Raises:
            AudioError: if it has several channels, or holds NaN or infinity.
        """
        samples = torch.as_tensor(block)
        if samples.ndim != 1:
            raise AudioError(f"a block has the shape {tuple(samples.shape)}; expected (samples): one channel")
        if samples.dtype == torch.int16:
            samples = samples.float() / 32768.0
        elif not samples.is_floating_point():
            raise AudioError(f"a block holds {samples.dtype}; expected floats in [-1, 1], or int16")
        check_finite(f"the block after {self._samples} samples", samples)
        self._samples += len(samples)
        return self._joined(self._engine.feed(self._rated_of(self._rate.feed(samples.float()))), end=False)

    def finish(self) -> StreamOutput:
        """What is left at the end of the sound; the stream takes no more."""
        last = list(self._engine.feed(self._rated_of(self._rate.finish())))
        return self._joined(iter([*last, *self._engine.finish()]), end=True)

    def _rated_of(self, waveform: Float[Tensor, " sample"]) -> Float[Tensor, " sample"]:
        self._rated += len(waveform)
        return waveform

    def _joined(self, found: Iterator[StreamOutput], *, end: bool) -> StreamOutput:
        parts = list(found)
        states = torch.cat([torch.zeros(0, self.width), *(part.states for part in parts)])
        seconds = torch.cat([torch.zeros(0), *(part.seconds for part in parts)])
        stretches = [one for part in parts for one in part.stretches]
        scored = [part.scores for part in parts if part.scores is not None]
        scores = torch.cat(scored) if scored else None
        events: list[StreamEvent] = []
        if self._tracker is not None:
            rows = np.zeros((0, len(self._options.modules.labels))) if scores is None else scores.numpy()
            if end:
                rate = self._options.grid.rate
                events = self._tracker.finish(rows, seconds=self._rated / rate)
            else:
                events = self._tracker.feed(rows)
        return StreamOutput(states, seconds, stretches, scores, events)


@dataclasses.dataclass(frozen=True, slots=True)
class _Options:
    modules: CheckpointModules
    every_seconds: float
    apart: bool
    states: bool

    @property
    def backbone(self) -> Backbone:
        return self.modules.backbone

    @property
    def grid(self) -> Grid:
        return self.modules.grid

    def every(self, together: int) -> int:
        """Columns of a stretch, in whole chunks."""
        return max(1, round(self.every_seconds / self.backbone.column_seconds / together)) * together

    def stretch(self, first: int, end: int, logits: Float[Tensor, "one label"]) -> StretchLabels:
        """The labels of the columns from one to before another."""
        grid = self.grid
        found = logits.sigmoid() if self.modules.several else logits.softmax(dim=1)
        return StretchLabels(
            first * grid.step / grid.rate, ((end - 1) * grid.step + grid.reach) / grid.rate, found[0].float().cpu()
        )

    def states_of(self, states: Float[Tensor, "token channel"], count: int) -> Float[Tensor, "frame width"]:
        """States of columns from those of their tokens, in the order of time."""
        laid = states.float().view(count, self.backbone.bands, -1)
        return (laid.flatten(1) if self.apart else laid.mean(dim=1)).cpu()


def _refusal(backbone: Backbone, objective: Objective | None) -> str | None:
    """Why a stream could not be exact."""
    reason = refusal(backbone)
    return objective.sees_more() if reason is None and objective is not None else reason


def _tracker(modules: CheckpointModules) -> tuple[EventTracker | None, str | None]:
    """What makes events of the scores of frames, or why nothing does."""
    objective = modules.objective
    if not isinstance(objective, EventDetection):
        head = "it has no head" if objective is None else f"its head, {type(objective).__name__}, scores no frames"
        return None, f"{head}, so it finds no sound events; expected a checkpoint of SoundEvents"
    try:
        return EventTracker(decision_in(modules.checkpoint.task, len(modules.labels)), hop_seconds=objective.hop), None
    except RecipeError as error:
        return None, str(error)


class _Exact(_Engine):
    """The states of a whole pass; labels of a stretch from those of its columns."""

    def __init__(self, options: _Options, window_seconds: float | None) -> None:
        self.options = options
        self.stream = BackboneStream(options.backbone)
        grid, together = options.grid, self.stream.together
        self.delay = ((together - 1) * grid.step + grid.reach) / grid.rate
        self.every = options.every(together)
        self.window = max(self.every, round((window_seconds or 0.0) / options.backbone.column_seconds))
        self._kept: list[Columns] = []
        self._first = 0  # of the stretch

    def feed(self, waveform: Float[Tensor, " sample"]) -> Iterator[StreamOutput]:
        for columns in self.stream.feed(waveform):
            yield self._output(columns)

    def finish(self) -> Iterator[StreamOutput]:
        for columns in self.stream.finish():
            yield self._output(columns)
        if self._kept and self.stream.columns > self._first:
            yield self._nothing([self._labels(self.stream.columns)])

    def _nothing(self, stretches: list[StretchLabels]) -> StreamOutput:
        return StreamOutput(torch.zeros(0, self._width), torch.zeros(0), stretches)

    @property
    def _width(self) -> int:
        return self.options.backbone.width * (self.options.backbone.bands if self.options.apart else 1)

    def _output(self, columns: Columns) -> StreamOutput:
        options = self.options
        states = options.states_of(columns.tokens.states[0], columns.count)
        numbers = torch.arange(columns.first, columns.first + columns.count)
        stretches: list[StretchLabels] = []
        if options.modules.objective is not None:
            done = columns.first
            while done < columns.first + columns.count:
                end = min(columns.first + columns.count, self._first + self.every)
                self._kept.append(_part(columns, done, end, options.backbone.bands))
                done = end
                if end == self._first + self.every:
                    stretches.append(self._labels(end))
        return StreamOutput(states, options.grid.centre(numbers), stretches, self._scores(columns))

    @torch.inference_mode()
    def _scores(self, columns: Columns) -> Float[Tensor, "frame label"] | None:
        """Of the frames of columns, where a head scores frames."""
        objective = self.options.modules.objective
        if not isinstance(objective, EventDetection):
            return None
        answer = objective.answer_tokens(_from_zero(columns.tokens), [_from_zero(layer) for layer in columns.layers])
        assert answer.frames is not None
        return answer.frames[0].float().sigmoid().cpu()

    @torch.inference_mode()
    def _labels(self, end: int) -> StretchLabels:
        objective = self.options.modules.objective
        assert objective is not None
        begin = self._kept[0].first
        tokens = _joined([one.tokens for one in self._kept])
        layers = [_joined(list(found)) for found in zip(*(one.layers for one in self._kept), strict=True)]
        kept = Columns(tokens, layers, begin, end - begin)
        bands = self.options.backbone.bands
        if kept.count > self.window:
            kept = _part(kept, end - self.window, end, bands)
        answer = objective.answer_tokens(_from_zero(kept.tokens), [_from_zero(layer) for layer in kept.layers])
        assert answer is not None
        assert answer.clips is not None
        left = self.window - self.every
        self._kept = [_part(kept, max(kept.first, end - left), end, bands)] if left else []
        first, self._first = self._first, end
        return self.options.stretch(first, end, answer.clips)


def _part(columns: Columns, begin: int, end: int, bands: int) -> Columns:
    """Some of the columns."""
    place = slice((begin - columns.first) * bands, (end - columns.first) * bands)

    def cut(tokens: Tokens) -> Tokens:
        index = torch.arange(tokens.clip.shape[1], device=tokens.clip.device)[None, place]
        return tokens.take(index)

    return Columns(cut(columns.tokens), [cut(layer) for layer in columns.layers], begin, end - begin)


def _joined(parts: list[Tokens]) -> Tokens:
    """Tokens of one row after one another."""

    def fields(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts], dim=1)

    return Tokens(
        states=fields("states"),
        clip=fields("clip"),
        time=fields("time"),
        band=fields("band"),
        size=fields("size"),
        whole=True,
        clips=1,
    )


def _from_zero(tokens: Tokens) -> Tokens:
    """The same as of a clip that begins with them."""
    return dataclasses.replace(tokens, time=tokens.time - tokens.time[:, :1])


class _Windows(_Engine):
    """Each stretch from a window of sound up to its end, or so far behind it, computed again: overlapping windows."""

    def __init__(self, options: _Options, window_seconds: float | None, ahead_seconds: float) -> None:
        self.options = options
        grid = options.grid
        if window_seconds is not None:
            grid = Grid.of(options.backbone, seconds=window_seconds)
        self.columns = grid.columns
        self.ahead = round(ahead_seconds / options.backbone.column_seconds)
        if self.ahead >= self.columns:
            raise RecipeError(
                f"ahead_seconds is {ahead_seconds}, and windows last {grid.window / grid.rate:.2f} s; expected less"
            )
        self.every = min(options.every(1), self.columns - self.ahead)
        self.delay = ((self.every + self.ahead - 1) * grid.step + grid.reach) / grid.rate
        self._waiting = torch.zeros(0)
        self._begin = 0  # the column that the waiting samples begin with
        self._done = 0
        self._scored = 0  # frames

    def feed(self, waveform: Float[Tensor, " sample"]) -> Iterator[StreamOutput]:
        grid = self.options.grid
        room = self.columns * grid.step + grid.reach
        for part in waveform.split(max(1, room)):
            self._waiting = torch.cat([self._waiting, part])
            while self._available() >= self._done + self.every + self.ahead:
                yield self._advance(self._done + self.every)

    def finish(self) -> Iterator[StreamOutput]:
        available = self._available()
        while available > self._done:
            end = min(available, self._done + self.every)
            yield self._advance(end, last=end == available)

    def _available(self) -> int:
        """Columns that the sound so far completes."""
        grid = self.options.grid
        return max(0, (self._begin * grid.step + len(self._waiting) - grid.reach) // grid.step + 1)

    @torch.inference_mode()
    def _advance(self, end: int, *, last: bool = False) -> StreamOutput:
        options, grid = self.options, self.options.grid
        available = self._available()
        seen = min(available, end + self.ahead)
        first = max(0, seen - self.columns)
        start = (first - self._begin) * grid.step
        stop = None if last else (seen - 1 - self._begin) * grid.step + grid.reach
        waveform = self._waiting[start:stop][None].to(options.backbone.embedding.weight.device)
        fresh = end - self._done
        states, numbers = torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64)
        if options.states:
            tokens = options.backbone(waveform).unmerged()
            here = (tokens.time[0] >= self._done - first) & (tokens.time[0] < end - first)
            chosen = tokens.is_patch()[0] & here
            order = (tokens.time[0] * options.backbone.bands + tokens.band[0])[chosen].argsort()
            states = options.states_of(tokens.states[0][chosen][order], fresh)
            numbers = torch.arange(self._done, end)
        stretches, scores = [], None
        objective = options.modules.objective
        if objective is not None:
            answer = objective.predict(options.backbone, options.backbone.spectrogram(waveform))
            if answer is not None and answer.clips is not None:
                found = options.stretch(self._done, end, answer.clips)
                stretches.append(found)
            if answer is not None and answer.frames is not None and isinstance(objective, EventDetection):
                frames = answer.frames[0].float().sigmoid().cpu()
                scores = self._fresh(frames, first, end, objective.hop, waveform.shape[1], last=last)
        self._done = end
        # What the next window may begin with, and no more.
        keep = max(self._begin, max(end + 1, min(available, end + self.ahead)) - self.columns)
        self._waiting, self._begin = self._waiting[(keep - self._begin) * grid.step :].clone(), keep
        if not options.states:
            states = torch.zeros(0, options.backbone.width * (options.backbone.bands if options.apart else 1))
        return StreamOutput(states, grid.centre(numbers), stretches, scores)

    def _fresh(
        self,
        frames: Float[Tensor, "frame label"],
        first: int,
        end: int,
        hop: float,
        samples: int,
        *,
        last: bool,
    ) -> Float[Tensor, "fresh label"]:
        """Scores of the frames up to that of a column, less those that were given before.

        Args:
            frames: Scores of a window.
            first: The column that it begins with.
            end: The column.
            hop: Length of a frame.
            samples: Of the window; frames that lie wholly behind it are padding.
            last: The sound ends here, so that all of them are given.
        """
        grid = self.options.grid

        def frame(column: int) -> int:
            return round(column * grid.step / grid.rate / hop)

        count = min(len(frames), max(1, -(-samples // max(1, round(hop * grid.rate)))))
        upto = frame(first) + count if last else min(frame(end), frame(first) + count)
        # A frame that no window has, by rounding, is taken as its neighbour.
        chosen = (torch.arange(self._scored, max(self._scored, upto)) - frame(first)).clamp(0, count - 1)
        self._scored = max(self._scored, upto)
        return frames[chosen]
