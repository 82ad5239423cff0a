"""The matrix of docs/formats.md: checkpoints x formats, each opened by its own library without this package.

    python tests/soak/formats.py [--checkpoints A B ...] [--only mamba] [--python OTHER/bin/python] [--clips 4]

Without checkpoints it makes four with random weights of the demo's sizes. Prints a table in Markdown, a row an export:

* the largest difference from the checkpoint over the largest value, on demo sounds and noise, each clip alone in the
  checkpoint and all in one batch of the export;
* the same of a short clip beside a long one (of timm: a clip of its length) by the code of the model card, run by
  --python in the folder, without this package;
* the cosine of a clip of 1 s in a batch with one of 5 s and alone, both by the export;
* megabytes;
* clips of 5 s a second of CPU time, one thread, from waveforms on, and the same over the checkpoint's own, in turns.
"""

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssl_audio.checkpoints.checkpoint import Checkpoint, describe
from ssl_audio.checkpoints.exporting.layouts import LAYOUTS, Layout, Written, onnx_layout
from ssl_audio.checkpoints.exporting.onnx import INT8, MODEL, Input, onnx_runner
from ssl_audio.checkpoints.exporting.parity import Run, batches, compare, five_batches
from ssl_audio.checkpoints.exporting.source import Source
from ssl_audio.checkpoints.exporting.standalone import built
from ssl_audio.checkpoints.opening import open_checkpoint

TRANSFORMER = ("Transformer", {"width": 192, "depth": 6, "heads": 3})
MAMBA = ("BiMamba", {"width": 192, "depth": 10})
MADE = {
    "transformer, two class tokens": (TRANSFORMER, {"class_tokens": 2}),
    "transformer, no class token": (TRANSFORMER, {}),
    "transformer, patches 128 x 2": (TRANSFORMER, {"patch": [128, 2]}),
    "mamba": (MAMBA, {}),
}
FOUND = {
    "ast": "states[1].unflatten(0, (-1, inside.shape[1]))[:, : own[1]].mean(dim=(0, 1))",
    "timm": "states[0].mean(dim=0)",
    "torch": "found['embedding'][1]",
    "onnx": "found[0][1]",
}
"""The vector of the second clip, by the names in the card's code."""
ELSEWHERE = """
import sys
sys.modules["ssl_audio"] = None
sys.path.insert(0, ".")
import numpy, torch
given = torch.load("given.pt")
for name in wanted_as_arrays:
    given[name] = [one.numpy() for one in given[name]] if isinstance(given[name], list) else given[name].numpy()
exec(code, given)
numpy.save("found.npy", numpy.asarray(eval(wanted, given)))
"""
COLUMNS = [
    "checkpoint", "format", "opens with", "difference", "by its card's code", "1 s beside 5 s", "MB", "clips/s",
    "of the checkpoint's",
]  # fmt: skip
SECONDS = 5.0
INPUTS: tuple[Input, ...] = ("waveform", "log_mel")
# One Transformer is enough: patches and class tokens change nothing of how it is traced.
TRACED = ("transformer, two class tokens", "mamba")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """One file of an export."""

    format: str
    opens: str
    run: Run
    megabytes: float
    file: str
    input: Input = "waveform"


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoints", nargs="*", type=Path, default=[])
    parser.add_argument("--only", nargs="*", default=[""], help="parts of the names of the checkpoints it makes")
    parser.add_argument("--python", default=sys.executable, help="interpreter that opens the exports")
    parser.add_argument("--clips", type=int, default=4)
    options = parser.parse_args()
    for row in (COLUMNS, ["---"] * len(COLUMNS)):
        print(f"| {' | '.join(row)} |")
    with tempfile.TemporaryDirectory() as folder:
        given = {path.name: path for path in options.checkpoints} or made(Path(folder))
        chosen = {name: path for name, path in given.items() if any(part in name for part in options.only)}
        for name, path in chosen.items():
            source = Source.of(open_checkpoint(path))
            layouts = [(LAYOUTS[one], one) for one in ("ast", "timm", "torch")]
            if name in TRACED or options.checkpoints:
                layouts += [(onnx_layout(input, input == "waveform"), f"onnx, {input}") for input in INPUTS]
            for number, (layout, format) in enumerate(layouts):
                for cells in rows(source, layout, format, Path(folder) / f"{path.stem}-{number}", options):
                    print(f"| {' | '.join([name, *cells])} |", flush=True)


