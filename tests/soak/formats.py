"""The matrix of docs/formats.md: checkpoints × formats, each opened by its own library without this package.

    python tests/soak/formats.py [--checkpoints A B ...] [--only mamba] [--onnx false] [--clips 8]

Without checkpoints it makes four with random weights of the demo's sizes. Prints a table in Markdown: what was written,
the largest difference from the checkpoint over the largest value, the smallest cosine of a clip beside longer ones and
alone, megabytes; and clips of 2 s a second of onnxruntime beside torch, in the same run, one thread each.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import ssl_audio
from ssl_audio.checkpoints.checkpoint import Checkpoint, describe
from ssl_audio.checkpoints.exporting.onnx import MODEL, onnx_session
from ssl_audio.checkpoints.exporting.source import Source
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.errors import SslAudioError

TRANSFORMER = ("Transformer", {"width": 192, "depth": 6, "heads": 3})
MAMBA = ("BiMamba", {"width": 192, "depth": 10})
MADE = {
    "transformer, two class tokens": (TRANSFORMER, {"class_tokens": 2}),
    "transformer, no class token": (TRANSFORMER, {}),
    "transformer, patches 128 x 2": (TRANSFORMER, {"patch": [128, 2]}),
    "mamba": (MAMBA, {}),
}
OPENED = {
    "ast": "from transformers import AutoModel; AutoModel.from_pretrained('.')",
    "timm": "import timm; timm.create_model('local-dir:.', pretrained=True)",
    "torch": "import modeling_ssl_audio; modeling_ssl_audio.load('.')",
    "onnx": "import onnxruntime; onnxruntime.InferenceSession('model.onnx')",
}


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoints", nargs="*", type=Path, default=[])
    parser.add_argument("--only", nargs="*", default=[""], help="parts of the names of the checkpoints it makes")
    parser.add_argument("--onnx", default="true", choices=["true", "false"])
    parser.add_argument("--clips", type=int, default=8)
    options = parser.parse_args()
    rows, speeds = [], []
    with tempfile.TemporaryDirectory() as folder:
        given = {path.name: path for path in options.checkpoints} or made(Path(folder))
        chosen = {name: path for name, path in given.items() if any(part in name for part in options.only)}
        for name, path in chosen.items():
            for format in ("ast", "timm", "torch", *(["onnx"] if options.onnx == "true" else [])):
                out = Path(folder) / f"{path.stem}-{format}"
                row, written = exported(path, format, out)
                rows.append([name, format, *row])
                print(f"| {' | '.join(rows[-1])} |", flush=True)
                if written and format == "onnx":
                    speeds.append(f"{name}: {speed(path, out, options.clips)}")
    for line in speeds:
        print(line)


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


def exported(path: Path, format: str, out: Path) -> tuple[list[str], bool]:
    """Cells of a row; whether there is an export."""
    options = {"format": "onnx"} if format == "onnx" else {"layout": format}
    try:
        found = ssl_audio.export(path, out, say=lambda line: None, **options)  # type: ignore[arg-type]
    except SslAudioError as error:
        return [str(error).removeprefix(f"{path}: "), "", "", ""], False
    code = f"import sys; sys.modules['ssl_audio'] = None; sys.path.insert(0, '.'); {OPENED[format]}"
    alone = subprocess.run([sys.executable, "-c", code], cwd=out, env={}, capture_output=True, check=False)
    worst, cosine = max(row.difference for row in found.rows), min(row.cosine for row in found.rows)
    opens = found.opens if not alone.returncode else f"NOT OPENED: {alone.stderr.decode().splitlines()[-1]}"
    return [opens, f"{worst:.0e}", f"{cosine:.6f}", f"{found.megabytes:.1f}"], True


def speed(path: Path, folder: Path, clips: int) -> str:
    """Clips of 2 s a second by onnxruntime and by torch, turn by turn."""
    source = Source.of(open_checkpoint(path))
    session = onnx_session(folder / MODEL, threads=1)
    waveforms = torch.randn(clips, 32000, generator=torch.Generator().manual_seed(0)) * 0.1
    feeds = {"waveform": waveforms.numpy(), "lengths": torch.full((clips,), 32000).numpy()}

    def by_torch() -> None:
        with torch.inference_mode():
            source.backbone(waveforms)

    best = {"onnxruntime": float("inf"), "torch": float("inf")}
    for _ in range(4):
        for name, call in (("onnxruntime", lambda: session.run(None, feeds)), ("torch", by_torch)):
            begin = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - begin)
    rates = {name: clips / seconds for name, seconds in best.items()}
    return (
        f"{rates['onnxruntime']:.1f} clips/s by onnxruntime, {rates['torch']:.1f} by torch, ratio "
        f"{rates['onnxruntime'] / rates['torch']:.2f}"
    )


if __name__ == "__main__":
    main()
