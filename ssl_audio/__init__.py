"""Self-supervised pretraining of audio encoders: SSAST and SSAMBA as one framework."""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # By name and at first use: torch takes a second to import, and every floor imports this package.
    if name == "pretrained":
        return importlib.import_module("ssl_audio.evaluation.pretrained").pretrained
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
