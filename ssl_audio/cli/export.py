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
from ssl_audio.cli.answers import tell
from ssl_audio.cli.parser import call
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
    """Write a checkpoint in another form: whole, with adapters merged into plain weights, or as others open it.

    Args:
        checkpoint: Ours, whole or adapters alone, or a folder of peft's; for `huggingface` a published file too.
        out: A file that ends in .ckpt or .safetensors; for the other formats a folder.
        format: `ssl_audio` and `safetensors` write a whole checkpoint; `peft` a folder that peft reads, with what it
            has no place for beside it; `huggingface` a folder for transformers, timm or PyTorch alone, adapters merged,
            and then compares what those make of it with the checkpoint; `onnx` a folder with a file for onnxruntime.
        merge: Fold every adapter into the weights of its base; one that cannot be is refused.
        layout: Of a `huggingface` folder: `ast` opens in transformers, `timm` in timm, `torch` needs PyTorch alone and
            holds anything; `auto` takes the first that has a place for everything.
        head: Of `huggingface` and `onnx`: whether the head goes with it, if there is one.
        seconds: Of `ast` and `timm`: the length of clips; by default as long as the positions.
        input: Of `onnx`: whether the file begins with waveforms or with log-mel spectrograms.
        int8: Of `onnx`: also write a file whose weights have 8 bits, and say what that costs.
        audio: Recordings to compare on; by default sounds of the demo corpus.
        shards: Folders of shards that it was trained on, for corpora and licences in the model card.
        push: Repository on Hugging Face's hub, owner/name, that an exported folder is uploaded to once it agrees, for
            whoever is logged in; a new one is private.
        base: What an adapter checkpoint was trained on; by default looked for below runs/ and beside the file.
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
        tell(dataclasses.asdict(found))
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
