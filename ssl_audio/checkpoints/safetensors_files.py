"""A whole checkpoint in a .safetensors file: tensors, and what it says of itself in the file's metadata.

`reading.read` reads it back.
"""

import json
from pathlib import Path

from torch import Tensor

from ssl_audio.checkpoints.checkpoint import Checkpoint, content_of
from ssl_audio.errors import CheckpointError
from ssl_audio.storing import writing

_TOLD, _STEP = "ssl_audio", "global_step"


def write_safetensors(found: Checkpoint, out: Path) -> None:
    """Write a checkpoint that is whole.

    Raises:
        CheckpointError: if it cannot be written.
    """
    from safetensors.torch import save

    content = content_of(found)
    told = {_TOLD: json.dumps(content[_TOLD], ensure_ascii=False), _STEP: str(content[_STEP]), "format": "pt"}
    tensors: dict[str, Tensor] = {
        name: value.detach().clone().contiguous() for name, value in content["state_dict"].items()
    }
    try:
        with writing(out) as file:
            file.write(save(tensors, metadata=told))
    except OSError as error:
        raise CheckpointError(f"cannot write {out} ({error.strerror}); choose another name, or make room") from error
