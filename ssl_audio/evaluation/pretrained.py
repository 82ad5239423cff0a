"""A checkpoint that embeds and labels sound."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, SupportsFloat

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ssl_audio.audio.files import decode, probe
from ssl_audio.audio.reading import AS_USUAL, Findings, Reading
from ssl_audio.audio.resampling import ratio_of, resample
from ssl_audio.checkpoints.adapters_only import base_of
from ssl_audio.checkpoints.base import Base, tensors_digest
from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.checkpoints.opening import adapters_on, base_behind, open_checkpoint
from ssl_audio.checkpoints.sizes import NO_HINTS, Hints
from ssl_audio.errors import AudioError, CheckpointError, RecipeError
from ssl_audio.evaluation.checkpoint_modules import CheckpointModules, adapted, modules_of
from ssl_audio.evaluation.streaming import SoundStream, Way
from ssl_audio.evaluation.windows import Grid, Sound, Window, batches_of, crossfade, padded, windows_of
from ssl_audio.model.backbone import Backbone
from ssl_audio.names import printable
from ssl_audio.objectives.event_detection import EventDetection
from ssl_audio.objectives.objective import Objective
from ssl_audio.tokens import Tokens

Waveforms = Tensor | np.ndarray | Sequence[Tensor | np.ndarray]
"""One waveform, a batch with one a row, or a list of any lengths; float in [-1, 1], or int16."""


class Pretrained:
    """A backbone with its weights, and its head if it was fine-tuned.

    Recordings longer than the backbone's positions are taken in windows that overlap by half, whose states fade into
    one another; memory follows the window, not the recording.

    Args:
        checkpoint: Where it comes from.
        device: Where to compute.
        window_seconds: Length of a window; None takes as much as the backbone has positions for.
        batch_windows: So many windows at a time.
        bands: An embedding holds the `mean` over the patches of a column, or the states of each band `apart`, side by
            side: longer vectors that tell frequencies apart, and the better ones for a linear classifier.
        merge: Tokens that each window loses in a block of the encoder that merges (`Merging`): faster, and less exact;
            None as the checkpoint says.
        pack: Tokens of the rows that windows of unequal lengths share: faster, and the same to rounding; None as the
            checkpoint says.

    Source:
        arXiv 2204.12260, section 3.2 (bands side by side).

    Several adapter checkpoints on one base are switched without loading it again:
    `encoder.load("esc50", path)`, `encoder.use("esc50")`, `encoder.use(None)`.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: torch.device | str = "cpu",
        window_seconds: float | None = None,
        batch_windows: int = 16,
        bands: Literal["mean", "apart"] = "mean",
        merge: int | None = None,
        pack: int | None = None,
    ) -> None:
        self.device = usable_device(device)
        self.window_seconds = window_seconds
        self.batch_windows = batch_windows
        self.bands = bands
        self.merge = merge
        self.pack = pack
        self._modules = modules_of(
            checkpoint, device=self.device, window_seconds=window_seconds, merge=merge, pack=pack
        )
        self._modules_by_name: dict[str | None, CheckpointModules] = {None: self._modules}
        self._base: tuple[Checkpoint, Base] | None = None

    @property
    def checkpoint(self) -> Checkpoint:
        """Where what is in use comes from."""
        return self._modules.checkpoint

    @property
    def backbone(self) -> Backbone:
        """Waveform to token states."""
        return self._modules.backbone

    @property
    def head(self) -> Objective | None:
        """What answers; None if it was not fine-tuned."""
        return self._modules.objective

    @property
    def modules(self) -> CheckpointModules:
        """What is in use, as modules."""
        return self._modules

    @property
    def grid(self) -> Grid:
        """How recordings are cut into windows."""
        return self._modules.grid

    @property
    def labels(self) -> list[str]:
        """Names of what the head tells apart; empty without a head."""
        return self._modules.labels

    @property
    def frame_hop(self) -> float | None:
        """Length of the frames that the head scores; None if it scores none."""
        return self.head.hop if isinstance(self.head, EventDetection) else None

    @property
    def several(self) -> bool:
        """Whether a clip may have several labels."""
        return self._modules.several

    def load(self, name: str, path: str | Path) -> None:
        """Read an adapter checkpoint of this base, for `use`; the base is neither read nor kept a second time.

        Args:
            name: What to call it; one of that name is replaced.
            path: Its file, or a folder of peft's.

        Raises:
            CheckpointError: if it is no adapter checkpoint, or of another base.
        """
        first = self._modules_by_name[None]
        if self._base is None:
            whole = base_behind(first.checkpoint)
            self._base = (whole, first.checkpoint.base or base_of(whole))
        base, known = self._base
        alone = adapters_on(Path(path), base, known)
        using = self._modules is self._modules_by_name.get(name)
        self._modules_by_name[name] = adapted(
            first, alone, base, window_seconds=self.window_seconds, merge=self.merge, pack=self.pack
        )
        if using:
            self.use(name)

    def use(self, name: str | None) -> None:
        """Compute with an adapter checkpoint that was loaded, its head, labels, positions and statistics; None goes
        back to the encoder as it was opened.

        Raises:
            RecipeError: if none of that name was loaded.
        """
        if name not in self._modules_by_name:
            known = ", ".join(sorted(one for one in self._modules_by_name if one is not None)) or "none as yet"
            raise RecipeError(f"no adapter {name!r} was loaded; loaded: {known} (None is the encoder itself)")
        self._modules = self._modules_by_name[name]

    def name_labels(self, names: Sequence[str]) -> None:
        """Give the head's labels their names, which a published checkpoint does not hold.

        Raises:
            CheckpointError: if there are more or fewer than the head tells apart, or some twice.
        """
        if len(names) != len(self.labels) or len(set(names)) != len(names):
            raise CheckpointError(
                f"{self.checkpoint.path}: tells {len(self.labels)} labels apart; expected as many different names, "
                f"found {len(names)}, {len(set(names))} of them different"
            )
        self._modules.labels = list(names)

    @property
    def digest(self) -> str:
        """sha256 of its weights and of what they are made into, wherever its file lies."""
        merged = [] if self.merge is None else [self.merge]
        made = json.dumps([self.checkpoint.spec, self.checkpoint.task, *merged], sort_keys=True, default=str)
        return hashlib.sha256(f"{tensors_digest(self.checkpoint.weights)} {made}".encode()).hexdigest()

    @property
    def width(self) -> int:
        """Channels of an embedding."""
        return self.backbone.width * (self.backbone.bands if self.bands == "apart" else 1)

    @property
    def sample_rate(self) -> int:
        """The rate that everything is brought to."""
        return self.grid.rate

    def embed(self, waveforms: Waveforms, *, sample_rate: SupportsFloat) -> Float[Tensor, "clip width"]:
        """One vector a clip: the mean of its patch columns.

        Args:
            waveforms: One waveform, a batch or a list; see `Waveforms`.
            sample_rate: Of the waveforms.

        Raises:
            AudioError: if a clip is shorter than one frame (25 ms), or holds NaN or infinity.
            CheckpointError: if the weights are so large that what they give is not finite.
        """
        return torch.stack(list(self.vectors(self.sounds(waveforms, sample_rate))))

    def embed_frames(
        self, waveforms: Waveforms, *, sample_rate: SupportsFloat
    ) -> tuple[Float[Tensor, "clip frame width"], Float[Tensor, " frame"]]:
        """One vector for every patch column of every clip, and the columns' centres.

        Args:
            waveforms: One waveform, a batch or a list; see `Waveforms`.
            sample_rate: Of the waveforms.

        Returns:
            States, NaN beyond a shorter clip's end; and seconds.

        Raises:
            AudioError: if a clip is shorter than one frame (25 ms), or holds NaN or infinity.
            CheckpointError: if the weights are so large that what they give is not finite.
        """
        found = [states for states, _ in self.frames(self.sounds(waveforms, sample_rate))]
        longest = max(len(states) for states in found)
        joined = torch.full((len(found), longest, self.width), float("nan"))
        for row, states in zip(joined, found, strict=True):
            row[: len(states)] = states
        return joined, self.grid.centre(torch.arange(longest))

    def predict(self, waveforms: Waveforms, *, sample_rate: SupportsFloat) -> Float[Tensor, "clip label"]:
        """Probabilities of the labels; of long recordings the mean over their windows.

        Raises:
            CheckpointError: if the checkpoint has no head, or its weights give what is not finite.
        """
        return torch.stack(list(self.probabilities(self.sounds(waveforms, sample_rate))))

    def stream(
        self,
        *,
        sample_rate: SupportsFloat,
        every_seconds: float = 1.0,
        window_seconds: float | None = None,
        way: Way = "auto",
        states: bool = True,
        ahead_seconds: float = 0.0,
    ) -> SoundStream:
        """Frames, labels and sound events of a sound that comes in blocks of any size, and may have no end: `feed` and
        `finish`.

        Args:
            sample_rate: Of the blocks.
            every_seconds: See `SoundStream`, as for the following.
            window_seconds: How much sound a window has, where windows are computed.
            way: Exact, or overlapping windows.
            states: Whether states are wanted.
            ahead_seconds: How much sound behind it a stretch waits for, where windows are computed.

        Raises:
            AudioError: if the rate is none.
            RecipeError: if it is to be exact and cannot.
        """
        return SoundStream(
            self._modules,
            sample_rate=sample_rate,
            every_seconds=every_seconds,
            window_seconds=self.window_seconds if window_seconds is None else window_seconds,
            way=way,
            bands=self.bands,
            states=states,
            ahead_seconds=ahead_seconds,
        )

    def sounds(self, waveforms: Waveforms, sample_rate: SupportsFloat) -> list[Sound]:
        """Recordings in memory, at the backbone's rate."""
        rows = _rows(waveforms)
        return [_in_memory(f"clip {number}", row, sample_rate, self.sample_rate) for number, row in enumerate(rows)]

    def file(self, path: Path, *, reading: Reading = AS_USUAL, findings: Findings | None = None) -> Sound:
        """A recording on disk, of which only windows are read.

        Args:
            path: Where it lies.
            reading: How it is read where there is a choice.
            findings: Takes what is found in it.

        Raises:
            AudioError: if it is no audio.
        """
        information = probe(path, reading=reading)
        rate = self.sample_rate
        samples = max(1, round(information.frames / ratio_of(have=information.sample_rate, want=rate)))

        def read(start: int, count: int) -> Tensor:
            waveform = decode(
                path, sample_rate=rate, start=start / rate, seconds=count / rate, reading=reading, findings=findings
            )
            return torch.from_numpy(waveform)

        return Sound(printable(str(path)), samples, read)

    def frames(self, sounds: Iterable[Sound]) -> Iterator[tuple[Float[Tensor, "frame width"], Float[Tensor, " frame"]]]:
        """States and centres of the patch columns of each recording, one recording after the other."""
        found: list[Tensor] = []
        for states, last in self._stretches(sounds):
            found.append(states)
            if last:
                whole = torch.cat(found)
                yield whole, self.grid.centre(torch.arange(len(whole)))
                found = []

    def vectors(self, sounds: Iterable[Sound]) -> Iterator[Float[Tensor, " width"]]:
        """The mean over the patch columns of each recording; none of them is kept."""
        total, count = torch.zeros(self.width, dtype=torch.float64), 0
        for states, last in self._stretches(sounds):
            total += states.sum(dim=0, dtype=torch.float64)
            count += len(states)
            if last:
                yield (total / count).float()
                total, count = torch.zeros_like(total), 0

    def _stretches(self, sounds: Iterable[Sound]) -> Iterator[tuple[Float[Tensor, "_ width"], bool]]:
        """States of the patch columns that no further window covers, and whether they are a recording's last."""
        begin, total, weight = 0, torch.zeros(0, self.width), torch.zeros(0, 1)
        for windows in batches_of(windows_of(sounds, self.grid), self.batch_windows):
            states = self._columns(windows)
            for window, found in zip(windows, states, strict=True):
                done = window.column - begin
                if done:
                    yield total[:done] / weight[:done], False
                fade = crossfade(len(found), first=not window.column, last=window.last)[:, None]
                grown = (0, 0, 0, max(0, len(found) - (len(total) - done)))
                total = torch.nn.functional.pad(total[done:], grown)
                weight = torch.nn.functional.pad(weight[done:], grown)
                begin = window.column
                total[: len(found)] += found * fade
                weight[: len(found)] += fade
                if window.last:
                    yield total / weight, True
                    begin, total, weight = 0, torch.zeros(0, self.width), torch.zeros(0, 1)

    def probabilities(self, sounds: Iterable[Sound]) -> Iterator[Float[Tensor, " label"]]:
        """Probabilities of the labels of each recording, one after the other.

        Raises:
            CheckpointError: if the checkpoint has no head, or its weights give what is not finite.
        """
        total, length = torch.zeros(len(self.labels)), 0.0
        for window, row in self._labelled(windows_of(sounds, self.grid)):
            total = total + row * len(window.waveform)
            length += len(window.waveform)
            if window.last:
                yield total / length
                total, length = torch.zeros(len(self.labels)), 0.0

    def windows(
        self, sounds: Iterable[Sound], *, hop: int
    ) -> Iterator[list[tuple[float, float, Float[Tensor, " label"]]]]:
        """Begin, end and probabilities of the windows of each recording, one recording after the other.

        Args:
            sounds: Recordings.
            hop: Patch columns from one window to the next.
        """
        found = []
        for window, row in self._labelled(windows_of(sounds, self.grid, hop=hop)):
            start = window.column * self.grid.step
            found.append((start / self.grid.rate, (start + len(window.waveform)) / self.grid.rate, row))
            if window.last:
                yield found
                found = []

    def _labelled(self, windows: Iterable[Window]) -> Iterator[tuple[Window, Float[Tensor, " label"]]]:
        """Windows with the probabilities of their labels."""
        if self.head is None:
            raise CheckpointError(
                f"{self.checkpoint.path}: has no head, so it labels nothing; fine-tune it with `ssl-audio finetune`"
            )
        for batch in batches_of(windows, self.batch_windows):
            waveforms, samples = padded(batch)
            with torch.inference_mode():
                logits = self.logits(waveforms.to(self.device), samples)
            self._check_finite(logits)
            found = logits.sigmoid() if self.several else logits.softmax(dim=1)
            yield from zip(batch, found.float().cpu(), strict=True)

    def frame_logits(
        self, waveforms: Float[Tensor, "clip sample"], samples: Tensor | None = None
    ) -> Float[Tensor, "clip frame label"]:
        """Logits of the frames of waveforms that the backbone can take at once.

        Raises:
            CheckpointError: if the head scores no frames.
        """
        if self.head is None or self.frame_hop is None:
            raise CheckpointError(
                f"{self.checkpoint.path}: gives no scores of frames; expected a checkpoint of `ssl-audio finetune` "
                "with model.objective ssl_audio.objectives.SoundEvents"
            )
        if samples is not None:
            samples = samples.to(self.device)
        spectrogram = self.backbone.spectrogram(waveforms.to(self.device), samples)
        answer = self.head.predict(self.backbone, spectrogram)
        assert answer is not None
        assert answer.frames is not None
        self._check_finite(answer.frames)
        return answer.frames

    def logits(
        self, waveforms: Float[Tensor, "clip sample"], samples: Tensor | None = None
    ) -> Float[Tensor, "clip label"]:
        """Logits of waveforms that the backbone can take at once."""
        assert self.head is not None
        answer = self.head.predict(self.backbone, self.backbone.spectrogram(waveforms, samples))
        if answer is None or answer.clips is None:
            raise CheckpointError(
                f"{self.checkpoint.path}: {type(self.head).__name__} gives no scores of clips, so it labels none"
            )
        return answer.clips

    def _columns(self, windows: list[Any]) -> list[Float[Tensor, "frame width"]]:
        waveforms, samples = padded(windows)
        with torch.inference_mode():
            tokens = self.backbone(waveforms.to(self.device), samples)
        counts = [self.grid.columns_in(len(window.waveform)) for window in windows]
        found = _columns(tokens, counts, bands=self.backbone.bands if self.bands == "apart" else 1)
        self._check_finite(torch.cat(found))
        return found

    def _check_finite(self, found: Tensor) -> None:
        if not found.isfinite().all():
            raise CheckpointError(
                f"{self.checkpoint.path}: gives numbers that are not finite, though the sound is; its weights are too "
                "large (a training that diverged?), take an earlier checkpoint"
            )


