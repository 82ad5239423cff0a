"""Files of earlier versions in the terms of this one."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

_HEAD, _OBJECTIVE = "head.", "objective.head."
_CLASSIFICATION = "ssl_audio.objectives.classification.Classification"


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of this version: earlier ones kept a head beside the backbone, this
    one within the objective."""
    return {
        _OBJECTIVE + name.removeprefix(_HEAD) if str(name).startswith(_HEAD) else name: value
        for name, value in weights.items()
    }


def described(task: Any) -> Any:
    """What a checkpoint says of its task as this version says it; what is no task is returned as it is."""
    if not isinstance(task, dict) or "head" not in task:
        return task
    spec = {"class_path": _CLASSIFICATION, "init_args": {"head": task["head"]}}
    return {**{name: value for name, value in task.items() if name != "head"}, "objective": spec}
