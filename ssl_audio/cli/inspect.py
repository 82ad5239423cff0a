"""`ssl-audio inspect`: say in a screenful what a thing is."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

from ssl_audio.checkpoints.base import STATISTICS
from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.checkpoints.hugging_face_folders import is_folder
from ssl_audio.checkpoints.imported import report
from ssl_audio.checkpoints.opening import open_alone, open_checkpoint
from ssl_audio.checkpoints.peft import is_peft
from ssl_audio.checkpoints.sizes import NO_HINTS, Hints
from ssl_audio.cli.parser import call
from ssl_audio.cli.results import add_result
from ssl_audio.cli.shards import describe as describe_shards
from ssl_audio.data.index import is_shard_folder, open_shards
from ssl_audio.data.manifest import FILE_NAME, Manifest
from ssl_audio.errors import CheckpointError, SslAudioError
from ssl_audio.names import printable
from ssl_audio.training.run import RECIPE, SUMMARY, Run

_SHOWN = 1000


def run(words: list[str]) -> None:
    """Parse and call `inspect`."""
    call(inspect, words, prog="ssl-audio inspect")


def inspect(what: Path, *, hints: Hints = NO_HINTS, base: Path | None = None) -> None:
    """Say what a run, a checkpoint or a folder of shards is.

    Args:
        what: A run folder such as runs/pretrain/demo/0, a checkpoint file, or a folder of shards.
        hints: What a published checkpoint does not say.
        base: What an adapter checkpoint was trained on; by default looked for below runs/ and beside the file.
    """
    if not what.exists():
        raise SslAudioError(f"{what}: nothing there; expected a run, a checkpoint or a folder of shards")
    if (what.is_file() and what.suffix != ".tar") or is_peft(what) or is_folder(what):
        add_result({"kind": "checkpoint"})
        _say(_checkpoint(_opened(what, hints, base)))
    elif (what / RECIPE).exists():
        _say(_run(Run(what)))
    elif is_shard_folder(what) or what.suffix == ".tar":
        _say(_shards(what))
    else:
        raise SslAudioError(
            f"{what}: neither a run (no {RECIPE}), nor shards (no .tar), nor a checkpoint file; "
            "a run lies in a numbered folder such as runs/pretrain/demo/0"
        )


def _say(text: str) -> None:
    """Print lines in which names from outside stand."""
    print("\n".join(map(printable, text.split("\n"))))


def _shards(folder: Path) -> str:
    if (folder / FILE_NAME).exists():
        manifest = Manifest.load(folder)
        add_result({"kind": "shards", "folder": folder, **dataclasses.asdict(manifest)})
        return describe_shards(folder, manifest)
    index = open_shards([folder])
    add_result({"kind": "shards", "folder": folder, "clips": len(index), "seconds": float(index.seconds.sum())})
    return (
        f"shards      {folder}, without a manifest (not written by ssl-audio)\n"
        f"clips       {len(index)} in {len(index.paths)} tar files\n"
        f"sound       {float(index.seconds.sum()) / 3600:.2f} hours"
    )


def _run(this: Run) -> str:
    try:
        summary = this.summary()
        add_result({"kind": "run", "folder": this.folder, "finished": bool(summary), **(summary or {})})
        lines = _summary(this, summary)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise SslAudioError(
            f"{this.folder / SUMMARY}: is no summary of a run ({type(error).__name__}); expected what the verbs write"
        ) from error
    if this.last.exists() and (summary or {}).get("verb") != "finetune":
        lines.append(_checkpoint(open_checkpoint(this.last)))
    return "\n".join(lines)


def _summary(this: Run, summary: dict[str, Any] | None) -> list[str]:
    """What the summary of a run says, line by line."""
    lines = [f"run         {this.folder} ({'finished' if summary else 'unfinished: the same command resumes it'})"]
    if not summary:
        return lines
    if "steps" in summary:
        lines.append(
            f"training    {summary['steps']} steps in {summary['seconds']:.0f} s, "
            f"{summary['clips_per_second']:.0f} clips/s, {summary['precision']}, {summary['device']}"
        )
    lines += [
        f"versions    ssl_audio {summary['version']}, commit {str(summary['commit'])[:12]}, "
        + ", ".join(f"{name} {version}" for name, version in summary["packages"].items()),
        f"data        {', '.join(summary['data'])}",
    ]
    if summary["verb"] == "finetune":
        return [*lines, *(_score(start, row) for start, row in summary["scores"].items())]
    for task, row in summary.get("scores", {}).items():
        values = ", ".join(f"{name} {value['linear']:.3f}" for name, value in row.items())
        lines.append(f"probe       {task}: {values}")
    return lines


def _score(start: str, row: dict[str, Any]) -> str:
    low, high = row["interval"]
    return f"test        {start}: {row['headline']:.3f} (95 % {low:.3f} to {high:.3f}), {row['clips']} clips"


def _opened(path: Path, hints: Hints, base: Path | None) -> Checkpoint:
    """The checkpoint, whole where its base was given or can be found; what trained alone says something too."""
    if base is None and not is_peft(path):
        alone = open_alone(path, hints=hints)
        if alone.base is not None:
            try:
                return open_checkpoint(path, hints=hints)
            except CheckpointError:
                return alone
    return open_checkpoint(path, hints=hints, base=base)


def _trained(found: Checkpoint) -> list[str]:
    """What an adapter checkpoint holds, and what it stands on."""
    if found.base is None:
        return []
    own = {name: value.numel() for name, value in found.part("backbone").items() if name in found.base.trained}
    groups = Counter(".".join(name.split(".")[:2]) for name in own if name not in STATISTICS)
    numbers = sum(count for name, count in own.items() if name not in STATISTICS)
    named = ", ".join(f"{name} ({count} tensors)" for name, count in groups.items()) or "nothing of the backbone"
    where = f"found as {found.base.path}" if found.base.path is not None else "not found here; give it with --base FILE"
    return [f"trained     {numbers} parameters: {named}", f"base        {found.base.words}, {where}"]


def _checkpoint(found: Checkpoint) -> str:
    model = found.recipe["model"]
    parts = found.spec["init_args"]
    files = found.path.iterdir() if found.path.is_dir() else [found.path]
    size = sum(path.stat().st_size for path in files)
    told = {
        "path": found.path, "step": found.step, "kind": found.kind, "version": found.version, "model": model,
        "task": found.task, "base": None if found.base is None else found.base.words,
        "tensors": {fate.tensor: [fate.outcome, fate.note] for fate in found.fates},
    }  # fmt: skip
    lines = [
        f"checkpoint  {found.path} ({size / 1e6:.{1 if size > 1e5 else 3}f} MB), step {found.step}, "
        f"{found.kind} {found.version}",
        f"encoder     {_named(parts['encoder'])}",
        *(f"adapter     {_named(adapter)}" for adapter in parts.get("adapters") or []),
    ]
    lines += _trained(found)
    whole = found.base is None or found.base.path is not None
    if whole and not found.image:
        backbone = found.backbone()
        weights = sum(parameter.numel() for parameter in backbone.parameters())
        told["parameters"] = weights
        table = backbone.positions.table
        lines += [
            f"backbone    {weights / 1e6:.2f} M parameters, width {backbone.width}, "
            f"{len(backbone.class_tokens)} class tokens",
            f"patches     {backbone.patch[0]} bins x {backbone.patch[1]} frames, stride "
            f"{backbone.stride[0]} x {backbone.stride[1]}, "
            f"positions for {table.shape[0]} bands x {table.shape[1]} columns "
            f"({table.shape[1] * backbone.column_seconds:.2f} s)",
        ]
    add_result({"checkpoint": told})
    lines.append(f"frontend    {_named(parts['frontend'])}")
    if "objective" in model:
        lines.append(f"objective   {_named(model['objective'])}")
    if found.task is not None:
        labels = [printable(str(label)) for label in found.task["labels"]]
        more = f", and {len(labels) - 8} more" if len(labels) > 8 else ""
        lines.append(
            f"head        {len(labels)} labels of kind {printable(found.task['target'])}: {', '.join(labels[:8])}{more}"
        )
    if found.fates:
        lines.append("tensors     " + report(list(found.fates)))
    return "\n".join(lines)


def _named(spec: Any) -> str:
    """A class with those of its options that are plain values; whatever else stands in its place, as text."""
    if not isinstance(spec, dict):
        return printable(str(spec)[:_SHOWN])
    name = str(spec.get("class_path", "")).rsplit(".", 1)[-1]
    given = spec.get("init_args")
    options = {
        key: _named(value) if isinstance(value, dict) and "class_path" in value else value
        for key, value in (given if isinstance(given, dict) else {}).items()
        if value is not None
    }
    return printable(f"{name}({', '.join(f'{key}={str(value)[:_SHOWN]}' for key, value in options.items())})")
