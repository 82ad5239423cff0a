"""What objectives teach in equal CPU time: frozen encoders on tasks whose test clips no pretraining has had.

    python tests/soak/objectives.py --shards /data/shards --out objectives.jsonl --budget 360 --seeds 3
    python tests/soak/objectives.py --out objectives.jsonl --independent independent   # see independent.py
    python tests/soak/objectives.py --out objectives.jsonl --show true

Every pretraining and every probe writes a line into --out as it ends; a call that was cut off resumes there. The steps
that fit the budget are measured once for each objective and encoder, in CPU time of the process that trains and reads.
"""

import json
import time
from pathlib import Path

import numpy as np
import torch
from jsonargparse import auto_cli

import ssl_audio
from ssl_audio.audio.cepstrum import cosines
from ssl_audio.audio.fbank import Fbank
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.data.index import open_shards
from ssl_audio.data.labels import labels_in
from ssl_audio.evaluation.embedding import Embedder, embed_clips, frame_statistics, token_statistics
from ssl_audio.objectives.linear_fit import fit_linear

OBJECTIVES = {
    "default": ["demo", "real_audio"],
    "units": ["demo", "real_audio", "units"],
    "open_units": ["demo", "real_audio", "units"],
    "units_and_clips": ["demo", "real_audio", "units"],
    "published": ["demo", "real_audio"],
}
OPTIONS = {
    "open_units": {"model.objective.masking": None},
    "units_and_clips": {
        "model.objective.masking": None,
        "model.objective.clip_weight": 0.3,
        "data.crops_per_clip": 2,
        "data.batch_clips": 8,
    },
    # SSAST's losses and direction, mask tokens through the encoder; batch, crops and rate are the default's.
    "published": {
        "model.objective.decoder": None,
        "model.objective.direction": "published",
        "model.objective.targets": "raw",
        "model.objective.temperature": None,
        "model.objective.generative_weight": 10.0,
        "model.objective.clip_weight": 0.0,
        "model.objective.sketch_weight": 0.0,
        "model.views": None,
        "data.crops_per_clip": 1,
    },
}
LEFT_OUT = {
    "esc10": {"folds": [1, 2]},
    "fsdd": {"folds": [1, 2], "splits": ["test"]},
    "emodb4": {"folds": [1, 2, 3, 4]},
}
TASKS = {  # shards, kind of label, which clips are tested
    "events": ("esc10", "label", "folds"),
    "digits": ("fsdd", "label", "folds"),
    "speakers": ("fsdd", "speaker", "splits"),
    "emotions": ("emodb4", "label", "folds"),
}
INDEPENDENT = {name: (name, "label", "every fold") for name in ("letters", "percussion", "words")}
FEW, DRAWS, WINDOW = 10, 3, 1.295


def cepstra_with_deltas(frontend: Fbank) -> Embedder:
    """Moments of 20 cepstra, of their first and of their second differences."""
    basis = cosines(frontend.bins, 20)

    def embed(batch):
        spectrogram = frontend(batch.waveforms, batch.samples)
        rows = []
        for values, frames in zip(spectrogram.values, spectrogram.frames.tolist(), strict=True):
            parts = [values[:frames] @ basis]
            for _ in range(2):
                parts.append(parts[-1][2:] - parts[-1][:-2] if len(parts[-1]) > 3 else parts[-1] * 0)
            rows.append(torch.cat([torch.cat([part.mean(0), part.std(0, correction=0)]) for part in parts]))
        return torch.stack(rows)

    return embed


