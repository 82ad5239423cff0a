"""The shortcut test on real audio: real noise under the recordings of one label, which means nothing otherwise.

    python tests/soak/shortcut.py --shards /tmp/shards/librispeech_mini --noise FOLDER --out /tmp/shortcut

Speakers of the shards are called sick or well by a draw. For each file of the noise folder, a ward: of ten pieces
of that file every other lies under the recordings of the sick. The audit is asked; then a classifier is trained on the
recordings as they are (naive), and with the other pieces put under the well (balanced), and tested on new speakers, as
recorded and, for balanced, with pieces of their own under the well. Prints AUC of recordings with intervals over
speakers.
"""

import argparse
import csv
import json
import os
from pathlib import Path

import numpy as np
import soundfile

from ssl_audio.audio.files import decode
from ssl_audio.cli import main as ssl_audio
from ssl_audio.data.index import open_shards
from ssl_audio.data.labels import labels_in

RATE, SECONDS, PIECES = 16000, 4.0, 10
BACKBONE = {
    "frontend": {"class_path": "ssl_audio.audio.mfcc.Mfcc", "init_args": {"coefficients": 40, "mels": 64}},
    "encoder": {
        "class_path": "ssl_audio.model.encoders.Transformer",
        "init_args": {"width": 64, "depth": 2, "heads": 4},
    },
    "patch": [40, 1],
    "position_frames": 200,
    "position_start": "sines",
    "position_fixed": True,
}


def ward(shards: Path, pieces: list[np.ndarray], root: Path, seed: int, decibels: float) -> None:
    """Write the corpus: one recording of each speaker, noise `decibels` below the speech under those of the sick."""
    rng = np.random.default_rng(seed)
    index = open_shards([shards])
    names, found = labels_in(index, "speaker")
    _, first = np.unique(found.codes, return_index=True)
    sick = rng.permutation(len(first)) % 2 == 0
    (root / "audio").mkdir(parents=True)
    rows = []
    for number, row in enumerate(first.tolist()):
        wave = decode(index.audio_bytes(row), sample_rate=RATE, seconds=SECONDS)
        if sick[number]:
            under = pieces[int(rng.integers(len(pieces)))]
            start = int(rng.integers(len(under) - len(wave) + 1))
            part = under[start : start + len(wave)]
            wave = wave + part * np.sqrt(np.mean(wave**2) / np.mean(part**2)) * 10 ** (-decibels / 20)
        soundfile.write(root / f"audio/{number:04d}.wav", np.clip(wave, -1, 1), RATE)
        label, speaker = ("well", "sick")[int(sick[number])], names[found.codes[row]]
        rows.append({"path": f"audio/{number:04d}.wav", "label": label, "speaker": speaker})
    with (root / "meta.csv").open("w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def trained(shards: Path, name: str, seed: int, insertion: dict[str, object] | None) -> dict[str, list[float]]:
    ssl_audio([
        "finetune", "--config", "screening", "--checkpoint", "none", f"--model.backbone={json.dumps(BACKBONE)}",
        f"--data.shards=[{shards}]", "--positive", "sick", "--folds", "[0]", "--data.crop_seconds", "2.0",
        "--name", name, "--seed_everything", str(seed), "--trainer.max_epochs", "20",
        "--trainer.check_val_every_n_epoch", "5", "--model.optimizer.init_args.lr", "1e-3",
        *([f"--data.noise={json.dumps(insertion)}"] if insertion else []),
    ])  # fmt: skip
    summary = next(Path("runs/finetune").glob(f"{name}/*/summary.json"))
    return {what: found["AUC"] for what, found in json.loads(summary.read_text())["screening"]["scratch"].items()}


def main(shards: Path, noise: Path, out: Path, decibels: float) -> None:
    out.mkdir(parents=True, exist_ok=True)
    shards, files = shards.resolve(), [file.resolve() for file in sorted(noise.glob("*.flac"))]
    os.chdir(out)
    for seed, file in enumerate(files):
        root, name = Path(file.stem).resolve(), file.stem
        if not root.exists():
            pieces = np.array_split(decode(file.read_bytes(), sample_rate=RATE), PIECES)
            ward(shards, pieces[::2], root / "corpus", seed, decibels)
            (root / "noise").mkdir()
            for number, part in enumerate(pieces[1::2]):
                soundfile.write(root / f"noise/{number}.wav", part, RATE)
        if not (root / "shards/manifest.json").exists():
            ssl_audio(["shards", "write", "--corpus", "table", "--root", f"{root}/corpus", "--out", f"{root}/shards"])
        ssl_audio(["audit", "--shards", f"{root}/shards", "--out", f"{root}/audit.json"])
        found = json.loads((root / "audit.json").read_text())["shortcuts"]
        lines = [f"audit: {one['name']} {one['told']['score']:.2f}, {one['verdict']}" for one in found if one["told"]]
        insertion = {"folder": f"{root}/noise", "counts": {"well": 1}, "snr_db": [decibels - 1, decibels + 1]}
        for way, noises in (("naive", None), ("balanced", insertion)):
            told = trained(root / "shards", f"{name}_{way}", seed, noises)
            lines += [f"{way}: {what} {', '.join(f'{value:.2f}' for value in area)}" for what, area in told.items()]
        print(f"NOISE {name}", *lines, sep="\n", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--noise", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("/tmp/shortcut"))
    parser.add_argument("--decibels", type=float, default=15.0, help="how far the ward's noise is below the speech")
    given = parser.parse_args()
    main(given.shards, given.noise, given.out, given.decibels)
