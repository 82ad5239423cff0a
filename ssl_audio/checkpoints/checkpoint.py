"""Our checkpoints: weights with the recipe that made them."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_audio import __version__
from ssl_audio.checkpoints import earlier
from ssl_audio.checkpoints.base import Base
from ssl_audio.checkpoints.imported import Fate
from ssl_audio.checkpoints.options import Planned
from ssl_audio.checkpoints.reading import read
from ssl_audio.checkpoints.schema import check_described, check_sizes, check_task, planned_backbone, planned_objective
from ssl_audio.errors import CheckpointError, SslAudioError
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.positions import PositionRule
from ssl_audio.objectives.objective import Objective

FORMAT = 1
_WRAPPED = "objective.objective."


def describe(recipe: dict[str, Any], *, task: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a checkpoint says of itself besides its tensors: plain values only.

    Args:
        recipe: The whole recipe of the run.
        task: After fine-tuning, what the objective tells apart.
    """
    described = {"format": FORMAT, "version": __version__, "recipe": recipe}
    plain: dict[str, Any] = _plain(described if task is None else {**described, "task": task})
    return plain


def _plain(value: Any) -> Any:
    """The same in built-in types: numbers of a parser's own types are not loaded back, as nothing is unpickled."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return str(value)


@dataclasses.dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint read from disk, ours or a published one in our terms.

    Args:
        path: Where it came from.
        recipe: The whole recipe of the run: `model`, `data`, `trainer`; of a published one, `model`.
        weights: State dict.
        step: Optimizer steps taken.
        version: Of this package, when it was written.
        kind: What it is, in words.
        task: What its objective tells apart, if it answers: target, labels, several, objective.
        fates: What became of each tensor of a published file.
        position_rule: How its published code brings positions to another grid.
        image: Its positions are places in a picture.
        base: What it stands on, if its file holds only what trained.
        manifests: SHA-256 of the manifest of each of the shards that it was pretrained on, where the file says so.
    """

    path: Path
    recipe: dict[str, Any]
    weights: dict[str, Tensor]
    step: int
    version: str
    kind: str = "ssl_audio"
    task: dict[str, Any] | None = None
    fates: tuple[Fate, ...] = ()
    position_rule: PositionRule = "published"
    image: bool = False
    base: Base | None = None
    manifests: tuple[str | None, ...] = ()

    @property
    def spec(self) -> dict[str, Any]:
        """The recipe of its backbone.

        Raises:
            CheckpointError: if it has none, or one that names what we do not trust.
        """
        self.planned()
        spec: dict[str, Any] = self.recipe["model"]["backbone"]
        return spec

    def planned(self) -> Planned:
        """The backbone that the recipe describes, with every class and option known, but not built.

        Raises:
            CheckpointError: if a class or an option is not known.
        """
        spec = self.recipe.get("model", {}).get("backbone")
        if not isinstance(spec, dict):
            raise CheckpointError(f"{self.path}: its recipe describes no backbone")
        return planned_backbone(self.path, spec, version=self.version)

    def check(self) -> None:
        """Hold the recipe against the tensors, before anything is built of them.

        Raises:
            CheckpointError: naming the first thing that does not fit.
        """
        backbone = check_sizes(self.path, self.planned(), self.weights, image=self.image)
        if self.task is not None:
            check_task(self.path, self.task, self.recipe, self.weights, backbone)

    def check_finite(self) -> None:
        """Refuse to train on with tensors that are not finite.

        Raises:
            CheckpointError: naming the first of them.
        """
        for name in ("backbone", "objective"):
            self.part(name)

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of `backbone` or `objective`, under their names within it.

        Raises:
            CheckpointError: if a number in them is not finite: whatever they gave would be of no use.
        """
        prefix = f"{name}."
        found = {key.removeprefix(prefix): value for key, value in self.weights.items() if key.startswith(prefix)}
        for key, value in found.items():
            if not bool(torch.isfinite(value).all()):
                raise CheckpointError(
                    f"{self.path}: {prefix}{key} holds numbers that are not finite; the training diverged or the file "
                    "is damaged, take an earlier checkpoint"
                )
        return found

    def backbone(self) -> Backbone:
        """The backbone with its weights.

        Raises:
            CheckpointError: if the recipe names a class we do not trust, or the weights do not fit.
        """
        backbone = self.untrained()
        if self.image:
            raise CheckpointError(
                f"{self.path}: {self.kind} has positions of a picture; it is a start for `ssl-audio finetune` or "
                "`pretrain`, and has no spectrogram to embed as yet"
            )
        try:
            backbone.load_state_dict(self.part("backbone"), strict=not self.fates)
        except RuntimeError as error:
            line = " ".join(str(error).split())
            raise CheckpointError(f"{self.path}: its weights do not fit its recipe: {line[:400]}") from error
        return backbone

    def objective(self, backbone: Backbone) -> Objective:
        """What answers, with its weights.

        Args:
            backbone: Of this checkpoint.

        Raises:
            CheckpointError: if the checkpoint answers nothing, or its weights do not fit what it says of itself.
        """
        if self.task is None:
            raise CheckpointError(f"{self.path}: has no head; expected a checkpoint of `ssl-audio finetune`")
        planned, facts = planned_objective(self.path, self.task, self.recipe)
        objective: Objective = planned.build()
        objective.attach(backbone, facts)
        try:
            objective.load_state_dict(self.part("objective"))
        except RuntimeError as error:
            line = " ".join(str(error).split())
            raise CheckpointError(
                f"{self.path}: its head does not fit its {len(facts.labels)} labels: {line[:400]}"
            ) from error
        return objective

    def untrained(self, *, seed: int = 0) -> Backbone:
        """The backbone of the recipe with fresh weights: what training is to be compared with.

        Raises:
            CheckpointError: if the recipe names a class we do not trust, or describes no backbone.
        """
        planned = self.planned()
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                backbone: Backbone = planned.build()
        except SslAudioError as error:
            raise CheckpointError(
                f"{self.path}: its recipe (version {self.version}) does not describe a backbone of this "
                f"version: {error}"
            ) from error
        return backbone.eval()


def content_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a file of a checkpoint holds."""
    described = describe(checkpoint.recipe, task=checkpoint.task)
    if checkpoint.base is not None:
        described["base"] = checkpoint.base.described()
    return {"state_dict": dict(checkpoint.weights), "global_step": checkpoint.step, "ssl_audio": described}


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of ours without executing anything in it.

    Raises:
        CheckpointError: if it is missing, damaged, holds more than tensors and plain values, or is not ours.
    """
    found = read(path)
    if not is_ours(found):
        raise CheckpointError(f"{path}: not written by ssl-audio; expected a checkpoint of `ssl-audio pretrain`")
    checkpoint = ours(path, found)
    if checkpoint.base is not None:
        raise CheckpointError(
            f"{path}: holds only what was trained on {checkpoint.base.words}; expected a whole checkpoint here"
        )
    return checkpoint


def is_ours(found: dict[str, Any]) -> bool:
    """Whether the content of a file is a checkpoint of ours."""
    return isinstance(found.get("ssl_audio"), dict) and "state_dict" in found


def ours(path: Path, found: dict[str, Any]) -> Checkpoint:
    """A checkpoint of ours from the content of its file.

    Raises:
        CheckpointError: if it is of another format.
    """
    described = found["ssl_audio"]
    if not isinstance(described.get("format"), int) or described["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: format {str(described.get('format'))[:40]!r}; this version reads format {FORMAT}"
        )
    check_described(path, found)
    checkpoint = Checkpoint(
        path=path,
        recipe=described["recipe"],
        weights=answering(earlier.renamed(found["state_dict"])),
        step=found.get("global_step", 0),
        version=str(described.get("version", "unknown")),
        task=earlier.described(described.get("task")),
        base=None if described.get("base") is None else Base.read(path, described["base"], trained=_names(found)),
        manifests=_manifests(found.get("AudioShards")),
    )
    # What stands on a base is held against both together.
    if checkpoint.base is None:
        checkpoint.check()
    return checkpoint


def answering(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights without what only training needs: of a wrapped objective the one within, and no teacher."""
    while any(name.startswith(_WRAPPED) for name in weights):
        rest = {name: value for name, value in weights.items() if not name.startswith("objective.")}
        inner = {"objective." + k.removeprefix(_WRAPPED): v for k, v in weights.items() if k.startswith(_WRAPPED)}
        weights = {**rest, **inner}
    return weights


def _names(found: dict[str, Any]) -> tuple[str, ...]:
    """Names within the backbone of its tensors in a file."""
    return tuple(name.removeprefix("backbone.") for name in found["state_dict"] if name.startswith("backbone."))


def _manifests(state: Any) -> tuple[str | None, ...]:
    """What the data module of a pretraining noted of its shards, if it did."""
    found = state.get("manifests") if isinstance(state, dict) else None
    return tuple(one if isinstance(one, str) else None for one in found) if isinstance(found, list) else ()