def probed(shards: Path, embedders: dict[str, Embedder], tasks=TASKS) -> dict[tuple[str, str, str], list[str]]:
    """Which test clips each embedder's probe gets right, by embedder, task and labels: a string of digits a draw."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for folder in {folder for folder, _, _ in tasks.values()}:
        index = open_shards([shards / folder])
        chosen = np.sort(np.random.default_rng(0).permutation(len(index))[:1500])
        index = index.select(chosen)
        features = embed_clips(index, embedders, sample_rate=16000, bf16=True)
        for task, (name, kind, held) in tasks.items():
            if name != folder:
                continue
            names, labels = labels_in(index, kind)
            codes = labels.codes.astype(np.int64)
            if held == "every fold":
                parts = [index.fold == fold for fold in np.unique(index.fold)]
            else:
                parts = [np.isin(index.fold, LEFT_OUT[folder]["folds"]) if held == "folds" else index.split == "test"]
            for embedder, rows in features.items():
                for amount in ("few", "all"):
                    found[embedder, task, amount] = [
                        "".join(answers(rows, codes, ~part, part, len(names), draw, amount) for part in parts)
                        for draw in range(DRAWS if amount == "few" else 1)
                    ]
    return found


def answers(rows, codes, fitted, tested, labels, draw, amount) -> str:
    train = np.flatnonzero(fitted)
    if amount == "few":
        order = np.random.default_rng(draw).permutation(train)
        train = np.concatenate([order[codes[order] == code][:FEW] for code in range(labels)])
    weight, bias = fit_linear(rows[train], np.eye(labels, dtype=bool)[codes[train]], several=False, C=0.1)
    right = (rows[tested] @ weight.T + bias).argmax(axis=1) == codes[tested]
    return "".join("01"[int(value)] for value in right)


def mean_over_bands(embed: Embedder, bands: int) -> Embedder:
    """Moments over all patches, from those of each band."""

    def embedded(batch):
        first, second = embed(batch).unflatten(1, (bands, 2, -1)).unbind(dim=2)
        mean = first.mean(dim=1)
        square = (second.square() + first.square()).mean(dim=1)
        return torch.cat([mean, (square - mean.square()).clamp_min(0).sqrt()], dim=1)

    return embedded


def readings(name: str, backbone) -> dict[str, Embedder]:
    """The states read band by band and, where there are several bands, over all patches."""
    apart = token_statistics(backbone, window_seconds=WINDOW)
    found = {f"{name}": apart}
    return found if backbone.bands == 1 else {**found, f"{name}, mean": mean_over_bands(apart, backbone.bands)}


class Log:
    """Lines of what has ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def get(self, **key):
        return next((line for line in self.lines if all(line.get(k) == v for k, v in key.items())), None)

    def add(self, **line):
        self.lines.append(line)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return line


def pretrain(objective: str, encoder: str, seed: int, steps: int, name: str, shards: Path) -> tuple[Path, float]:
    """A pretraining without the test clips; returns its checkpoint and its CPU seconds."""
    sources = ["librispeech_mini", "esc10", "fsdd", "emodb4"]
    started = time.process_time()
    run = ssl_audio.pretrain(
        OBJECTIVES[objective],
        shards=[shards / source for source in sources],
        max_steps=steps,
        seed=seed,
        name=name,
        display=ssl_audio.Silent(),
        options={
            "model.backbone.encoder": f"recipes/encoders/{encoder}.yaml",
            "data.leave_out": {str(shards / source): left for source, left in LEFT_OUT.items()},
            "data.workers": 0,
            "probe": [],
            **OPTIONS.get(objective, {}),
        },
    )
    return run.checkpoint, time.process_time() - started


def main(shards: Path = Path("shards"), out: Path = Path("objectives.jsonl"), budget: int = 360, seeds: int = 3,
         encoders: list[str] = ["transformer_demo", "bimamba_wide"], objectives: list[str] = list(OBJECTIVES),  # noqa: B006
         independent: Path | None = None, show: bool = False) -> None:  # fmt: skip
    log = Log(out)
    if show:
        for tasks in (TASKS, INDEPENDENT):
            print_table(log, tasks)
        return
    torch.set_num_threads(1)
    if not Path("recipes").exists():
        Path("recipes").symlink_to(Path(__file__).parents[2] / "recipes")
    plain = Fbank(level_db=-26, floor=-10)
    statistics = {"mel": frame_statistics(plain), "cepstra": frame_statistics(plain, cepstra=20),
                  "cepstra with deltas": cepstra_with_deltas(plain)}  # fmt: skip
    if independent is not None:
        return report(log, independent, statistics)
    if log.get(what="plain") is None:
        keep(log, probed(shards, statistics), what="plain", seed=0)
    for seed in range(seeds):
        for encoder in encoders:
            for objective in objectives:
                key = {"what": "pretrained", "objective": objective, "encoder": encoder, "budget": budget, "seed": seed}
                if log.get(**key):
                    continue
                rate = log.get(what="rate", objective=objective, encoder=encoder) or measure(
                    log, objective, encoder, shards
                )
                steps = max(1, round((budget - rate["fixed"]) / rate["step"]))
                checkpoint, spent = pretrain(objective, encoder, seed, steps, name_of(key), shards)
                opened = open_checkpoint(checkpoint)
                ways = readings("pretrained", opened.backbone().eval())
                if log.get(what="untrained", objective=objective, encoder=encoder, seed=seed) is None:
                    before = readings("untrained", opened.untrained(seed=seed).eval())
                    keep(log, probed(shards, before), what="untrained", objective=objective, encoder=encoder, seed=seed)
                keep(log, probed(shards, ways), **key, steps=steps, cpu=round(spent))