def rows(source: Source, layout: Layout, format: str, out: Path, options: argparse.Namespace) -> list[list[str]]:
    """Cells of the rows of one export: of each of its files."""
    refusal = layout.refusal(source)
    if refusal is not None:
        return [[format, f"not {layout.name}: {refusal}", *[""] * 6]]
    written = layout.write(source, out, SECONDS if layout.name in ("ast", "timm") else None)
    opens = written.opens
    sizes = {name: (out / name).stat().st_size / 1e6 for name in written.files}
    files = [Made(format=format, opens=opens, run=written.run, megabytes=sum(sizes.values()), file=written.files[0])]
    audio = batches(source, written.lengths)
    if layout.name == "onnx":
        input: Input = "log_mel" if format.endswith("log_mel") else "waveform"
        model, audio = built(source), five_batches(source, written.lengths[0])
        files = [
            Made(
                format=format + (", int8" if name == INT8 else ""),
                opens=opens,
                run=onnx_runner(model, out / name, input=input, threads=1),
                file=name,
                input=input,
                megabytes=sizes[name],
            )
            for name in (MODEL, INT8)
            if name in sizes
        ]
    found = []
    for one in files:
        worst = max(row.difference for row in compare(source, one.run, audio))
        cosine = "one length" if layout.name == "timm" else f"{beside(one.run):.6f}"
        rate, share = speed(source, one.run, options.clips)
        cells = [one.format, one.opens, f"{worst:.0e}", elsewhere(source, layout, written, one, out, options.python)]
        found.append([*cells, cosine, f"{one.megabytes:.1f}", f"{rate:.1f}", f"{share:.2f}"])
    return found


def elsewhere(source: Source, layout: Layout, written: Written, one: Made, out: Path, python: str) -> str:
    """What another interpreter finds by the code of the card, against the checkpoint; or its last words."""
    short, long = noise(1.0, 0), noise(SECONDS, 1)
    clips = [long, short]
    if layout.name == "timm":
        short = noise(written.lengths[0], 2)
    lengths = torch.tensor([len(clip) for clip in clips])
    padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    log_mels, frames = built(source).log_mel(padded, lengths) if one.input == "log_mel" else (padded, lengths)
    given = {"waveform": short, "waveforms": clips if layout.name == "ast" else padded, "log_mels": log_mels}
    torch.save({**given, "lengths": frames}, out / "given.pt")
    code = written.code.replace(MODEL, one.file)
    arrays = ["waveforms", "log_mels", "lengths"] if layout.name in ("ast", "onnx") else []
    script = f"code, wanted, wanted_as_arrays = {code!r}, {FOUND[layout.name]!r}, {arrays}\n{ELSEWHERE}"
    environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    told = subprocess.run([python, "-c", script], cwd=out, env=environment, capture_output=True, check=False)
    if told.returncode:
        return f"FAILED: {told.stderr.decode().splitlines()[-1]}"
    vector, own = torch.from_numpy(np.load(out / "found.npy")), source.answers(short)["embedding"]
    return f"{float((vector - own).abs().max() / own.abs().max()):.0e}"


def noise(seconds: float, seed: int) -> Tensor:
    """One clip at 16 kHz."""
    return torch.randn(round(seconds * 16000), generator=torch.Generator().manual_seed(seed)) * 0.1


def beside(run: Run) -> float:
    """The cosine of a clip of 1 s beside one of 5 s and alone."""
    short, long = noise(1.0, 0), noise(SECONDS, 1)
    vectors = [run(clips)[0]["embedding"].double() for clips in ([short, long], [short])]
    return float(torch.cosine_similarity(*vectors, dim=0))


def speed(source: Source, run: Run, clips: int) -> tuple[float, float]:
    """Clips a second of CPU time by an export, and over those of its checkpoint, best of four turns."""
    sounds = [noise(SECONDS, number) for number in range(clips)]
    together = torch.stack(sounds)

    def own() -> None:
        with torch.inference_mode():
            source.backbone(together)

    calls: dict[str, Callable[[], object]] = {"export": lambda: run(sounds), "checkpoint": own}
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(4):
        for name, call in calls.items():
            begin = time.process_time()
            call()
            best[name] = min(best[name], time.process_time() - begin)
    return clips / best["export"], best["checkpoint"] / best["export"]


def made(folder: Path) -> dict[str, Path]:
    """Checkpoints with random weights."""
    found = {}
    for number, (name, (encoder, more)) in enumerate(MADE.items()):
        spec = {
            "class_path": "ssl_audio.model.backbone.Backbone",
            "init_args": {
                "frontend": {"class_path": "ssl_audio.audio.fbank.Fbank", "init_args": {}},
                "encoder": {"class_path": f"ssl_audio.model.encoders.{encoder[0]}", "init_args": encoder[1]},
                "position_frames": 1024,
                **more,
            },
        }
        recipe = {"model": {"backbone": spec}}
        backbone = Checkpoint(folder, recipe, {}, 0, "").untrained()
        weights = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
        found[name] = folder / f"{number}.ckpt"
        torch.save({"state_dict": weights, "global_step": 0, "ssl_audio": describe(recipe)}, found[name])
    return found


if __name__ == "__main__":
    main()
