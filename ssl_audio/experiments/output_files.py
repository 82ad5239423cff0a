"""Files that the user asked for: written whole or not at all, by one process at a time."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ssl_audio.errors import SslAudioError
from ssl_audio.locking import Lock
from ssl_audio.storing import store, sweep


def write_text(path: Path, text: str) -> None:
    """Write a text that the user asked for; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that the user asked for, whole or not at all, and its folder.

    Raises:
        SslAudioError: if it cannot be written.
    """
    try:
        store(path, content)
    except OSError as error:
        raise SslAudioError(
            f"cannot write {path} ({error.strerror or error}); choose another place, or make room"
        ) from error


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """While no other process may write what the user asked for.

    Raises:
        BusyError: if one does.
        SslAudioError: if it cannot be written.
    """
    with contextlib.ExitStack() as held:
        if path.is_file() or path.is_dir() or not path.exists():  # and not a pipe or a device
            try:
                held.enter_context(Lock(path))
            except OSError as error:
                raise SslAudioError(f"cannot write {path} ({error.strerror}); choose another place") from error
            there = path.resolve()
            sweep(there.parent, there.name)
        yield
