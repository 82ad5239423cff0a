"""Output files at paths that the user gave: written whole or not at all, by one process at a time."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ssl_audio.errors import SslAudioError
from ssl_audio.locking import Lock
from ssl_audio.storing import store, sweep


def write_text(path: Path, text: str) -> None:
    """Write a text file; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all; its folder is made if it is missing.

    Raises:
        SslAudioError: if it cannot be written.
    """
    try:
        store(path, content)
    except OSError as error:
        raise SslAudioError(
            f"cannot write {path} ({error.strerror or error}); choose another path, or free disk space"
        ) from error


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Lock a path against other writers, for the time of the context.

    Raises:
        BusyError: if another process writes it.
        SslAudioError: if it cannot be written.
    """
    with contextlib.ExitStack() as held:
        if path.is_file() or path.is_dir() or not path.exists():  # neither a pipe nor a device
            try:
                held.enter_context(Lock(path))
            except OSError as error:
                raise SslAudioError(f"cannot write {path} ({error.strerror}); choose another path") from error
            there = path.resolve()
            sweep(there.parent, there.name)
        yield
