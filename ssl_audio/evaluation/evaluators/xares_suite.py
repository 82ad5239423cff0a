"""Tasks of X-ARES on a checkpoint, where their data are on disk: frozen, an MLP and nearest neighbours."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.evaluators.xares import SslAudioEncoder

READY = ".audio_tar_ready"
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TaskScore:
    """Scores of one task, by its own metric.

    Args:
        task: Its name.
        mlp: Of X-ARES's MLP on frozen embeddings.
        neighbours: Of its nearest neighbours; None where the task has none.
    """

    task: str
    mlp: float
    neighbours: float | None


def xares_scores(checkpoint: Path, tasks: Sequence[str], *, data: Path) -> list[TaskScore]:
    """Run tasks of X-ARES one after the other; nothing is downloaded.

    Args:
        checkpoint: What `ssl_audio.pretrained` opens.
        tasks: Their names in X-ARES, such as `esc50`.
        data: Its folder of data, with one folder a task.

    Raises:
        RecipeError: if xares is not installed, or a task is unknown or has no data there.

    Source: xares 0.1.3, `run.worker`.
    Differs: the folder of embeddings is named for the checkpoint, so that two checkpoints never share them.
    """
    try:
        import xares
        from xares.task import XaresTask
        from xares.utils import attr_from_py_path
    except ImportError as error:
        raise RecipeError(f"--suite xares needs X-ARES ({error}); install it with pip install xares") from error
    known = {path.name.removesuffix("_task.py") for path in Path(xares.__path__[0]).parent.glob("tasks/*_task.py")}
    for task in tasks:
        if not _NAME.fullmatch(task) or task not in known:
            raise RecipeError(f"--tasks {task}: X-ARES has no such task; expected some of {', '.join(sorted(known))}")
        if not any((data / task).glob("*.tar")):
            raise RecipeError(
                f"--tasks {task}: there are no tar files in {data / task}; download them as X-ARES does (`python -m "
                f"xares.run --to-stage 0 ENCODER tasks/{task}_task.py`), or name the folder with --data"
            )
    encoder = _encoder(checkpoint)
    return [_score(XaresTask, attr_from_py_path(f"tasks/{task}_task.py", "_config"), encoder, data) for task in tasks]


def _encoder(checkpoint: Path) -> SslAudioEncoder:
    """The encoder, of a class whose name no other checkpoint has."""
    found = SslAudioEncoder(str(checkpoint))
    digest = found.encoder.digest
    found.__class__ = type(f"SslAudioEncoder_{digest[:12]}", (SslAudioEncoder,), {})
    return found


def _score(task_class: Any, configure: Any, encoder: SslAudioEncoder, data: Path) -> TaskScore:
    config = configure(encoder)
    config.env_root = data
    (data / config.name / READY).touch()  # else it would download them
    task = task_class(config=config)
    task.make_encoded_tar()
    if not any(path.stat().st_size for path in task.encoded_tar_dir.glob("*.tar")):
        task.encoded_ready_path.unlink(missing_ok=True)
        raise RecipeError(
            f"--tasks {config.name}: X-ARES read no clip of {data / config.name}, and does not say why; it decodes "
            "with torchaudio.load, which needs torchcodec and FFmpeg from torchaudio 2.9 on: pip install torchcodec"
        )
    mlp = float(task.run_mlp()[0])
    return TaskScore(task=config.name, mlp=mlp, neighbours=float(task.run_knn()[0]) if config.do_knn else None)
