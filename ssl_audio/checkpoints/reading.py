"""Tensors from a file that nobody vouches for: nothing in it is executed, and nothing larger than it is made."""

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_audio.checkpoints.pickles import ForbiddenError, PickleScan
from ssl_audio.data.json_values import read_json
from ssl_audio.errors import CheckpointError
from ssl_audio.kinds import HEAD_BYTES, kind_of, kind_of_file

_LEGACY = 0x1950A86A20F9469CFC6C
_DEEPEST = 32
_MOST_VALUES = 20_000_000
_DTYPES = frozenset(
    {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.float16, torch.bfloat16, torch.float32, torch.float64}
)

_SAFETENSORS = ".safetensors"
_TOLD = "ssl_audio"
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"


def read(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """What a `.ckpt`, `.pth`, `.pt`, `.bin` or `.safetensors` file holds: tensors and plain values by name.

    Args:
        path: The file.
        mmap: Leave the tensors in the file until they are looked at, where torch can.

    Raises:
        CheckpointError: if it is missing, damaged, something else, holds more than tensors and plain values, or would
            take more memory than it has bytes.
    """
    begin = _first_bytes(path)
    try:
        if path.suffix == _SAFETENSORS:
            found: Any = _safetensors(path)
        else:
            zipped = begin.startswith(_ZIP)
            _check_contents(path, zipped=zipped)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and zipped)
    except CheckpointError:
        raise
    except (ForbiddenError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path}: holds more than tensors and plain values, or is no checkpoint; it was not loaded"
        ) from error
    # Whatever a reader stumbles over, the file is why.
    except Exception as error:
        raise _damaged(path, error) from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds a {type(found).__name__}; expected tensors by name")
    _check_values(path, found)
    return found


def _safetensors(path: Path) -> dict[str, Any]:
    """The tensors of a file; of a checkpoint of ours, beside what it says of itself (see `safetensors_files`)."""
    from safetensors import safe_open  # few files are

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if _TOLD not in metadata:
        return tensors
    return {
        "state_dict": tensors,
        "global_step": int(metadata.get("global_step", "0")),
        _TOLD: read_json(metadata[_TOLD].encode()),
    }


def _first_bytes(path: Path) -> bytes:
    """How a regular file begins that may be a checkpoint.

    Raises:
        CheckpointError: if it is missing, a folder or a device, or begins as another kind of file does.
    """
    try:
        if path.is_dir():
            raise CheckpointError(
                f"{path} is a folder without a config.json; expected a checkpoint file such as checkpoints/last.ckpt, "
                "or a folder that transformers or timm wrote"
            )
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path}: is {kind_of_file(path)}; expected a checkpoint file")
        with path.open("rb") as file:
            begin = file.read(HEAD_BYTES)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint; expected a file or a folder on this machine") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); expected a checkpoint") from error
    if not begin:
        raise CheckpointError(f"{path}: is empty; expected a checkpoint")
    fits = begin[8:9] == b"{" if path.suffix == _SAFETENSORS else begin.startswith((_ZIP, _PICKLE))
    if not fits:
        raise CheckpointError(
            f"{path}: damaged or no checkpoint: it is {kind_of(begin)}; fetch it again, or take another"
        )
    return begin


