"""Tensors in a .safetensors file under the names of others."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ssl_audio.errors import CheckpointError
from ssl_audio.storing import writing


def write_tensors(tensors: Mapping[str, Tensor], out: Path) -> None:
    """Write them.

    Raises:
        CheckpointError: if they cannot be written.
    """
    from safetensors.torch import save  # few exports are

    own = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    try:
        with writing(out) as file:
            file.write(save(own, metadata={"format": "pt"}))
    except OSError as error:
        raise CheckpointError(f"cannot write {out} ({error.strerror}); choose another folder, or make room") from error
