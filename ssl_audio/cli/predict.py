"""`ssl-audio predict`: the most probable labels of recordings."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveInt

from ssl_audio.cli.embed import add_common, face_of, kept_table, reading_of
from ssl_audio.cli.inputs import Input, inputs_of, names_in
from ssl_audio.cli.parser import VerbParser, write_text
from ssl_audio.errors import CheckpointError, RecipeError
from ssl_audio.evaluation.pretrained import Pretrained
from ssl_audio.evaluation.windows import Sound
from ssl_audio.names import cell, printable


def run(words: list[str]) -> None:
    """Parse and label."""
    parser = VerbParser(prog="ssl-audio predict", description="Label recordings with a fine-tuned checkpoint.")
    add_common(parser, out="A .csv or .json file.")
    parser.add_argument("--top", type=PositiveInt, default=3, help="So many labels a recording.")
    parser.add_argument(
        "--label_names",
        type=Path | None,
        default=None,
        help="Names of the labels, one a line, for a published checkpoint, which has numbers.",
    )
    chosen = parser.parse_args(words)
    face = face_of(chosen)
    if chosen.label_names is not None:
        face.name_labels(names_in(chosen.label_names))
    reading = reading_of(chosen)
    predict(face, inputs_of(chosen.paths, reading), out=chosen.out, top=chosen.top, identity=[str(reading)])


def predict(face: Pretrained, inputs: Sequence[Input], *, out: Path, top: int, identity: Sequence[str] = ()) -> None:
    """Write the most probable labels of recordings; a call that was stopped goes on where it was.

    Args:
        face: What labels them.
        inputs: The recordings.
        out: The file to write.
        top: So many labels a recording.
        identity: What else the result depends on.
    """
    if out.suffix not in (".csv", ".json"):
        raise RecipeError(f"--out {out}: expected a name that ends in .csv or .json")
    if face.head is None:
        raise CheckpointError(
            f"{face.checkpoint.path}: has no head, so it labels nothing; expected a checkpoint of `ssl-audio finetune`"
        )
    count = min(top, len(face.labels))

    def rows(sounds: list[Sound]) -> Iterator[dict[str, Any]]:
        for shares in face.probabilities(sounds):
            best = shares.topk(count)
            names = [printable(face.labels[place]) for place in best.indices.tolist()]
            yield {"labels": names, "probabilities": best.values.tolist()}

    job = ["predict", *face.identity, str(count), str(face.grid), *identity]
    with kept_table(face, inputs, rows, out=out, job=job, title="labelling") as table:
        found = table.to_pylist()
        text = _csv(found) if out.suffix == ".csv" else json.dumps(found, indent=1, ensure_ascii=False) + "\n"
        write_text(out, text)
    for row in found[:5]:
        shown = ", ".join(f"{n} {p:.2f}" for n, p in zip(row["labels"], row["probabilities"], strict=True))
        print(f"{row['path']}: {shown}")
    print(f"{out}: {len(found)} recordings")


def _csv(rows: list[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    count = max(len(row["labels"]) for row in rows)
    writer.writerow(["path", *(f"{name}{place}" for place in range(1, count + 1) for name in ("label", "probability"))])
    for row in rows:
        cells = zip(row["labels"], row["probabilities"], strict=True)
        writer.writerow([cell(row["path"]), *(word for name, p in cells for word in (cell(name), f"{p:.6f}"))])
    return buffer.getvalue()