def name_of(line) -> str:
    """The name of a pretraining's run."""
    return "{objective}_{encoder}_{budget}_{seed}".format_map(line)


def report(log: Log, independent: Path, statistics: dict[str, Embedder]) -> None:
    """Probe what has been pretrained on sets that nothing was chosen on."""
    if log.get(what="plain", set="independent") is None:
        keep(log, probed(independent, statistics, INDEPENDENT), what="plain", seed=0, set="independent")
    for line in [line for line in log.lines if line["what"] == "pretrained" and "set" not in line]:
        key = {name: line[name] for name in ("what", "objective", "encoder", "budget", "seed")} | {"set": "independent"}
        before = {name: key[name] for name in ("objective", "encoder", "seed", "set")} | {"what": "untrained"}
        if log.get(**key):
            continue
        opened = open_checkpoint(Path("runs/pretrain") / name_of(line) / "0/checkpoints/last.ckpt")
        if log.get(**before) is None:
            ways = readings("untrained", opened.untrained(seed=line["seed"]).eval())
            keep(log, probed(independent, ways, INDEPENDENT), **before)
        keep(log, probed(independent, readings("pretrained", opened.backbone().eval()), INDEPENDENT), **key)


def measure(log: Log, objective: str, encoder: str, shards: Path):
    """CPU seconds of a step and of all that is not a step; a first training, which imports, is not counted."""
    spent = {
        name: pretrain(objective, encoder, 9, steps, f"rate_{name}_{objective}_{encoder}", shards)[1]
        for name, steps in (("first", 2), ("short", 5), ("long", 85))
    }
    step = (spent["long"] - spent["short"]) / 80
    return log.add(what="rate", objective=objective, encoder=encoder, step=step, fixed=spent["short"] - 5 * step)


def keep(log: Log, found, **key) -> None:
    told = [[*name, rows] for name, rows in found.items()]
    log.add(**key, found=told)


def print_table(log: Log, tasks) -> None:
    """Means over seeds, and differences from the same encoder untrained with 95 % intervals over test clips."""
    rows: dict[tuple, dict[int, np.ndarray]] = {}
    spent: dict[tuple, list[tuple[int, int]]] = {}
    for line in log.lines:
        for reading, task, amount, strings in line.get("found", []):
            right = np.mean([[int(one) for one in string] for string in strings], axis=0)
            name = (line["what"], line.get("objective", ""), line.get("encoder", ""), line.get("budget", 0))
            if task not in tasks:
                continue
            rows.setdefault((*name, reading, task, amount), {})[line["seed"]] = right
        if "steps" in line:
            spent.setdefault((line["objective"], line["encoder"], line["budget"]), []).append(
                (line["steps"], line["cpu"])
            )
    for (objective, encoder, budget), found in sorted(spent.items()):
        print(f"{objective} {encoder} {budget} s: {len(found)} seeds, steps and CPU s {found}")
    columns = [(task, amount) for task in tasks for amount in ("few", "all")]
    print(
        "| | "
        + " | ".join(f"{task}, {amount}" for task, amount in columns)
        + " |\n|---" * 1
        + "|---" * len(columns)
        + "|"
    )
    draws = np.random.default_rng(0)
    for what, objective, encoder, budget, reading in sorted({key[:5] for key in rows}):
        cells = []
        for task, amount in columns:
            found = rows.get((what, objective, encoder, budget, reading, task, amount))
            if found is None:
                cells.append("")
                continue
            cell = f"{np.mean([row.mean() for row in found.values()]):.3f}"
            if what == "pretrained":
                other = rows.get(
                    ("untrained", objective, encoder, 0, reading.replace("pretrained", "untrained"), task, amount), {}
                )
                both = sorted(found.keys() & other.keys())
                gain = np.mean([found[seed] - other[seed] for seed in both], axis=0)
                means = gain[draws.integers(0, len(gain), (2000, len(gain)))].mean(axis=1)
                low, high = np.percentile(means, [2.5, 97.5])
                cell += f" {gain.mean():+.3f} ({low:+.3f} to {high:+.3f})"
            cells.append(cell)
        name = f"{objective} {encoder} {reading}" + (f", {budget} s" if budget else "")
        print(f"| {name.strip()} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
