"""How often copies of real recordings are found by the audit, and how alike different recordings are.

    python tests/soak/duplicates.py --shards /tmp/shards/emodb4 [--clips 100] [--most 400]

Copies of some clips are made at another level, moment and rate, cut, in noise and through codecs, and put among up to
`most` clips of the same shards; the audit's own search (`duplicates`) has to find them. Prints, for each kind of copy,
how many were found and how alike they are to their originals, then the pairs of its own clips that are most alike.
"""

import argparse
import io
import time
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from ssl_audio.audio.files import decode
from ssl_audio.audio.fingerprint import fingerprint, waveform_likeness
from ssl_audio.data.index import open_shards
from ssl_audio.evaluation.audit.duplicates import RATE, SAME, duplicates

STORED = 16000


def through(wave: np.ndarray, rate: int, form: str, subtype: str) -> np.ndarray:
    """The wave, resampled to `rate`, written and read by a codec, and back at 16 kHz."""
    file = io.BytesIO()
    clipped = np.clip(resample_poly(wave, rate, STORED), -1, 1).astype(np.float32)
    soundfile.write(file, clipped, rate, format=form, subtype=subtype)
    file.seek(0)
    return resample_poly(soundfile.read(file, dtype="float32")[0], STORED, rate).astype(np.float32)


def in_noise(wave: np.ndarray, decibels: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(len(wave))
    return (wave + noise * np.sqrt(np.mean(wave**2)) * 10 ** (-decibels / 20)).astype(np.float32)


COPIES = {
    "26 dB quieter": lambda wave, seed: 0.05 * wave,
    "50 ms of silence before, 22 ms cut": lambda wave, seed: np.concatenate([np.zeros(800, np.float32), wave[350:]]),
    "the middle 70 %": lambda wave, seed: wave[int(0.15 * len(wave)) : int(0.85 * len(wave))],
    "through 8 kHz": lambda wave, seed: resample_poly(resample_poly(wave, 1, 2), 2, 1).astype(np.float32),
    "noise 20 dB below": lambda wave, seed: in_noise(wave, 20.0, seed),
    "noise 10 dB below": lambda wave, seed: in_noise(wave, 10.0, seed),
    "MP3": lambda wave, seed: through(wave, 16000, "MP3", "MPEG_LAYER_III"),
    "Vorbis": lambda wave, seed: through(wave, 16000, "OGG", "VORBIS"),
    "Opus": lambda wave, seed: through(wave, 16000, "OGG", "OPUS"),
    "mu-law, 8 kHz": lambda wave, seed: through(wave, 8000, "WAV", "ULAW"),
    "GSM 06.10, 8 kHz": lambda wave, seed: through(wave, 8000, "WAV", "GSM610"),
}


def at_low_rate(wave: np.ndarray) -> np.ndarray:
    return resample_poly(wave, RATE, STORED).astype(np.float32)


def main(shards: Path, clips: int, most: int) -> None:
    index = open_shards([shards])
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(index))[:most])
    waves = [decode(index.audio_bytes(int(row)), sample_rate=STORED) for row in rows]
    heard = np.flatnonzero([np.abs(wave).max() > 1e-4 and len(wave) > 0.2 * STORED for wave in waves])
    chosen = np.sort(rng.permutation(heard)[:clips])
    print(f"{shards.name}: {len(waves)} clips, copies of {len(chosen)}")
    prints = [fingerprint(wave, STORED) for wave in waves]
    print("| copy | found | likeness, least | 5th percentile | median |\n|---|--:|--:|--:|--:|")
    started = time.process_time()
    for kind, change in COPIES.items():
        copies = [np.ascontiguousarray(change(waves[clip], int(clip))) for clip in chosen]
        everything = waves + copies
        pairs = duplicates(
            [wave.tobytes() for wave in everything],
            prints + [fingerprint(wave, STORED) for wave in copies],
            lambda clip, everything=everything: at_low_rate(everything[clip]),
        )
        found = {(pair.first, pair.second) for pair in pairs}
        hits = sum((int(clip), len(waves) + place) in found for place, clip in enumerate(chosen))
        alike = [
            waveform_likeness(at_low_rate(waves[clip]), at_low_rate(copy), RATE)
            for clip, copy in zip(chosen, copies, strict=True)
        ]
        low, middle = np.percentile(alike, [5, 50])
        print(f"| {kind} | {hits} of {len(chosen)} | {min(alike):.2f} | {low:.2f} | {middle:.2f} |", flush=True)
    own = duplicates([wave.tobytes() for wave in waves], prints, lambda clip: at_low_rate(waves[clip]), least=0.6)
    same = sum(pair.likeness >= SAME for pair in own)
    print(f"pairs of the shards themselves with 0.6 or more: {len(own)}, of which count as the same sound: {same}")
    for pair in sorted(own, key=lambda pair: -pair.likeness)[:12]:
        names = [index.key[int(rows[clip])] for clip in (pair.first, pair.second)]
        print(f"  {pair.likeness:.2f}  {names[0]}  {names[1]}")
    print(f"{time.process_time() - started:.0f} CPU s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=100, help="so many are copied")
    parser.add_argument("--most", type=int, default=400, help="so many of the shards' clips, drawn with seed 0")
    given = parser.parse_args()
    main(given.shards, given.clips, given.most)
