"""What a cluster says before it takes the machine away, and how the job is put back into the queue."""

import os
import shutil
import signal
import subprocess
import threading
from types import FrameType

from ssl_audio.errors import SslAudioError

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class PreemptedError(SslAudioError):
    """The machine is being taken away; everything is saved. The exit code is EX_TEMPFAIL: try again later."""

    exit_code = 75


class Notice:
    """Remembers that a signal came. What is to be done about it is done between two steps, not in the handler."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def install(self) -> None:
        """Listen from now on. Signals go to the main thread; elsewhere there is nothing to listen to."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)


def requeue() -> str:
    """Put the SLURM job, if this is one, back into its queue.

    Returns:
        What was done, in words that end a message.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return "give the same command again to go on"
    if (array := os.environ.get("SLURM_ARRAY_JOB_ID")) is not None:
        job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '0')}"
    if shutil.which("scontrol") is None:
        return f"job {job} was not requeued (no scontrol here); submit it again to go on"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"job {job} was not requeued ({error}); submit it again to go on"
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())[:200]
        return f"job {job} was not requeued ({reason}); submit it again to go on"
    return f"job {job} was requeued and goes on by itself"
