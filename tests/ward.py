"""A corpus of sick and well speakers, told apart by nothing but the noise of a ward, where there is some."""

import csv

import numpy as np
import soundfile

from ssl_audio.cli import main

RATE = 16000
FEW_TREES = 12
"""Of each forest of an audit, where what is audited is plain."""


def utterance(seed: int, seconds: float = 1.2) -> np.ndarray:
    """Bursts of harmonics with gaps: a sound that says something of itself."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    wave = np.zeros_like(time)
    for start in np.arange(0.05, seconds - 0.15, 0.15):
        pitch, colour = rng.uniform(90, 300), rng.uniform(0.3, 2.0)
        envelope = np.exp(-(((time - start - 0.06) / 0.04) ** 2))
        harmonics = [np.sin(2 * np.pi * n * pitch * time + rng.uniform(0, 6)) * n**-colour for n in range(1, 12)]
        wave += rng.uniform(0.3, 1) * envelope * sum(harmonics)
    return (0.2 * wave / np.abs(wave).max() + 1e-4 * rng.standard_normal(len(wave))).astype(np.float32)


def write_corpus(root, *, noisy: str, clips: int = 48, copies: bool = False):
    """Sick and well speakers, with noise under the clips of some; splits share speakers."""
    (root / "audio").mkdir(parents=True)
    rng = np.random.default_rng(1)
    rows = []
    for number in range(clips):
        label, speaker = ("sick", "well")[number % 2], number % 12
        seed = number - 12 if copies and number >= clips - 3 else number
        wave = utterance(seed, 0.6)
        if (noisy == "sick" and label == "sick") or noisy == "all":
            wave = wave + (0.003 * rng.standard_normal(len(wave))).astype(np.float32)
        if copies and number >= clips - 3:
            wave = 0.4 * wave
        soundfile.write(root / f"audio/{number:03d}.wav", wave, RATE)
        split = "test" if number >= clips - 12 else "train"
        rows.append({"path": f"audio/{number:03d}.wav", "label": label, "speaker": f"s{speaker:02d}", "split": split})
    with (root / "meta.csv").open("w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def shards_of(root, **options):
    write_corpus(root / "corpus", **options)
    main(["shards", "write", "--corpus", "table", "--root", str(root / "corpus"), "--out", str(root / "shards")])
    return root / "shards"
