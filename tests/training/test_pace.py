"""Steps decided from measured speed."""

from types import SimpleNamespace
from unittest import mock

import lightning as L
import pytest

from ssl_audio.errors import RecipeError
from ssl_audio.experiments.budget import Budget
from ssl_audio.training import pace
from ssl_audio.training.pace import StepsInTime


def trained(monkeypatch, step_seconds, *, seconds=100.0, most=-1, batches=0, every=None):
    """How many steps are made, and what was decided, with a clock that runs by steps of this length."""
    now, told = 0.0, []
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: now))
    loop = SimpleNamespace(max_steps=most)
    trainer = mock.Mock(spec=L.Trainer, global_step=0, max_steps=most, accumulate_grad_batches=1)
    trainer.configure_mock(
        val_check_batch=every, num_val_batches=[batches], strategy=SimpleNamespace(broadcast=lambda value: value),
        fit_loop=SimpleNamespace(epoch_loop=loop), datamodule=SimpleNamespace(epoch_steps=10),
    )  # fmt: skip
    prepared = []
    module = mock.Mock(spec=L.LightningModule)
    module.schedule = SimpleNamespace(prepare=lambda total, epoch_steps: prepared.append(total))
    callback = StepsInTime(seconds, decided=told.append)
    callback.on_train_start(trainer, module)
    while not 0 < loop.max_steps <= trainer.global_step:
        now += step_seconds * (5 if trainer.global_step == 0 else 1)  # the first step is slow
        trainer.global_step += 1
        callback.on_train_batch_end(trainer, module, None, None, trainer.global_step - 1)
    assert len(told) == 1
    assert prepared == [trainer.global_step]
    return trainer.global_step, told[0].measured, now


@pytest.mark.parametrize(("step_seconds", "measured"), [(0.1, 11), (1.0, 11), (6.0, 2), (90.0, 2)])
def test_training_takes_the_seconds_of_its_budget(monkeypatch, step_seconds, measured):
    steps, after, took = trained(monkeypatch, step_seconds)
    assert after == measured
    if step_seconds < 50:
        assert 100 - 1.01 * step_seconds <= took <= 100
    assert steps >= 3


def test_the_recipes_steps_are_an_upper_limit_and_validation_counts(monkeypatch):
    assert trained(monkeypatch, 0.1, most=50)[0] == 50
    assert trained(monkeypatch, 0.1, most=5000)[0] > 900
    half = trained(monkeypatch, 0.1, batches=30, every=10)[0]
    assert 400 < half < 520


def test_budgets_are_read_as_they_are_written():
    told = {"150s": {"seconds": 150}, "2.5m": {"seconds": 150}, "1h": {"seconds": 3600}, "9 steps": {"steps": 9}}
    for text, limits in {**told, "64clips": {"clips": 64}}.items():
        assert Budget.read(text).stated == limits
        assert Budget.read(Budget.read(text).text) == Budget.read(text)
    for text in ("150", "s", "0s", "-3s", "1.5 steps", "3 days", "1e9s", "12 steps\n5s"):
        with pytest.raises(RecipeError, match="expected a time such as 150s"):
            Budget.read(text)