def _check_contents(path: Path, *, zipped: bool) -> None:
    """What would be loaded is no more than what the file holds.

    Raises:
        CheckpointError: if it is more.
        ForbiddenError: if it is something else than tensors and plain values.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if zipped:
            stored, records = _zipped(path, file)
            short = [key for key, wanted in stored.items() if wanted > records.get(key, 0)]
            if short:
                raise CheckpointError(
                    f"{path}: tensor {short[0]} is described as {stored[short[0]]} bytes and has "
                    f"{records.get(short[0], 0)}; the file is damaged, fetch it again"
                )
            return
        parts = _Clipped(file, size)
        if PickleScan(parts).load() != _LEGACY:
            raise CheckpointError(f"{path}: damaged or no checkpoint; fetch it again, or take another")
        scans = [PickleScan(parts) for _ in ("protocol", "system", "content")]
        for scan in scans:
            scan.load()
    wanted = sum(scans[-1].storages.values())
    if wanted > size:
        raise CheckpointError(f"{path}: describes {wanted} bytes of tensors in {size}; it is damaged, fetch it again")


def _zipped(path: Path, file: io.BufferedReader) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes that each storage is said to have, and those it has."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        packed = [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
        if packed:
            raise CheckpointError(
                f"{path}: holds compressed entries ({packed[0].filename[:60]!r}), which torch.save never writes; "
                "unpack it first if it is an archive of checkpoints"
            )
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise CheckpointError(f"{path}: its entries lie over one another; it was not loaded")
        content = [entry for entry in entries if re.fullmatch(r"[^/]*/data\.pkl", entry.filename)]
        if len(content) != 1:
            raise CheckpointError(
                f"{path}: is a ZIP archive without a data.pkl, and so no checkpoint; unpack it first if it holds one"
            )
        scan = PickleScan(io.BytesIO(archive.read(content[0])))
        scan.load()
        root = content[0].filename.removesuffix(".pkl") + "/"
        records = {
            entry.filename.removeprefix(root): entry.file_size for entry in entries if entry.filename.startswith(root)
        }
    return scan.storages, records


class _Clipped(io.RawIOBase):
    """A file of which never more is asked than it has: a length in it may be anything."""

    def __init__(self, file: io.BufferedReader, size: int) -> None:
        super().__init__()
        self._file = file
        self._size = size

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, self._size) if size >= 0 else self._size)

    def readline(self, size: int | None = -1) -> bytes:
        return self._file.readline(-1 if size is None else size)


def _check_values(path: Path, found: dict[str, Any]) -> None:
    """Tensors are plain ones in memory of their own, and nothing lies endlessly deep."""
    size = path.stat().st_size
    total = 0
    try:
        # A value that nothing else shares takes a byte at least.
        for name, value in leaves(found, most=min(size + 1000, _MOST_VALUES)):
            if not isinstance(value, Tensor):
                continue
            wrong = _wrong(value)
            if wrong is not None:
                raise CheckpointError(f"{path}: {name[:100]} {wrong}; expected plain tensors of numbers")
            total += value.numel() * value.element_size()
    except RecursionError as error:
        raise CheckpointError(f"{path}: {error}; it was not loaded") from error
    if total > 2 * size + 2**20:
        raise CheckpointError(f"{path}: its tensors would take {total} bytes, and it has {size}; it was not loaded")


def _wrong(value: Tensor) -> str | None:
    if value.layout != torch.strided or value.is_quantized:
        return "is sparse or quantised"
    if value.device.type != "cpu":
        return f"lies on the device {value.device.type}"
    if value.dtype not in _DTYPES:
        return f"holds {str(value.dtype).removeprefix('torch.')}"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"of the shape {tuple(value.shape)} repeats {value.untyped_storage().nbytes()} bytes"
    return None


def leaves(tree: Any, *, most: int) -> Iterator[tuple[str, Any]]:
    """What lies in nested dictionaries and lists, each with its place.

    Args:
        tree: The outermost of them.
        most: How many values there may be.

    Raises:
        RecursionError: if they lie too deep, or are more.
    """
    waiting, seen = [("", tree, 0)], 0
    while waiting:
        place, value, depth = waiting.pop()
        seen += 1
        if depth > _DEEPEST or seen > most:
            raise RecursionError(f"holds values more than {_DEEPEST} deep, or more than {most} of them")
        if isinstance(value, dict):
            waiting += [(f"{place}.{key}" if place else str(key), inner, depth + 1) for key, inner in value.items()]
        elif isinstance(value, list | tuple | set):
            waiting += [(place, inner, depth + 1) for inner in value]
        else:
            yield place, value


def _damaged(path: Path, error: Exception) -> CheckpointError:
    # Of torch's paragraph the first sentence.
    reason = str(error).splitlines()[0].split(". ")[0] if str(error).strip() else type(error).__name__
    return CheckpointError(f"{path}: damaged or no checkpoint ({reason[:200]}); fetch it again, or take another")
