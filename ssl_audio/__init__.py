"""Self-supervised pretraining of audio encoders: SSAST and SSAMBA as one framework."""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "pretrained": "ssl_audio.evaluation.pretrained",
    "ensemble": "ssl_audio.evaluation.ensemble",
    "Hints": "ssl_audio.checkpoints.sizes",
    "pretrain": "ssl_audio.experiments.pretrain",
    "finetune": "ssl_audio.experiments.finetune",
    "stages": "ssl_audio.experiments.stages",
    "compare": "ssl_audio.experiments.compare",
    "Comparison": "ssl_audio.experiments.comparison",
    "continual": "ssl_audio.experiments.continual",
    "Continual": "ssl_audio.experiments.continual_plan",
    "Task": "ssl_audio.experiments.continual_plan",
    "Budget": "ssl_audio.experiments.budget",
    "audit": "ssl_audio.experiments.audit",
    "probe": "ssl_audio.experiments.probe",
    "export": "ssl_audio.experiments.export",
    "Display": "ssl_audio.experiments.display",
    "Silent": "ssl_audio.experiments.display",
}


def __getattr__(name: str) -> Any:
    # By name and at first use: torch takes a second to import, and every floor imports this package.
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
