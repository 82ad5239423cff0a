"""Tensors from a file that nobody vouches for: nothing in it is executed."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from ssl_audio.errors import CheckpointError


def read(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """What a `.ckpt`, `.pth`, `.pt`, `.bin` or `.safetensors` file holds: tensors and plain values by name.

    Args:
        path: The file.
        mmap: Leave the tensors in the file until they are looked at, where torch can.

    Raises:
        CheckpointError: if it is missing, damaged, or holds more than tensors and plain values.
    """
    if path.suffix == ".safetensors":
        return _safetensors(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and zipfile.is_zipfile(path))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except IsADirectoryError as error:
        raise CheckpointError(
            f"{path} is a folder; expected a checkpoint file such as checkpoints/last.ckpt"
        ) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than tensors and plain values, or is no checkpoint; it was not loaded"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise _damaged(path, error) from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds a {type(found).__name__}; expected tensors by name")
    return found


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file  # few files are

    try:
        loaded: dict[str, Any] = load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except Exception as error:
        raise _damaged(path, error) from error
    return loaded


def _damaged(path: Path, error: Exception) -> CheckpointError:
    if not path.stat().st_size:
        return CheckpointError(f"{path}: is empty; expected a checkpoint")
    # Of torch's paragraph the first sentence.
    reason = str(error).splitlines()[0].split(". ")[0] if str(error) else type(error).__name__
    return CheckpointError(f"{path}: damaged or no checkpoint ({reason}); fetch it again, or take another")
