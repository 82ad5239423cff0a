"""Weights & Biases: the same metrics as in `metrics.csv`; optional."""

import functools
import logging
import os
import secrets
from pathlib import Path

from lightning.pytorch.loggers import Logger, WandbLogger

from ssl_audio.training.run import Run

_ID = "wandb.id"
_log = logging.getLogger(__name__)


def send_picture(loggers: list[Logger], path: Path, step: int) -> None:
    """Send a panel."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image("panel/spectrograms", [str(path)], step=step)


def send_alert(loggers: list[Logger], title: str, text: str) -> None:
    """Send an alert, which Weights & Biases mails."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.alert(title=title, text=text)


def wandb_wanted() -> bool:
    """Weights & Biases logs if a key or a mode is set; it never asks for an account."""
    mode = os.environ.get("WANDB_MODE", "")
    return mode in ("online", "offline") or (bool(os.environ.get("WANDB_API_KEY")) and mode != "disabled")


def wandb_logger(this: Run, name: str) -> WandbLogger:
    """Logs to Weights & Biases; where it cannot be reached, to files that `wandb sync` sends later.

    A resumed run keeps its id, which is in its folder. The agent of a sweep sets the id itself.
    """
    import wandb

    this.folder.mkdir(parents=True, exist_ok=True)
    identity = this.folder / _ID
    chosen = os.environ.get("WANDB_RUN_ID")
    if chosen is None and not identity.exists():
        this.write(_ID, secrets.token_hex(4))
    known = chosen or identity.read_text(encoding="utf-8")
    begin = functools.partial(WandbLogger, project="ssl_audio", name=name, save_dir=str(this.folder))
    try:
        seconds = float(os.environ.get("WANDB_INIT_TIMEOUT", "60"))
        logger = begin(id=known, resume="allow", settings=wandb.Settings(init_timeout=seconds))
        # Lightning connects with the first metric; a failure is better found now.
        _ = logger.experiment
        return logger
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        _log.warning("Weights & Biases cannot be reached (%s); logging offline, `wandb sync` sends it later", reason)
        os.environ["WANDB_MODE"] = "offline"
        # The failed attempt still holds the id.
        return begin(offline=True, mode="offline", id=secrets.token_hex(4))
