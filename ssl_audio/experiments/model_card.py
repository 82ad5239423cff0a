"""The card of an exported model: where it comes from, what it scored, how to load it, what it cannot do."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_audio import __version__
from ssl_audio.checkpoints.base import tensors_digest
from ssl_audio.checkpoints.exporting.parity import Row
from ssl_audio.checkpoints.exporting.source import Source
from ssl_audio.data.manifest import Manifest, manifest_digest
from ssl_audio.names import printable
from ssl_audio.training.run import Run

NAME = "README.md"


def card(
    source: Source,
    *,
    library: str,
    opens: str,
    code: str,
    limits: Sequence[str],
    rows: Sequence[Row],
    shards: list[Path],
) -> str:
    """The text of a card.

    Args:
        source: What was exported.
        library: For the hub: `transformers`, `timm`, `onnx` or `pytorch`.
        opens: Who opens it, in a few words.
        code: How to load and use it.
        limits: What it cannot do.
        rows: How it compares with its checkpoint.
        shards: Folders of shards that the user named, for corpus and licence.
    """
    found = source.checkpoint
    encoder = source.backbone.encoder
    parameters = sum(value.numel() for value in source.backbone.parameters())
    lines = [
        "---",
        f"library_name: {library}",
        "license: other",
        "tags: [audio, self-supervised-learning, ssl_audio]",
        "---",
        f"# {type(encoder).__name__} on log-mel patches, {parameters / 1e6:.1f} M parameters",
        "",
        f"{_kind(source)} It opens with {opens}. Written by ssl_audio {__version__}; sha256 of the weights "
        f"`{tensors_digest(found.weights)}`.",
        "",
        "## Use",
        "",
        "```python",
        code,
        "```",
        "",
    ]
    lines += [*_section("Training", _training(source, shards)), *_section("Scores", _scores(found.path))]
    if source.labels:
        what = "of which a clip may have several" if source.several else "of which a clip has one"
        lines += _section("Labels", [f"{len(source.labels)}, {what}: {printable(', '.join(source.labels))}."])
    checked = [f"{row.text()} (smallest cosine {row.cosine:.6f})." for row in rows]
    lines += _section("Checked against its checkpoint", checked)
    always = [
        "It was trained on the corpora above and knows nothing of other sounds, languages or recording conditions "
        "beyond what these hold.",
        "The licence of the corpora may restrict what the weights may be used for.",
    ]
    lines += _section("Limitations", [*limits, *always])
    return "\n".join(lines)


def _section(title: str, items: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *(f"* {item}" for item in items), ""] if items else []


def _kind(source: Source) -> str:
    if source.checkpoint.fates:
        return f"A published checkpoint ({source.checkpoint.kind})."
    trained = "Fine-tuned" if source.head is not None else "Pretrained without labels"
    merged = (
        "" if source.merged is None else f", adapters merged (outputs changed by {source.merged:.1e} of the largest)"
    )
    return f"{trained} on log-mel spectrograms{merged}."


def _training(source: Source, shards: list[Path]) -> list[str]:
    found = source.checkpoint
    told = found.recipe.get("data") or {}
    items = [f"{found.step} optimizer steps."] if found.step else []
    names = told.get("shards") or []
    named = [str(name) for name in names] if isinstance(names, list) else [str(names)]
    digests = list(found.manifests) if len(found.manifests) == len(named) else [None] * len(named)
    here = {manifest_digest(folder): folder for folder in shards}
    for name, digest in zip(named, digests, strict=True):
        text = f"Shards `{printable(name)}`" + (f", manifest sha256 `{digest}`" if digest else ", digest not recorded")
        folder = here.get(digest) if digest else None
        if folder is None:
            items.append(f"{text}: corpus and licence not known to the export (name the folder with --shards).")
            continue
        manifest = Manifest.load(folder)
        items.append(
            f"{text}: {manifest.corpus}, {manifest.clips} clips, {manifest.seconds / 3600:.1f} h, licence: "
            f"{manifest.licence}."
        )
    front = source.backbone.frontend
    items.append(
        f"Input: {type(front).__name__}, {front.bins} bins, {front.sample_rate} Hz, a frame every "
        f"{1000 * front.hop_seconds:g} ms, mean {front.statistics[0]:.4f}, deviation {front.statistics[1]:.4f}."
    )
    return items


def _scores(path: Path) -> list[str]:
    """What the run of a checkpoint measured at its end."""
    folder = next((above for above in path.resolve().parents if (above / "summary.json").is_file()), None)
    summary: dict[str, Any] = (Run(folder).summary() if folder is not None else None) or {}
    items = []
    scores = summary.get("scores")
    for task, row in scores.items() if isinstance(scores, dict) else ():
        if not isinstance(row, dict):
            continue
        if isinstance(row.get("interval"), list) and isinstance(row.get("headline"), float):
            low, high = row["interval"]
            items.append(
                f"{task}: {row['headline']:.3f} (95 % {low:.3f} to {high:.3f} over {row.get('clips')} test clips); "
                f"all: `{json.dumps(row.get('test'))}`."
            )
            continue
        parts = [
            f"{name} {value['linear']:.3f} linear, {value['neighbours']:.3f} nearest neighbours"
            for name, value in row.items()
            if isinstance(value, dict) and {"linear", "neighbours"} <= set(value)
        ]
        items.append(f"Frozen probe, {task}: {'; '.join(parts)} (one run, no interval).")
    return items or ["None is recorded beside the checkpoint."]
