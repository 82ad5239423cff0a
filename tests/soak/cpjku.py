"""The published stages of sound events (recipes/sed/cpjku) end to end, on synthetic clips, small and in few steps.

    python tests/soak/cpjku.py --out FOLDER

Writes seven folders of shards with the labels of MAESTRO and DESED (tones of one frequency a label; soft, strong, weak
and no labels), pretrains a small encoder for some steps, and runs all five stages, pseudo-labels among them, from the
recipes as they are, but for widths, batches, steps, workers and precision. Shows that the recipes fit together; scores
of so few steps mean nothing.
"""

import argparse
import os
import random
from pathlib import Path

import numpy as np
import soundfile

import ssl_audio
from ssl_audio.data.corpora import Table
from ssl_audio.data.writing import write_shards
from ssl_audio.experiments.stages import stages

MAESTRO = ["people talking", "children voices", "announcement", "cutlery and dishes", "birds singing", "footsteps"]
DESED = ["Speech", "Dishes", "Dog", "Cat", "Alarm_bell_ringing", "Frying"]
PARTS = {
    "maestro": (MAESTRO, "train", "soft"),
    "desed_strong": (DESED, "train", "strong"),
    "desed_synthetic": (DESED, "train", "strong"),
    "desed_weak": (DESED, "train", "weak"),
    "desed_unlabelled": (DESED, "train", "none"),
    "desed_validation": (DESED, "valid", "strong"),
    "desed_eval": (DESED, "test", "strong"),
}
"""Labels, split and kind of each."""


def write_part(out: Path, name: str, *, clips: int) -> None:
    """One folder of raw clips with tables, and its shards."""
    labels, split, kind = PARTS[name]
    raw, draws = out / "raw" / name, random.Random(name)
    (raw / "audio").mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(name))
    heading = "path,split" if kind == "none" else "path,event,split"
    rows, events = [heading], ["filename\tonset\toffset\tevent_label\tweight"]
    for number in range(clips):
        sound = noise.normal(0, 0.01, 160000)
        chosen = draws.sample(labels, 2)
        for label in chosen:
            onset = draws.uniform(0, 7)
            offset = onset + draws.uniform(0.5, 3)
            at = np.arange(round(onset * 16000), round(offset * 16000))
            sound[at] += 0.2 * np.sin(2 * np.pi * (300 + 250 * (MAESTRO + DESED).index(label)) * at / 16000)
            weight = draws.choice(["0.4", "0.8", "1"]) if kind == "soft" else "1"
            events.append(f"{name}_{number}.wav\t{onset:.2f}\t{offset:.2f}\t{label}\t{weight}")
        soundfile.write(raw / "audio" / f"{name}_{number}.wav", sound.astype(np.float32), 16000)
        cells = [f"audio/{name}_{number}.wav", *([] if kind == "none" else [";".join(chosen)]), split]
        rows.append(",".join(cells))
    (raw / "meta.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    timed = kind in ("soft", "strong")
    (raw / "events.tsv").write_text("\n".join(events) + "\n", encoding="utf-8")
    located = raw / "events.tsv" if timed else raw / "none.tsv"
    corpus = Table(raw, labels=[] if kind == "none" else ["event"], events=located, licence="synthetic")
    write_shards(corpus, out / "shards" / name, name=name)


def main() -> None:
    """Write, pretrain, and run the stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--steps", type=int, default=2)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    os.chdir(chosen.out)
    here = Path()
    for name in PARTS:
        if not (here / "shards" / name / "manifest.json").exists():
            write_part(here, name, clips=chosen.clips)
    small = {"class_path": "ssl_audio.model.encoders.Transformer", "init_args": {"width": 32, "depth": 2, "heads": 2}}
    ssl_audio.pretrain(
        "demo",
        shards=["shards/desed_unlabelled", "shards/maestro"],
        max_steps=2,
        options={
            "data.split": None, "data.crop_seconds": 10.0, "data.batch_clips": 4, "data.workers": 0, "probe": [],
            "model.backbone.position_frames": 1024, "model.backbone.encoder": small,
        },
    )  # fmt: skip
    head = "model.objective.init_args.head"
    finished = stages(
        "sed/cpjku",
        options={
            f"{head}.width": 16, f"{head}.rnn_width": 8, f"{head}.cnn.channels": [4, 4, 4, 4, 4, 4, 4],
            "data.quotas": [1, 1, 1, 2, 2, 0, 0], "data.batch_clips": 7, "data.workers": 0,
            "trainer.max_epochs": -1, "trainer.max_steps": chosen.steps, "trainer.check_val_every_n_epoch": None,
            "trainer.val_check_interval": chosen.steps, "trainer.precision": "32-true",
            "trainer.accumulate_grad_batches": 1,
        },
    )  # fmt: skip
    for stage in finished:
        print(stage.folder)
    assert len(finished) == 4  # trainings; the third recipe writes pseudo-labels


if __name__ == "__main__":
    main()
