"""What watching costs: the time that its hooks take, and a run in which it is switched on and off every ten steps.

    python tests/soak/overhead.py --config demo --probe [] --trainer.max_steps 200

The first counts what hooks do themselves (on a GPU they also wait for it); the second everything, but only a quiet
machine shows it. Panels are left out: `panel/seconds` of a run says what one takes.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from ssl_audio.cli import main
from ssl_audio.experiments import pretrain
from ssl_audio.training.watching import Watching

_BLOCK = 10
_WARM = 2 * _BLOCK
HOOKS = {"on_train_batch_start": 0, "on_before_optimizer_step": 0, "on_train_batch_end": 1}
"""Hooks of a step, and how many steps the trainer has counted too many by then."""
started: list[float] = []
inside: list[float] = []


def switched(hook: Callable[..., None], late: int) -> Callable[..., None]:
    """The hook in every other block of steps."""

    def call(self: Watching, trainer: Any, *given: Any) -> None:
        if (trainer.global_step - late) // _BLOCK % 2 == 0:
            entered = time.perf_counter()
            hook(self, trainer, *given)
            if trainer.global_step - late >= _WARM:
                inside.append(time.perf_counter() - entered)

    return call


def timed(hook: Callable[..., None]) -> Callable[..., None]:
    """The hook, with the time at which a step begins."""

    def call(self: Any, *given: Any) -> None:
        started.append(time.perf_counter())
        hook(self, *given)

    return call


def report(*_: Any, **__: Any) -> None:
    """In place of probes and pictures."""
    blocks = [b - a for a, b in zip(started[_WARM::_BLOCK], started[_WARM + _BLOCK :: _BLOCK], strict=False)]
    ratios = [on / off for on, off in zip(blocks[::2], blocks[1::2], strict=False)]
    print(f"inside the hooks: {sum(inside) / sum(blocks[::2]):.2%} of the time of the steps that were watched")
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(
        f"{len(ratios)} pairs of {_BLOCK} steps, {statistics.median(blocks) / _BLOCK:.3f} s a step: with watching "
        f"{middle - 1:+.2%} (quartiles {low - 1:+.2%} to {high - 1:+.2%}), all together "
        f"{sum(blocks[::2][: len(ratios)]) / sum(blocks[1::2]) - 1:+.2%}"
    )


if __name__ == "__main__":
    for name, late in HOOKS.items():
        setattr(Watching, name, switched(getattr(Watching, name), late))
    pretrain.Training.on_train_batch_start = timed(pretrain.Training.on_train_batch_start)  # type: ignore[method-assign]
    pretrain.assess = report
    main(["pretrain", *sys.argv[1:], "--watch.panel_steps=0", "--trainer.log_every_n_steps", str(_BLOCK)])
