"""Files that are there whole or not at all, even after a kill or a power cut."""

import os
from pathlib import Path


def store(path: Path, text: str) -> None:
    """Write a text file."""
    aside = beside(path)
    aside.write_text(text, encoding="utf-8")
    settle(aside, path)


def beside(path: Path) -> Path:
    """A hidden name for a file while it is written, which no other process uses."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def settle(aside: Path, path: Path) -> None:
    """Bring a finished file to the disk and then to its name."""
    sync(aside)
    aside.replace(path)
    sync(path.parent)


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