def usable_device(device: torch.device | str) -> torch.device:
    """The device of that name.

    Raises:
        RecipeError: if it is none, or is not here.
    """
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split(". ")[0].splitlines()[0]
        raise RecipeError(f"device {device}: {reason}; expected one that is here, such as cpu or cuda") from error
    return found


def pretrained(
    path: str | Path, *, hints: Hints = NO_HINTS, base: str | Path | None = None, **options: Any
) -> Pretrained:
    """A checkpoint, ours or a published one, ready to embed sound; fine-tuned ones label it too.

    Args:
        path: A checkpoint of ours, whole or adapters alone; a published file; a folder of Hugging Face, of timm or of
            `export`.
        hints: What the tensors of a published file do not say, as `ssl_audio.Hints`.
        base: What an adapter checkpoint was trained on; None looks for it below `runs` and beside the file.
        options: `device`, `window_seconds`, `batch_windows`, `bands`, `merge`, `pack`; see `Pretrained`.

    Raises:
        CheckpointError: if it is missing, damaged or of no known kind, or its base is not found.
        RecipeError: if the device is not here.
    """
    found = open_checkpoint(Path(path), hints=hints, base=None if base is None else Path(base))
    return Pretrained(found, **options)


def _columns(tokens: Tokens, counts: list[int], *, bands: int) -> list[Float[Tensor, "_ channel"]]:
    """Each patch column's states: their mean, or side by side if `bands` is their number. Columns beyond a clip's end,
    which are padding, are left out, and merged patches are back in their places.
    """
    tokens = tokens.unmerged()
    found = []
    for row, count in enumerate(counts):
        chosen = tokens.is_patch()[row] & (tokens.time[row] < count)
        states, time = tokens.states[row][chosen].float(), tokens.time[row][chosen]
        size = tokens.size[row][chosen]
        place = time if bands == 1 else time * bands + tokens.band[row][chosen]
        total = states.new_zeros(count * bands, states.shape[1]).index_add_(0, place, states * size[:, None])
        weight = size.new_zeros(count * bands).index_add_(0, place, size)
        found.append((total / weight[:, None]).reshape(count, -1).cpu())
    return found


