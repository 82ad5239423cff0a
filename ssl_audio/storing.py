"""The one way to write a file: under its name it is whole or not there, even after a kill or on a full disk."""

import contextlib
import errno
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_SHOWN = 50  # characters of the name in the hidden one: 255 bytes is the most for both
# What network disks answer that cannot sync a folder by itself.
_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES)


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A hidden name beside a file, for what will replace it.

    On leaving, the content is brought to the disk and then gets its name. After an error nothing is left, and what was
    there before is untouched; nor does anything get the name if the hidden file was removed.

    Args:
        path: The file's name; a link leads to the file that is replaced. Missing folders are made.

    Raises:
        OSError: if it cannot be written.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    hidden = target.with_name(f".{target.name[:_SHOWN]}.{secrets.token_hex(4)}.part")
    try:
        yield hidden
        if hidden.exists():
            sync(hidden)
            hidden.replace(target)
            _sync_names(target.parent)
    finally:
        hidden.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when it is whole; see `aside`. A pipe or a device is written to directly.

    Raises:
        OSError: if it cannot be written.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with path.open("wb") as file:
            yield file
        return
    with aside(path) as hidden, hidden.open("xb") as file:
        yield file


def store(path: Path, content: str | bytes) -> None:
    """Write a file at once; text is UTF-8.

    Raises:
        OSError: if it cannot be written; what was there before is untouched.
    """
    with writing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def link(source: Path, target: Path) -> None:
    """Give a file a second name, in one step and without a copy where the disk can.

    Raises:
        OSError: if neither is possible.
    """
    with aside(target) as hidden:
        try:
            os.link(source, hidden)
        except OSError:
            shutil.copyfile(source, hidden)


def sweep(folder: Path, name: str | None = None, *, deep: bool = False) -> None:
    """Remove what killed processes left half written. Only for those who know that nobody writes there now.

    Args:
        folder: Where to look.
        name: The name that the files were to get; any if left out.
        deep: In the folders below, too.
    """
    pattern = f".{'*' if name is None else glob.escape(name[:_SHOWN])}.*.part"
    for left in folder.rglob(pattern) if deep else folder.glob(pattern):
        left.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk.

    Raises:
        OSError: if it is not there or the disk fails.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_names(folder: Path) -> None:
    """The file is there: a disk that cannot sync a folder by itself is no failure."""
    try:
        sync(folder)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
