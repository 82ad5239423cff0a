"""What weak labels, unlabelled clips and pseudo-labels are worth for sound events, on real sounds.

    python tests/soak/sound_events.py --data FOLDER [--seeds 3] [--steps 250] [--more 100] [--out FOLDER]

The folder is `esc10_sed_mix` (ten-second mixtures of ESC-10, with onsets and offsets): `audio`, `meta.csv` and
`events.tsv`. A third of the training clips keeps its strong labels, a third its weak ones, a third none. Each encoder
and seed is trained on the strong third alone, and goes on from there in three ways with equal steps and batches: on the
strong third; with weak and unlabelled clips, a mean teacher and interpolation consistency; and from the end of that the
same again beside pseudo-labels, which are the mean of both encoders of the seed; beside as many steps on the strong
third.

Settings are chosen on validation clips: of each way that has several in `SETTINGS`, all are trained with the first
seed, and the one whose validation scores (the mean of PSDS1 and of the F1 of events, over both encoders) are best is
trained with the others. Test scores are read for that one alone, and of no training while settings are being chosen.
Runs that are there already are not repeated. Prints tables of PSDS1 and of the F1 of events with 95 % intervals over
test clips, and of paired differences.
"""

# ruff: noqa: E501

import argparse
import csv
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_audio.data.corpora import Table
from ssl_audio.data.writing import write_shards
from ssl_audio.evaluation.events.predictions import EventPredictions
from ssl_audio.evaluation.predictions import joined, read_predictions
from ssl_audio.experiments.display import Silent
from ssl_audio.experiments.finetune import finetune
from ssl_audio.experiments.pseudo import pseudo_labels

ENCODERS = {
    "Transformer": {
        "class_path": "ssl_audio.model.encoders.Transformer",
        "init_args": {"width": 96, "depth": 3, "heads": 3},
    },
    "Mamba": {"class_path": "ssl_audio.model.encoders.BiMamba", "init_args": {"width": 96, "depth": 3}},
}
ARMS = ("strong third", "strong third, longer", "+ weak, unlabelled", "+ pseudo-labels", "strong third, longest")
STRONG, LONGER, WEAK, PSEUDO, LONGEST = ARMS
SETTINGS: dict[str, list[dict[str, float | bool | list[int]]]] = {
    LONGER: [{"rate": 1.0e-3}, {"rate": 5.0e-4}],
    WEAK: [
        {"quotas": [4, 2, 2], "consistency": 10.0, "clip_weight": 0.2},
        {"quotas": [6, 1, 1], "consistency": 10.0, "clip_weight": 0.2},
        {"quotas": [4, 2, 2], "consistency": 2.0, "clip_weight": 0.5},
    ],
    PSEUDO: [{"absent": False}, {"absent": True}],
}
"""What is chosen among; what stands before keeps its setting in what follows: `PSEUDO` that of `WEAK`, `LONGEST` that
of `LONGER`."""
HEAD = {
    "branches": "both", "width": 96, "rnn_layers": 1, "rnn_width": 48, "dropout": 0.2,
    "cnn": {"input": "backbone", "channels": [8, 16, 32], "time_pooling": [2, 1, 1], "band_pooling": [4, 4, 4], "dropout": 0.1},
}  # fmt: skip
TEACHER = {
    "class_path": "ssl_audio.objectives.AveragedTeacher",
    "init_args": {"decay": 0.98, "rising": True, "buffers": False},
}


