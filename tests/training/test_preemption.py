"""Signals outside of training, and in processes that help."""

import os
import signal
import threading

import pytest

from ssl_audio.data.workers import deaf_to_interrupts
from ssl_audio.training.engines import is_first_process
from ssl_audio.training.preemption import SIGNALS, PreemptedError, preemptible


@pytest.mark.parametrize("number", SIGNALS)
def test_outside_of_training_there_is_nothing_to_save(number, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    before = signal.getsignal(number)

    def told() -> None:
        try:
            os.kill(os.getpid(), number)
        except Exception as error:
            raise AssertionError("taken for a failure of what was going on") from error

    with pytest.raises(PreemptedError, match="outside of training; give the same command"), preemptible():
        told()
    assert signal.getsignal(number) == before


def test_processes_that_begin_do_not_hear_what_the_main_one_hears_afterwards():
    ended = []

    def begin() -> None:
        with deaf_to_interrupts():
            child = os.fork()
            # Sent to the process, the signal could reach a thread of the test runner.
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            if not child:
                os._exit(0)
            ended.append(os.waitpid(child, 0)[1])

    # Worker processes of pytest-xdist ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            begin()
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == [0]


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "8", "LOCAL_RANK": "0", "GROUP_RANK": "1"}, False),
        ({"LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1"}, False),
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_the_first_process_is_known_before_there_is_a_trainer(environment, first, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() == first
