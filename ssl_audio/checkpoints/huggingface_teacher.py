"""Folders of Hugging Face as teachers."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from jsonargparse.typing import NonNegativeInt, PositiveFloat
from torch import Tensor, nn

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.errors import RecipeError
from ssl_audio.model.backbone import Backbone
from ssl_audio.objectives.objective import Answer, Objective
from ssl_audio.objectives.teacher import Teacher

_HEADS = ("ForAudioClassification", "ForSequenceClassification")
_PENALTY = 1.0


class HuggingFaceTeacher(Teacher):
    """An audio model in a folder of Hugging Face, on waveforms.

    A model with a classification head answers with it, by the names of its labels. Of any other encoder, or one whose
    labels are others, a linear layer on the mean and the standard deviation of its states is fitted to the training
    clips before training begins: a logistic regression on standardised features. Nothing is downloaded, and no code
    from the folder runs. Weights are not part of the student's checkpoint.

    Args:
        folder: With config.json, model.safetensors and preprocessor_config.json.
        layer: Which states the linear layer reads, counted from 0 before the first block; None takes the last.
        seconds: Of a model that pads every clip to its longest length (Whisper: 30 s): the length that it pads to
            instead, at a cost in proportion.

    Raises:
        RecipeError: if transformers is not installed, or the folder holds no audio model that it can read.

    Source: arXiv 2203.06760 (teachers of another architecture).
    """

    def __init__(
        self, *, folder: Path, layer: NonNegativeInt | None = None, seconds: PositiveFloat | None = None
    ) -> None:
        super().__init__()
        self.folder = folder
        self.layer = layer
        self.seconds = None if seconds is None else float(seconds)
        # Not registered, so that they are neither saved, nor sharded, nor trained.
        self._parts: list[Any] = []
        self._linear: list[nn.Linear] = []

    def attach(self, backbone: Backbone, objective: Objective, facts: Facts) -> None:
        rate = self.open(facts.labels)
        if rate != backbone.frontend.sample_rate:
            raise RecipeError(
                f"{self.folder}: its sample rate is {rate} Hz, and the student's {backbone.frontend.sample_rate} Hz; "
                "expected a teacher of the same rate"
            )
        self.labels, self.several = facts.labels, facts.several

    def open(self, labels: Sequence[str] = (), *, longest: float | None = None) -> int:
        """Read the model; returns its sample rate.

        Args:
            labels: Of the student; a head that knows them all answers, else there are only features.
            longest: Seconds that no clip exceeds: a model that pads every clip pads to this; others ignore it.

        Raises:
            RecipeError: if transformers is not installed, or the folder holds no audio model that it can read.
        """
        model, extractor = _opened(self.folder)
        names = {str(name): number for number, name in getattr(model.config, "id2label", {}).items()}
        has_head = type(model).__name__.endswith(_HEADS) and all(label in names for label in labels)
        self._places = [int(names[label]) for label in labels] if has_head else []
        if not has_head and model.config.is_encoder_decoder:
            model = model.get_encoder()
        if self.seconds is not None:
            _shorten(model, extractor, self.seconds, self.folder)
        elif longest is not None and _pads(model, extractor):
            _shorten(model, extractor, longest, self.folder)
        self._parts = [model.requires_grad_(False).eval(), extractor]
        return int(getattr(extractor, "sampling_rate", 0))

    def before_training(self, batches: Callable[[], Iterable[Batch]]) -> None:
        if self._places:
            return
        rows, targets = [], []
        for batch in batches():
            assert batch.targets is not None
            known = torch.ones(len(batch), dtype=torch.bool) if batch.known is None else batch.known.cpu()
            rows.append(self.features(batch).cpu()[known])
            targets.append(batch.targets.cpu()[known])
        self.fit(torch.cat(rows), torch.cat(targets))

    def fit(self, features: Float[Tensor, "clip feature"], targets: Float[Tensor, "clip label"]) -> None:
        """Fit the linear layer to the features of clips."""
        from ssl_audio.objectives.linear_fit import fit_linear

        rows = features.double().numpy()
        weight, bias = fit_linear(rows, targets.numpy() > 0, several=self.several, C=_PENALTY)
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.load_state_dict({"weight": torch.from_numpy(weight).float(), "bias": torch.from_numpy(bias).float()})
        self._linear = [linear.requires_grad_(False)]

    @torch.no_grad()
    def answer(self, batch: Batch, spectrogram: Spectrogram) -> Answer:
        if self._places:
            found = self._model(batch, {})[0].logits
            return Answer(clips=found[:, torch.tensor(self._places, device=found.device)])
        if not self._linear:
            raise RecipeError(
                f"{self.folder}: has no classification head for these labels, and no training clips were shown to it; "
                "expected before_training to be called, as `ssl-audio finetune` does"
            )
        return Answer(clips=self.scores(self.features(batch)))

    def scores(self, features: Float[Tensor, "clip feature"]) -> Float[Tensor, "clip label"]:
        """Logits of the linear layer."""
        return self._linear[0].to(features.device)(features)

    @torch.no_grad()
    def features(self, batch: Batch) -> Float[Tensor, "clip feature"]:
        """Mean and standard deviation of its states over each clip."""
        found, share = self._model(batch, {"output_hidden_states": True})
        every = found.hidden_states
        if self.layer is not None and self.layer >= len(every):
            raise RecipeError(
                f"model.objective.teacher.layer is {self.layer}, but {self.folder} has states 0 to {len(every) - 1}"
            )
        states = found.last_hidden_state if self.layer is None else every[self.layer]
        length = (share * states.shape[1]).ceil().clamp(1, states.shape[1])
        inside = torch.arange(states.shape[1], device=states.device) < length[:, None]
        weight = inside[..., None] / length[:, None, None]
        mean = (states * weight).sum(dim=1)
        variance = ((states - mean[:, None]).square() * weight).sum(dim=1)
        return torch.cat([mean, variance.sqrt()], dim=1)

    def _model(self, batch: Batch, wanted: dict[str, bool]) -> tuple[Any, Float[Tensor, " clip"]]:
        """What the model says of waveforms, and how much of what it was given is each clip."""
        model, extractor = self._parts
        here = batch.waveforms.device
        model.to(here)
        lengths = np.full(len(batch), batch.waveforms.shape[1])
        if batch.samples is not None:
            lengths = batch.samples.cpu().numpy()
        rows = [row[:length].cpu().numpy() for row, length in zip(batch.waveforms, lengths, strict=True)]
        rate, padding = extractor.sampling_rate, _padding(extractor)
        longest = getattr(extractor, "n_samples", None) or max(lengths)
        with torch.autocast(here.type, enabled=False):
            inputs = extractor(rows, sampling_rate=rate, return_tensors="pt", padding=padding)
            found = model(**inputs.to(here), **wanted)
        return found, torch.from_numpy(np.minimum(lengths / longest, 1.0)).float().to(here)


def _padding(extractor: Any) -> str | bool:
    """To its longest length, where a model takes no other; else to the longest clip."""
    return "max_length" if getattr(extractor, "n_samples", None) else True


def _opened(folder: Path) -> tuple[Any, Any]:
    """Model and feature extractor."""
    if not (folder / "config.json").is_file():
        raise RecipeError(f"{folder}: has no config.json; expected a folder that `save_pretrained` wrote")
    try:
        import transformers
    except ImportError as error:
        raise RecipeError(
            "HuggingFaceTeacher needs transformers, which is not installed; install it with pip install "
            "'ssl_audio[huggingface]'"
        ) from error
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, **options)
        config = transformers.AutoConfig.from_pretrained(folder, **options)
        heads = any(str(name).endswith(_HEADS) for name in config.architectures or [])
        kind = transformers.AutoModelForAudioClassification if heads else transformers.AutoModel
        level = transformers.logging.get_verbosity()
        transformers.logging.set_verbosity_error()  # a decoder that is missing is not needed
        transformers.logging.disable_progress_bar()
        try:
            model = kind.from_pretrained(folder, use_safetensors=True, **options)
        finally:
            transformers.logging.set_verbosity(level)
            transformers.logging.enable_progress_bar()
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RecipeError(f"{folder}: transformers cannot read it as an audio model: {reason}") from error
    return model, extractor


def frozen_features(folder: Path, *, longest: float) -> tuple[Callable[[Batch], Float[Tensor, "clip feature"]], int]:
    """Mean and standard deviation of a model's last states over each clip, and its sample rate.

    Args:
        folder: As of `HuggingFaceTeacher`.
        longest: Seconds that no clip exceeds: a model that pads every clip pads to this.

    Raises:
        RecipeError: if transformers is not installed, or the folder holds no audio model that it can read.
    """
    model = HuggingFaceTeacher(folder=folder)
    return model.features, model.open(longest=longest)


def _pads(model: Any, extractor: Any) -> bool:
    """Whether a model pads every clip to its longest length, and has a table of positions that can be cut."""
    return getattr(model, "embed_positions", None) is not None and bool(getattr(extractor, "n_samples", None))


def _shorten(model: Any, extractor: Any, seconds: float, folder: Path) -> None:
    """Let a model that pads everything to its longest length pad to a shorter one."""
    if not _pads(model, extractor):
        raise RecipeError(
            f"model.objective.teacher.seconds: {folder} does not pad clips to a fixed length; leave seconds out"
        )
    table = model.embed_positions
    share = seconds * extractor.sampling_rate / extractor.n_samples
    if share >= 1:
        return
    places = max(1, round(len(table.weight) * share))
    frames = places * round(extractor.nb_max_frames / len(table.weight))
    extractor.nb_max_frames = frames
    extractor.n_samples = frames * extractor.hop_length
    table.weight = nn.Parameter(table.weight.detach()[:places].clone(), requires_grad=False)
    table.num_embeddings = places
    model.config.max_source_positions = places
    model.max_source_positions = places