def write_parts(data: Path, out: Path) -> None:
    """Shards of the strong third (with validation and test), the weak third, the unlabelled third, and all."""
    rows = list(csv.DictReader((data / "meta.csv").open(encoding="utf-8")))
    events = list(csv.DictReader((data / "events.tsv").open(encoding="utf-8"), delimiter="\t"))
    train = [row for row in rows if row["split"] == "train"]
    random.Random(0).shuffle(train)
    third = len(train) // 3
    held = [row for row in rows if row["split"] != "train"]
    parts = {"strong": [*train[:third], *held], "weak": train[third : 2 * third], "unlabelled": train[2 * third :]}
    parts["all"] = [*train, *held]
    for name, chosen in parts.items():
        if (out / name / "manifest.json").exists():
            continue
        out.mkdir(parents=True, exist_ok=True)
        column = "" if name == "unlabelled" else "event"
        lines = [",".join(filter(None, ["path", column, "split"]))]
        for row in chosen:
            split = "valid" if row["split"] == "val" else row["split"]
            lines.append(",".join(filter(None, [row["path"], row["label"] if column else "", split])))
        (out / f"{name}.csv").write_text("\n".join(lines) + "\n")
        kept = {Path(row["path"]).name for row in chosen} if name in ("strong", "all") else set()
        cells = [
            [e[c] for c in ("filename", "onset", "offset", "event_label")] for e in events if e["filename"] in kept
        ]
        table = "".join("\t".join(row) + "\n" for row in [["filename", "onset", "offset", "event_label"], *cells])
        (out / f"{name}.tsv").write_text(table if cells else table + "\t\t\t\n")
        labels = ["event"] if column else []
        located = out / f"{name}.tsv" if cells else out / "none.tsv"
        corpus = Table(data, table=out / f"{name}.csv", labels=labels, events=located, licence="CC BY 3.0")
        write_shards(corpus, out / name, name=name)


