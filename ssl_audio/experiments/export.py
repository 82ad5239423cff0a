"""Exporting a checkpoint: written, opened by the code that will open it, compared, described."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from jsonargparse.typing import PositiveFloat

from ssl_audio.audio.files import decode
from ssl_audio.checkpoints.exporting.folder import prepare
from ssl_audio.checkpoints.exporting.layouts import Written, chosen, onnx_layout, taken
from ssl_audio.checkpoints.exporting.onnx import INT8, MODEL, Input, check_packages, onnx_runner
from ssl_audio.checkpoints.exporting.parity import Row, batches, compare, five_batches, keep
from ssl_audio.checkpoints.exporting.source import Source
from ssl_audio.checkpoints.exporting.standalone import built
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.checkpoints.sizes import NO_HINTS, Hints
from ssl_audio.data.manifest import manifest_digest
from ssl_audio.errors import CheckpointError, RecipeError
from ssl_audio.experiments.arguments import checked
from ssl_audio.experiments.hub import client
from ssl_audio.experiments.hub import push as upload
from ssl_audio.experiments.model_card import NAME, card
from ssl_audio.storing import store

LayoutName = Literal["auto", "ast", "timm", "torch"]
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export became.

    Args:
        folder: Where it lies.
        opens: Who opens it, in a few words.
        rows: How it compares with its checkpoint.
        megabytes: Of its files.
    """

    folder: Path
    opens: str
    rows: list[Row]
    megabytes: float


@checked
def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    format: Literal["huggingface", "onnx"] = "huggingface",
    layout: LayoutName = "auto",
    input: Input = "waveform",
    int8: bool = False,
    head: bool = True,
    seconds: PositiveFloat | None = None,
    audio: Sequence[str | Path] = (),
    shards: Sequence[str | Path] = (),
    push: str | None = None,
    base: Path | None = None,
    hints: Hints = NO_HINTS,
    say: Callable = print,
) -> Exported:
    """Write a checkpoint as others open it, and compare what they make of it with what the checkpoint says.

    Args:
        checkpoint: Ours, whole or adapters alone (they are merged), or a published file.
        out: A folder; it is made.
        format: `huggingface` writes a folder for transformers, timm or PyTorch alone; `onnx` a file for onnxruntime.
        layout: Of a `huggingface` folder; `auto` takes the first that has a place for everything.
        input: Of `onnx`: whether the file begins with waveforms or with log-mel spectrograms.
        int8: Of `onnx`: also write a file whose weights have 8 bits, and say what that costs.
        head: Whether the head goes with it, if there is one.
        seconds: Length of clips, where a layout takes one length; by default as long as the positions.
        audio: Recordings to compare on; by default sounds of the demo corpus.
        shards: Folders of shards that it was trained on, for corpora and licences in the card.
        push: Repository on Hugging Face's hub, owner/name, that the folder is uploaded to once it agrees; for whoever
            is logged in. A new one is private.
        base: What an adapter checkpoint was trained on; by default looked for in runs/ and beside the file.
        hints: What a published checkpoint does not say.
        say: Is told a line of each thing that was found.

    Raises:
        RecipeError: if no layout has a place for it, or what opens it is not installed.
        CheckpointError: if it cannot be read or written, or the export says something else; its files are kept.
    """
    folder = Path(out)
    api = None if push is None else client(push)
    source = Source.of(open_checkpoint(Path(checkpoint), base=base, hints=hints), head=head)
    if source.checkpoint.image:
        raise RecipeError(
            f"{checkpoint}: {source.checkpoint.kind} has seen pictures only; pretrain or fine-tune it first"
        )
    if format == "onnx":
        check_packages()
        picked = taken(onnx_layout(input, int8), source)
    else:
        picked, passed = chosen(source, layout)
        for line in passed:
            say(line)
    real = [torch.from_numpy(decode(Path(path), sample_rate=source.backbone.frontend.sample_rate)) for path in audio]
    _check_shards(source, [Path(one) for one in shards], say)
    prepare(folder, Path(checkpoint), base)
    try:
        written = picked.write(source, folder, None if seconds is None else float(seconds))
    except OSError as error:
        raise CheckpointError(f"cannot write {folder} ({error.strerror}); choose another, or make room") from error
    dynamic = format == "onnx" and source.backbone.fixed_frames is None
    rows = _checked(source, written, real, say, dynamic=dynamic)
    lost = _lost(source, written, folder, input, say) if int8 else []
    text = card(
        source,
        library={"onnxruntime": "onnx", None: "pytorch"}.get(picked.package, picked.package or ""),
        opens=written.opens,
        code=written.code,
        limits=[*written.limits, *lost],
        rows=rows,
        shards=[Path(one) for one in shards],
    )
    store(folder / NAME, text)
    keep(folder, rows, said={"checkpoint": str(checkpoint), "opens": written.opens})
    if push is not None:
        say(f"pushed to {upload(api, folder, push)}")
    size = sum((folder / name).stat().st_size for name in written.files) / 1e6
    return Exported(folder=folder, opens=written.opens, rows=rows, megabytes=size)


def _check_shards(source: Source, shards: list[Path], say: Say) -> None:
    for folder in shards:
        digest = manifest_digest(folder)
        if digest is None:
            raise RecipeError(f"--shards {folder}: has no manifest.json; expected a folder of shards")
        if digest not in source.checkpoint.manifests:
            say(
                f"--shards {folder}: are not those that the checkpoint says it was trained on; the card leaves them out"
            )


def _checked(source: Source, written: Written, real: list[torch.Tensor], say: Say, *, dynamic: bool) -> list[Row]:
    audio = batches(source, written.lengths, real)
    if dynamic:
        audio = [*(audio[:1] if real else []), *five_batches(source, written.lengths[0])]
    rows = compare(source, written.run, audio)
    for row in rows:
        say(f"{'agrees' if row.passed() else 'DIFFERS'}: {row.text()}")
    return rows


def _lost(source: Source, written: Written, folder: Path, input: Input, say: Say) -> list[str]:
    """What weights in 8 bits cost, in words."""
    run = onnx_runner(built(source), folder / INT8, input=input)
    rows = compare(source, run, batches(source, [written.lengths[0]] * 2))
    sizes = [(folder / name).stat().st_size / 1e6 for name in (INT8, MODEL)]
    lines = [
        f"{INT8} ({sizes[0]:.1f} MB for {sizes[1]:.1f}), on {row.audio} audio: {row.what} differ by "
        f"{row.difference:.1e} of the largest, smallest cosine {row.cosine:.4f}."
        for row in rows
    ]
    for line in lines:
        say(line)
    return lines
