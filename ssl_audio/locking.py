"""One writer at a time: locks that name their holder, on local and on shared disks.

On one machine the kernel knows whether a holder lives: its lock ends with the process. Some disks pass locks on between
machines and some only pretend to, so a holder also counts in the lock's file: one that stands still is dead.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Literal

from ssl_audio.errors import SslAudioError

BEAT_SECONDS = 10.0
PATIENCE_SECONDS = 45.0
"""So long a count may stand still."""
_POLL_SECONDS = 0.5
_SIZE = 512
_LONGEST = 200  # bytes of a name, of the 255 that a disk takes

_log = logging.getLogger(__name__)
_held: set[Path] = set()
_guard = threading.Lock()


State = Literal["free", "busy", "unknown"]


class BusyError(SslAudioError):
    """Another process writes the same."""


@dataclasses.dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock.

    Args:
        host: Name of the machine.
        machine: What tells it from others of that name.
        pid: The process.
        token: Tells this holding from others.
        beat: The count.
    """

    host: str
    machine: str
    pid: int
    token: str
    beat: int = 0

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"


class Lock:
    """A lock on what is written, for a `with` statement.

    Args:
        path: What is written; the lock's file is hidden beside it.
        waiting: Wait until the other is done instead of giving up.

    Raises:
        BusyError: if another process is writing it.
        OSError: if the lock's file cannot be written.
    """

    def __init__(self, path: Path, *, waiting: bool = False) -> None:
        self.what = path
        there = Path(os.path.realpath(path))
        long = len(os.fsencode(there.name)) >= _LONGEST
        name = hashlib.sha256(os.fsencode(there.name)).hexdigest() if long else there.name
        self.path = there.parent / f".{name}.lock"
        self.waiting = waiting
        self._me = Holder(socket.gethostname(), _machine(), os.getpid(), secrets.token_hex(4))
        self._released = threading.Event()

    def __enter__(self) -> "Lock":
        self._reserve()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self._acquire(taking=True)
            assert file is not None
            self._file = file
        except BaseException:
            _held.discard(self._key)
            raise
        # A process that is forked has neither the lock nor this thread.
        self._beating = threading.Thread(target=self._beat, name=f"lock {self.path}", daemon=True)
        self._beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._me.pid:
            return
        self._released.set()
        self._beating.join()
        if _read(self._file) == self._me:
            self.path.unlink(missing_ok=True)
        os.close(self._file)
        _held.discard(self._key)

    def check(self) -> None:
        """Find out whether another process holds it, without taking it.

        Raises:
            BusyError: if one does.
        """
        if self._key in _held:
            raise BusyError(f"this process is writing {self.what} already")
        with contextlib.suppress(FileNotFoundError):
            self._acquire(taking=False)

    @property
    def _key(self) -> Path:
        return Path(os.path.realpath(self.path))

    def _reserve(self) -> None:
        """Within this process. The kernel's lock is not between threads, and closing any file of that name ends it."""
        while True:
            with _guard:
                if self._key not in _held:
                    _held.add(self._key)
                    return
            if not self.waiting:
                raise BusyError(f"this process is writing {self.what} already")
            time.sleep(_POLL_SECONDS)

    def _acquire(self, *, taking: bool) -> int | None:
        """The open file of the lock; None if it was only to be found free."""
        seen: Holder | None = None
        since, told = time.monotonic(), False
        while True:
            file = os.open(self.path, os.O_RDWR | (os.O_CREAT if taking else 0), 0o666)
            mine = _try_kernel(file)
            holder = _read(file)
            if taking and not _same_file(file, self.path):
                os.close(file)
                continue
            state = self._judge(mine, holder, seen, time.monotonic() - since)
            if state == "free" and taking:
                return self._take(file, sure=bool(mine) and self._is_here(holder))
            os.close(file)
            # Nobody there and no lock for us: another looks too, or has just started and will look for us.
            if not taking and (state == "free" or holder is None):
                return None
            who = holder or "it has just started"
            if state == "busy" and not self.waiting:
                raise BusyError(
                    f"another process ({who}) is writing {self.what}; wait until it is done, stop it, or choose "
                    "another name or place"
                )
            if not told:
                told = True
                until = "it is done" if state == "busy" else f"it shows life, for {PATIENCE_SECONDS:.0f} s at most"
                _log.warning("another process (%s) is writing %s; waiting until %s", who, self.what, until)
            if holder != seen:
                seen, since = holder, time.monotonic()
            time.sleep(_POLL_SECONDS)

    def _judge(self, mine: bool | None, holder: Holder | None, seen: Holder | None, still: float) -> State:
        """Whether the lock is free.

        Args:
            mine: Whether the kernel gave it; None if it does not know.
            holder: Who stands in the file.
            seen: Who stood there when it last changed.
            still: For how many seconds it has not changed since.
        """
        if mine is not None and self._is_here(holder):
            return "free" if mine else "busy"
        if holder is None or (holder == seen and still > PATIENCE_SECONDS):
            return "free"
        return "busy" if seen is not None and holder != seen else "unknown"

    def _is_here(self, holder: Holder | None) -> bool:
        return holder is None or holder.machine == self._me.machine

    def _take(self, file: int, *, sure: bool) -> int:
        _write(file, self._me)
        if not sure:
            # Two may have found it free at once: the one that wrote last has it.
            time.sleep(_POLL_SECONDS)
            other = _read(file)
            if other is None or other.token != self._me.token:
                os.close(file)
                raise BusyError(f"another process ({other}) is writing {self.what}; wait until it is done")
        return file

    def _beat(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            try:
                found = _read(self._file)
                if found != self._me:
                    _log.error("%s has been taken over by another process (%s)", self.what, found)
                    return
                self._me = dataclasses.replace(self._me, beat=self._me.beat + 1)
                _write(self._file, self._me)
            except OSError as error:
                _log.warning("%s: the lock could not be renewed (%s)", self.path, error.strerror)


def _try_kernel(file: int) -> bool | None:
    """Whether the kernel gives the lock; None where the disk has no locks.

    Of the kernel's kinds the one that a forked process does not share: workers outlive a killed trainer for seconds.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except PermissionError:  # EACCES means the same
        return False
    except OSError:
        return None
    return True


def _same_file(file: int, path: Path) -> bool:
    """Whether the name still leads to the open file: who releases a lock removes it."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(file))


def _read(file: int) -> Holder | None:
    try:
        return Holder(**json.loads(os.pread(file, _SIZE, 0)))
    except (ValueError, TypeError):
        return None


def _write(file: int, holder: Holder) -> None:
    os.pwrite(file, json.dumps(dataclasses.asdict(holder)).ljust(_SIZE).encode(), 0)
    os.fsync(file)


def _machine() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return socket.gethostname()