def options_of(
    arm: str, encoder: str, *, steps: int, shards: Path, pseudo: Path, setting: dict[str, Any]
) -> dict[str, object]:
    """The whole recipe of one training; but for the first it goes on from a checkpoint."""
    objective: dict[str, object] = {
        "head": HEAD, "mixing": {"rate": 0.5}, "augmentation": {"filters": 0.5, "shift_seconds": 1.0},
    }  # fmt: skip
    data: dict[str, object] = {"shards": [str(shards / "strong")], "batch_clips": 8}
    if arm != STRONG:
        objective |= {"clip_weight": setting.get("clip_weight", 0.2), "strong_clip_weight": 0.1}
    if arm in (WEAK, PSEUDO):
        objective |= {
            "teacher": TEACHER,
            "consistency": {"weight": setting["consistency"], "ramp_steps": steps // 2, "kind": "interpolation"},
        }
        names = ("strong", "weak", "unlabelled")
        data = {
            "shards": [str(shards / name) for name in names],
            "sources": [{}, {"labelling": "weak"}, {"labelling": "none"}],
            "quotas": setting["quotas"],
            "batch_clips": 8,
        }
    if arm == PSEUDO:
        objective |= {"pseudo_weight": 1.0, "pseudo_absent": setting["absent"]}
        data["pseudo_labels"] = str(pseudo)
    model: dict[str, object] = {
        "objective": {"class_path": "ssl_audio.objectives.SoundEvents", "init_args": objective},
        "optimizer": {
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": 3.0e-3 if arm == STRONG else setting.get("rate", 1.0e-3), "weight_decay": 0.02},
        },
        "schedule": {
            "class_path": "ssl_audio.training.optimisation.WarmupCosine",
            "init_args": {"warmup_steps": steps // 5},
        },
    }
    first: dict[str, object] = {"keep_head": True}
    if arm == STRONG:
        first = {"statistics": "training"}
        model["backbone"] = {
            "frontend": {
                "class_path": "ssl_audio.audio.fbank.Fbank",
                "init_args": {"bins": 64, "hop_seconds": 0.04, "frame_seconds": 0.06},
            },
            "encoder": ENCODERS[encoder],
            "patch": [64, 2],
            "position_frames": 512,
        }
    return {
        **first,
        "model": model,
        "data": {
            **data, "target": "event", "several": True, "frame_seconds": "model", "crop_seconds": 10.0, "workers": 0,
        },
        "trainer": {
            "max_steps": steps, "gradient_clip_val": 1.0, "val_check_interval": max(1, steps // 4),
            "check_val_every_n_epoch": None,
        },
    }  # fmt: skip


def trained(out: Path, name: str, seed: int, options: dict[str, object], start: Path | None) -> Path:
    """The folder of a run, which is trained if it is not there."""
    import yaml

    done = sorted((out / "runs/finetune" / name).glob("*/summary.json"))
    if done:
        return done[-1].parent
    recipe = out / f"{name}.yaml"
    recipe.write_text(yaml.safe_dump(options))
    began, spent = time.time(), time.process_time()
    began_at = "none" if start is None else start / "checkpoints/best.ckpt"
    run = finetune(recipe, checkpoint=began_at, seed=seed, name=name, runs=out / "runs", display=Silent())
    assert run is not None
    took = f"{time.process_time() - spent:.0f} CPU s, {time.time() - began:.0f} s"
    print(f"{name}: validation {validation(run.run.folder):.3f}; {took}", flush=True)
    return run.run.folder


def validation(run: Path) -> float:
    """The mean of PSDS1 and of the F1 of events of the validation clips."""
    scores = next(iter(json.loads((run / "summary.json").read_text())["scores"].values()))["validation"]
    return float(scores["PSDS1"] + scores["event_F1"]) / 2


class Trainings:
    """All trainings, each done once.

    Args:
        out: Their folder.
        steps: Of the first.
        more: Of those that follow.
    """

    def __init__(self, out: Path, *, steps: int, more: int) -> None:
        self.out, self.steps, self.more = out, steps, more
        self.chosen: dict[str, dict[str, Any]] = {STRONG: {}}
        self.made: dict[tuple[str, str, int], Path] = {}

    def train(self, arm: str, seed: int) -> None:
        """Both encoders; with the first seed in every setting, of which the best one stays."""
        before = {PSEUDO: WEAK, LONGEST: LONGER}.get(arm, STRONG)
        inherited = self.chosen[before]
        settings = [self.chosen[arm]] if arm in self.chosen else [inherited | one for one in SETTINGS.get(arm, [{}])]
        found: list[tuple[float, dict[str, Any], dict[str, Path]]] = []
        for setting in settings:
            runs = {encoder: self._one(arm, before, encoder, seed, setting) for encoder in ENCODERS}
            found.append((float(np.mean([validation(run) for run in runs.values()])), setting, runs))
        score, self.chosen[arm], best = max(found, key=lambda one: one[0])
        if len(settings) > 1:
            rest = ", ".join(f"{setting} {value:.3f}" for value, setting, _ in found)
            print(f"{arm}: chosen by validation {self.chosen[arm]} ({score:.3f}) of {rest}", flush=True)
        self.made |= {(arm, encoder, seed): run for encoder, run in best.items()}

    def _one(self, arm: str, before: str, encoder: str, seed: int, setting: dict[str, Any]) -> Path:
        pseudo = self.out / f"pseudo-{seed}"
        if arm == PSEUDO and not (pseudo / "pseudo.json").exists():
            folders = [self.out / "shards" / name for name in ("strong", "weak", "unlabelled")]
            teachers = [self.made[WEAK, name, seed] / "checkpoints/best.ckpt" for name in ENCODERS]
            pseudo_labels(teachers, shards=folders, out=pseudo, display=Silent())
        steps = self.steps if arm == STRONG else self.more
        options = options_of(arm, encoder, steps=steps, shards=self.out / "shards", pseudo=pseudo, setting=setting)
        told = "".join(f"-{str(value).replace(' ', '')}" for value in setting.values())
        name = f"{ARMS.index(arm)}{told}-{encoder.lower()}-{seed}"
        start = None if arm == STRONG else self.made[before, encoder, seed]
        return trained(self.out, name, seed, options, start)


def table(cells: dict[tuple[str, str], list[EventPredictions]]) -> None:
    """Print scores with intervals, and paired differences."""
    print("\nencoder      arm                  PSDS1                    event F1                 segment F1  mAP")
    for (encoder, arm), runs in cells.items():
        together = joined(list(runs))
        low, high = together.interval()
        f1 = Resampled(runs)
        summaries = [run.summary() for run in runs]
        means = {name: np.mean([one[name] for one in summaries]) for name in ("segment_F1", "mAP")}
        print(
            f"{encoder:<12} {arm:<20} {together.headline:.3f} ({low:.3f} to {high:.3f})  "
            f"{f1.value():.3f} ({f1.interval()[0]:.3f} to {f1.interval()[1]:.3f})   "
            f"{means['segment_F1']:.3f}       {means['mAP']:.3f}"
        )
    print("\ndifferences (paired, 95 % interval over test clips)")
    pairs = [(LONGER, STRONG), (WEAK, LONGER), (PSEUDO, WEAK), (PSEUDO, LONGEST)]
    encoders = sorted({encoder for encoder, _ in cells}, reverse=True)
    for one, other in pairs:
        for names in [*([name] for name in encoders)] + ([encoders] if len(encoders) > 1 else []):
            if not all((name, arm) in cells for name in names for arm in (one, other)):
                continue
            first = [run for name in names for run in cells[name, one]]
            second = [run for name in names for run in cells[name, other]]
            psds = joined(list(first)).against(joined(list(second)))
            gain, low, high = Resampled(first).difference(Resampled(second))
            print(
                f"{' and '.join(names):<22} {one} - {other}: PSDS1 {psds.gain:+.3f} ({psds.low:+.3f} to {psds.high:+.3f}), "
                f"event F1 {gain:+.3f} ({low:+.3f} to {high:+.3f})"
            )


class Resampled:
    """The F1 of events of several runs on the same clips, for resamples of the clips."""

    def __init__(self, runs: list[EventPredictions], *, draws: int = 1000) -> None:
        order = [np.argsort(run.keys, kind="stable") for run in runs]
        self.counts = [run.select(rows).event_counts() for run, rows in zip(runs, order, strict=True)]
        clips = len(runs[0].keys)
        rng = np.random.default_rng(0)
        self.drawn = [np.bincount(rng.integers(0, clips, clips), minlength=clips) for _ in range(draws)]

    def value(self) -> float:
        return float(np.mean([count.macro() for count in self.counts]))

    def values(self) -> np.ndarray:
        return np.array([np.mean([count.macro(weights) for count in self.counts]) for weights in self.drawn])

    def interval(self) -> tuple[float, float]:
        low, high = np.nanpercentile(self.values(), [2.5, 97.5])
        return float(low), float(high)

    def difference(self, other: "Resampled") -> tuple[float, float, float]:
        low, high = np.nanpercentile(self.values() - other.values(), [2.5, 97.5])
        return self.value() - other.value(), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/sound_events"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--more", type=int, default=100)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    shards, began = chosen.out / "shards", time.process_time()
    write_parts(chosen.data, shards)
    trainings = Trainings(chosen.out, steps=chosen.steps, more=chosen.more)
    for seed in range(chosen.seeds):
        for arm in ARMS:
            trainings.train(arm, seed)
    # Everything is chosen: the test clips are looked at from here on.
    cells: dict[tuple[str, str], list[EventPredictions]] = {}
    for encoder in ENCODERS:
        for arm in ARMS:
            runs = [trainings.made[arm, encoder, seed] for seed in range(chosen.seeds)]
            found = [read_predictions(run / "predictions.parquet") for run in runs]
            cells[encoder, arm] = [one for one in found if isinstance(one, EventPredictions)]
    table(cells)
    print(f"\n{time.process_time() - began:.0f} CPU s")


if __name__ == "__main__":
    main()
