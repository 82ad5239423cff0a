"""The state of every generator that training may draw from, as values that a checkpoint can hold."""

import random
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from ssl_audio import randomness
from ssl_audio.errors import CheckpointError

KEY = "random_state"


def capture() -> dict[str, Any]:
    """States of python, numpy and torch in this process, and of its GPU if it has one."""
    numpy_state: Any = np.random.get_state(legacy=False)
    return {
        "python": random.getstate(),
        "numpy": {
            "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            "place": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def restore(state: dict[str, Any]) -> None:
    """Restore what `capture` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    numpy_state = state["numpy"]
    np.random.set_state(
        (
            "MT19937",
            numpy_state["key"].numpy().astype(np.uint32),
            numpy_state["place"],
            numpy_state["has_gauss"],
            numpy_state["gauss"],
        )
    )
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


def _check(states: Any) -> None:
    """Check that loaded values are states of generators, before the first step.

    Raises:
        CheckpointError: if they are something else.
    """
    try:
        for state in states:
            version, words, gauss = state["python"]
            random.Random().setstate((version, tuple(words), gauss))
            key, place = state["numpy"]["key"].numpy().astype(np.uint32), int(state["numpy"]["place"])
            legacy = ("MT19937", key, place, int(state["numpy"]["has_gauss"]), float(state["numpy"]["gauss"]))
            np.random.RandomState().set_state(legacy)
            torch.Generator().set_state(state["torch"].cpu())
            if state["cuda"] is not None and state["cuda"].dtype != torch.uint8:
                raise TypeError("the state of a GPU's generator is no bytes")
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the checkpoint's {KEY} holds no states of random generators ({type(error).__name__}); it is damaged: "
            "take an earlier one, or begin a new run with --resume never"
        ) from error


class RandomState(Callback):
    """Saves the states of all ranks in checkpoints and restores them at the first batch.

    With another number of ranks, a rank without a saved state starts from one that is derived from the step.
    """

    def __init__(self) -> None:
        self.loaded: list[dict[str, Any]] | None = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        here = capture()
        every: list[Any] = [here]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            every = [None] * trainer.world_size
            torch.distributed.all_gather_object(every, here)
        checkpoint[KEY] = every

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.loaded = checkpoint.get(KEY)
        if self.loaded is not None:
            _check(self.loaded)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Not earlier: setup before the first batch may draw.
        if self.loaded is None:
            return
        rank = trainer.global_rank
        if rank < len(self.loaded):
            restore(self.loaded[rank])
        else:
            L.seed_everything(randomness.derive(trainer.global_step, rank, "rank") % 2**32, verbose=False)
        self.loaded = None