def _rows(waveforms: Waveforms) -> list[Float[Tensor, " _"]]:
    if isinstance(waveforms, Tensor | np.ndarray):
        whole = torch.as_tensor(waveforms)
        if whole.ndim not in (1, 2):
            raise AudioError(
                f"waveforms have the shape {tuple(whole.shape)}; expected (samples), (clips, samples) or a list of "
                "(samples)"
            )
        return [_float(row) for row in (whole[None] if whole.ndim == 1 else whole)]
    rows = [torch.as_tensor(row) for row in waveforms]
    wrong = next((row for row in rows if row.ndim != 1), None)
    if wrong is not None or not rows:
        shape = "nothing" if wrong is None else f"one of the shape {tuple(wrong.shape)}"
        raise AudioError(f"a list of waveforms holds {shape}; expected (samples) each: one channel, such as their mean")
    return [_float(row) for row in rows]


def _float(row: Tensor) -> Float[Tensor, " sample"]:
    if row.dtype == torch.int16:
        return row.float() / 32768.0
    if not row.is_floating_point():
        raise AudioError(f"waveforms hold {row.dtype}; expected floats in [-1, 1], or int16")
    return row.detach().float().cpu()


def _in_memory(name: str, row: Tensor, have: SupportsFloat, want: int) -> Sound:
    row = resample(row, have=have, want=want)
    if not len(row):
        raise AudioError(f"{name}: is empty")
    return Sound(name, len(row), lambda start, count: row[start : start + count])
