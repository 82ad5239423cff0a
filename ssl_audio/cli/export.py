"""`ssl-audio export`: a checkpoint as a whole file, without its adapters, or as others open it."""

import dataclasses
from pathlib import Path
from typing import Literal

from jsonargparse.typing import PositiveFloat

from ssl_audio.checkpoints.checkpoint import Checkpoint, content_of
from ssl_audio.checkpoints.exporting.folder import apart
from ssl_audio.checkpoints.exporting.onnx import Input
from ssl_audio.checkpoints.merging import merged
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.checkpoints.peft_writing import write_peft
from ssl_audio.checkpoints.safetensors_files import write_safetensors
from ssl_audio.checkpoints.sizes import NO_HINTS, Hints
from ssl_audio.cli.parser import call
from ssl_audio.cli.results import add_result
from ssl_audio.errors import RecipeError
from ssl_audio.experiments.export import LayoutName
from ssl_audio.experiments.export import export as export_folder
from ssl_audio.names import printable
from ssl_audio.training.checkpoint_files import AtomicCheckpointIO

_SUFFIXES = {"ssl_audio": ".ckpt", "safetensors": ".safetensors"}


def run(words: list[str]) -> None:
    """Parse and call `export`; `--merge` needs no value."""
    values = ("true", "false", "True", "False")
    bare = [word == "--merge" and after not in values for word, after in zip(words, [*words, ""][1:], strict=True)]
    words = ["--merge=true" if alone else word for word, alone in zip(words, bare, strict=True)]
    call(export, words, prog="ssl-audio export", positional=False)


def export(
    checkpoint: Path,
    out: Path,
    format: Literal["ssl_audio", "safetensors", "peft", "huggingface", "onnx"] = "ssl_audio",
    merge: bool = False,
    layout: LayoutName = "auto",
    head: bool = True,
    seconds: PositiveFloat | None = None,
    input: Input = "waveform",
    int8: bool = False,
    audio: list[Path] | None = None,
    shards: list[Path] | None = None,
    push: str | None = None,
    base: Path | None = None,
    hints: Hints = NO_HINTS,
) -> None:
    """Convert a checkpoint: a whole file, adapters merged into plain weights, or a folder for other libraries.

    Args:
        checkpoint: A checkpoint of ssl-audio (whole, or adapters alone) or a folder of peft; for `huggingface` and
            `onnx` also a published file.
        out: A file that ends in .ckpt or .safetensors; for the other formats a folder, new or empty.
        format: `ssl_audio` and `safetensors` write one whole file. `huggingface` writes a folder for transformers,
            timm or PyTorch, `onnx` one for onnxruntime: adapters are merged, and the outputs compared with those of
            the checkpoint. `peft` writes LoRA as peft reads it.
        merge: Merge the adapters into the weights; an adapter that cannot be merged is refused.
        layout: Layout of `huggingface`: `ast` for transformers, `timm` for timm, `torch` for PyTorch alone, which has
            a place for everything; `auto` takes the first of these that fits.
        head: Include the head, if there is one (`huggingface`, `onnx`).
        seconds: Length of clips (`ast`, `timm`); by default as long as the positions.
        input: Input of the `onnx` model: waveforms, or log-mel spectrograms.
        int8: Also write an `onnx` model with 8-bit weights, and print the loss of precision.
        audio: Recordings to compare on; by default sounds of the demo corpus.
        shards: Folders of shards that it was trained on: the model card names their corpora and licences.
        push: Repository on Hugging Face's hub (owner/name) to upload the folder to after a passed comparison; needs
            a login, and a new repository is private.
        base: The base of an adapter checkpoint; by default looked for below runs/ and beside the file.
        hints: What a published checkpoint does not say.
    """
    if format in ("huggingface", "onnx"):
        if merge:
            raise RecipeError(f"--merge: --format {format} merges adapters anyway; leave it out")
        if (input != "waveform" or int8) and format != "onnx":
            raise RecipeError("--input and --int8 are for --format onnx; leave them out")
        if layout != "auto" and format != "huggingface":
            raise RecipeError("--layout is for --format huggingface; leave it out")
        found = export_folder(
            checkpoint,
            out,
            format=format,
            layout=layout,
            head=head,
            seconds=seconds,
            input=input,
            int8=int8,
            audio=audio or [],
            shards=shards or [],
            push=push,
            base=base,
            hints=hints,
            say=lambda line: print(printable(line)),
        )
        add_result(dataclasses.asdict(found))
        print(f"{printable(str(out))}: opens with {found.opens} ({found.megabytes:.1f} MB)")
        return
    given = (
        layout != "auto",
        not head,
        seconds is not None,
        input != "waveform",
        int8,
        bool(audio),
        bool(shards),
        bool(push),
    )
    _refuse_options(format, *given)
    apart(out, checkpoint, base)
    whole = open_checkpoint(checkpoint, hints=hints, base=base)
    if format == "peft":
        if merge:
            raise RecipeError("--merge leaves no adapter for --format peft; expected one of the two")
        modules = write_peft(whole, out)
        print(f"{out}: LoRA of {modules} projections in peft's layout")
        return
    _write_whole(whole, out, format, merge=merge)


def _refuse_options(format: str, *given: bool) -> None:
    names = ("layout", "head", "seconds", "input", "int8", "audio", "shards", "push")
    for name, is_given in zip(names, given, strict=True):
        if is_given:
            raise RecipeError(f"--{name} is for --format huggingface or onnx, not for {format}; leave it out")


def _write_whole(found: Checkpoint, out: Path, format: str, *, merge: bool) -> None:
    if found.fates:
        raise RecipeError(f"{found.path}: is a published file; expected a checkpoint of ours, or an adapter on it")
    said = "with all its weights"
    if merge:
        found, differs = merged(found)
        said = f"without adapters; outputs differ by {differs:.1e} of the largest"
    if out.suffix != _SUFFIXES[format]:
        raise RecipeError(f"--out {out}: expected a name that ends in {_SUFFIXES[format]}")
    found = dataclasses.replace(found, base=None)
    if format == "safetensors":
        write_safetensors(found, out)
    else:
        AtomicCheckpointIO().save_checkpoint(content_of(found), out)
    print(f"{out}: {said} ({out.stat().st_size / 1e6:.1f} MB)")
