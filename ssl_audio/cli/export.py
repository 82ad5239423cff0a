"""`ssl-audio export`: a checkpoint as a whole file, without its adapters, or in another's layout."""

import dataclasses
from pathlib import Path
from typing import Literal

from ssl_audio.checkpoints.checkpoint import content_of
from ssl_audio.checkpoints.merging import merged
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.checkpoints.peft_writing import write_peft
from ssl_audio.checkpoints.sizes import NO_HINTS, Hints
from ssl_audio.cli.parser import call
from ssl_audio.errors import RecipeError
from ssl_audio.training.checkpoint_files import AtomicCheckpointIO


def run(words: list[str]) -> None:
    """Parse and call `export`; `--merge` needs no value."""
    values = ("true", "false", "True", "False")
    bare = [word == "--merge" and after not in values for word, after in zip(words, [*words, ""][1:], strict=True)]
    words = ["--merge=true" if alone else word for word, alone in zip(words, bare, strict=True)]
    call(export, words, prog="ssl-audio export", positional=False)


def export(
    checkpoint: Path,
    out: Path,
    format: Literal["ssl_audio", "peft"] = "ssl_audio",
    merge: bool = False,
    base: Path | None = None,
    hints: Hints = NO_HINTS,
) -> None:
    """Write a checkpoint in another form: whole, with adapters merged into plain weights, or LoRA in peft's layout.

    Args:
        checkpoint: Ours, whole or adapters alone, or a folder of peft's.
        out: A .ckpt file; for `peft` a folder.
        format: `ssl_audio` writes a whole checkpoint, `peft` a folder that peft reads, with what it has no place for
            beside it.
        merge: Fold every adapter into the weights of its base; one that cannot be is refused.
        base: What an adapter checkpoint was trained on; by default looked for below runs/ and beside the file.
        hints: What a published checkpoint does not say.
    """
    found = open_checkpoint(checkpoint, hints=hints, base=base)
    if format == "peft":
        if merge:
            raise RecipeError("--merge leaves no adapter for --format peft; expected one of the two")
        modules = write_peft(found, out)
        print(f"{out}: LoRA of {modules} projections in peft's layout")
        return
    if found.fates:
        raise RecipeError(f"{checkpoint}: is a published file; expected a checkpoint of ours, or an adapter on it")
    said = "with all its weights"
    if merge:
        found, differs = merged(found)
        said = f"without adapters; outputs differ by {differs:.1e} of the largest"
    if out.suffix != ".ckpt":
        raise RecipeError(f"--out {out}: expected a name that ends in .ckpt")
    AtomicCheckpointIO().save_checkpoint(content_of(dataclasses.replace(found, base=None)), out)
    print(f"{out}: {said} ({out.stat().st_size / 1e6:.1f} MB)")
