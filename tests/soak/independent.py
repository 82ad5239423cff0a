"""Three sets that no objective was chosen on, as shards for objectives.py: spoken letters of 13 languages, percussion,
and Finnish words.

    apt-get download klettres-data && dpkg-deb -x klettres-data_*.deb klettres
    npm pack supersonic-scsynth-samples && tar xzf supersonic-scsynth-samples-*.tgz
    python tests/soak/independent.py --letters_from klettres/usr/share/klettres --percussion_from package
    python tests/soak/objectives.py --out objectives.jsonl --independent independent

`letters`: one speaker a language, tested on languages that the probe has not seen (recordings of KLettres, GPL-2+).
`percussion`: families of samples (CC0). `words`: eSpeak NG in rooms with noise, tested on voices not seen.
"""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
from jsonargparse import auto_cli

from ssl_audio.data.demo.conditions import record
from ssl_audio.data.demo.speech import speak

LANGUAGES = ["da", "de", "en", "en_GB", "es", "fr", "hu", "it", "lt", "nb", "nds", "nl", "pt_BR"]
NUMBERED = ["da", "fr", "nl"]
LETTERS = "abdefiklmnopst"
FAMILIES = ["ambi", "bass", "bd", "drum", "elec", "glitch", "hat", "mehackit", "perc", "tabla", "tbd"]
WORDS = ["nolla", "yksi", "kaksi", "kolme", "neljä", "viisi", "kuusi", "seitsemän", "kahdeksan", "yhdeksän", "kyllä",
         "ei", "ylös", "alas"]  # fmt: skip
VOICES = ["m1", "m3", "m5", "m7", "f1", "f2", "f4", "f5", "croak", "klatt2"]
TAKES, FOLDS = 4, 5


def letters(root: Path):
    """Recordings of letters whose names are alike in many languages."""
    for number, language in enumerate(LANGUAGES):
        for letter in LETTERS:
            numbered = f"a-{ord(letter) - ord('a')}"  # in the order of the alphabet
            names = [numbered] if language in NUMBERED else [letter, letter.upper(), f"U{ord(letter):04X}"]
            path = next((path for name in names if (path := root / language / "alpha" / f"{name}.ogg").exists()), None)
            if path is not None:
                yield f"{language}_{letter}", letter, language, number % FOLDS, path


def percussion(root: Path):
    """Samples by the family that their names begin with."""
    draws = np.random.default_rng(0)
    for family in FAMILIES:
        paths = sorted(root.rglob(f"{family}_*.flac"))
        for place, number in enumerate(draws.permutation(len(paths))):
            yield paths[number].stem, family, "", place % FOLDS, paths[number]


def words(_root: Path):
    """Words in several voices, each take in another room with other noise."""
    draws = np.random.default_rng(0)
    for number, voice in enumerate(VOICES):
        for word in WORDS:
            for take in range(TAKES):
                rate, pitch = int(draws.integers(120, 200)), int(draws.integers(30, 70))
                dry = speak(word, voice=f"fi+{voice}", rate=rate, pitch=pitch, pitch_range=50, volume=100)
                yield f"{voice}_{word}_{take}", word, voice, number % FOLDS, record(dry, rng=draws)


def main(letters_from: Path, percussion_from: Path, out: Path = Path("independent")) -> None:
    for name, made in (
        ("letters", letters(letters_from)),
        ("percussion", percussion(percussion_from)),
        ("words", words(out)),
    ):
        folder = out / "audio" / name
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for key, label, speaker, fold, sound in made:
            if isinstance(sound, Path):
                wave, rate = soundfile.read(sound, always_2d=True)
                wave = wave.mean(axis=1)
            else:
                wave, rate = sound, 16000
            soundfile.write(folder / f"{key}.wav", wave, rate)
            rows.append((f"{key}.wav", label, speaker, fold))
        with (folder / "meta.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label", "speaker", "fold"), *rows])
        command = ["shards", "write", "--corpus", "table", "--root", str(folder), "--out", str(out / name)]
        subprocess.run([sys.executable, "-m", "ssl_audio", *command], check=True)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
