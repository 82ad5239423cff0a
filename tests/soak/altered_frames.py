"""Whether pretraining by AlteredFrames helps: small encoders on real shards, with and without, frozen and fine-tuned.

Every training writes a line into --out as it ends; a call that was cut off goes on where it was.

    python tests/soak/altered_frames.py --shards /data/shards --out altered_frames.jsonl
    python tests/soak/altered_frames.py --out altered_frames.jsonl --show true
"""

import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from scipy.stats import t
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ssl_audio.audio.files import decode
from ssl_audio.audio.frontend import Frontend, Spectrogram
from ssl_audio.audio.mel_spectrogram import MelSpectrogram
from ssl_audio.audio.mfcc import Mfcc
from ssl_audio.audio.statistics import Moments
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.data.index import open_shards
from ssl_audio.data.labels import labels_in
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Transformer
from ssl_audio.objectives import AlteredFrames
from ssl_audio.tokens import pool_moments

WIDTH, DEPTH, BATCH = 64, 2, 32
PRETRAINING_STEPS, STEPS = 2000, 100
TASKS = {  # shards, kind of label, seconds, training clips of each label
    "fsdd digits": ("fsdd", "label", 0.8, 20),
    "emodb4": ("emodb4", "label", 2.0, 40),
    "fsdd speakers": ("fsdd", "speaker", 0.8, 20),
}
FRONTENDS = {
    "mfcc": lambda: Mfcc(coefficients=40, mels=64, standardise=True),
    "mel": lambda: MelSpectrogram(bins=64, hop_seconds=0.0125, top_db=80.0),
}
ENCODERS = {
    "transformer": lambda: Transformer(width=WIDTH, depth=DEPTH, heads=4),
    "bimamba": lambda: BiMamba(width=WIDTH, depth=DEPTH),
}


def backbone_of(frontend: Frontend, encoder: str, seed: int) -> Backbone:
    torch.manual_seed(seed)
    options = {"position_start": "sines", "position_fixed": True, "position_frames": 200}
    return Backbone(frontend=frontend, encoder=ENCODERS[encoder](), patch=(frontend.bins, 1), **options)


class Clips:
    """Spectrograms of clips, computed once."""

    def __init__(self, frontend: Frontend, waves: list[np.ndarray], seconds: float) -> None:
        samples = torch.tensor([min(len(wave), round(16000 * seconds)) for wave in waves])
        rows = torch.zeros(len(waves), int(samples.max()))
        for row, (wave, length) in enumerate(zip(waves, samples.tolist(), strict=True)):
            rows[row, :length] = torch.from_numpy(wave[:length])
        self.all = frontend(rows, samples)

    def take(self, rows: torch.Tensor) -> Spectrogram:
        frames = self.all.frames[rows]
        longest = int(frames.max())
        whole = bool((frames == longest).all())
        return Spectrogram(
            values=self.all.values[rows, :longest].clone(), frames=frames, whole=whole, fill=self.all.fill
        )


def states(backbone: Backbone, spectrogram: Spectrogram) -> torch.Tensor:
    return pool_moments(backbone.encode(backbone.embed(backbone.cut(spectrogram))))


def pretrained(backbone: Backbone, clips: Clips, seed: int) -> tuple[float, float]:
    """Train it; returns the distance of what is restored, and of what was altered, in the last steps."""
    objective = AlteredFrames()
    objective.attach(backbone, Facts())
    optimizer = torch.optim.AdamW([*backbone.parameters(), *objective.parameters()], lr=1e-3)
    draws, found = torch.Generator().manual_seed(seed), []
    for step in range(PRETRAINING_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 20) * (1 - step / PRETRAINING_STEPS)
        rows = torch.randint(len(clips.all.frames), (BATCH,), generator=draws)
        seeds = torch.arange(BATCH) + step * BATCH + seed * 10**6
        batch = Batch(waveforms=torch.zeros(BATCH, 1), samples=None, source=rows, seeds=seeds, keys=("",) * BATCH)
        losses = objective(backbone, batch, clips.take(rows))
        optimizer.zero_grad()
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(backbone.parameters(), 1.0)
        optimizer.step()
        found.append((float(losses["l1"].detach()), float(losses["l1_as_altered"].detach())))
    last = np.mean(found[-20:], axis=0)
    return float(last[0]), float(last[1])


def frozen(backbone: Backbone, train: Clips, test: Clips, wanted: np.ndarray, truth: np.ndarray) -> float:
    with torch.inference_mode():
        features = [
            np.concatenate(
                [states(backbone, part.take(rows)).numpy() for rows in torch.arange(len(part.all.frames)).split(64)]
            )
            for part in (train, test)
        ]
    scale = StandardScaler().fit(features[0])
    probe = LogisticRegression(C=0.1, max_iter=300).fit(scale.transform(features[0]), wanted)
    return float((probe.predict(scale.transform(features[1])) == truth).mean())


def tuned(backbone: Backbone, train: Clips, test: Clips, wanted: np.ndarray, truth: np.ndarray, seed: int) -> float:
    torch.manual_seed(seed)
    head = torch.nn.Sequential(torch.nn.LayerNorm(2 * WIDTH), torch.nn.Linear(2 * WIDTH, int(wanted.max()) + 1))
    optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], lr=1e-3, weight_decay=0.05)
    draws, labels = torch.Generator().manual_seed(seed), torch.from_numpy(wanted)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 10) * (1 - step / STEPS)
        rows = torch.randperm(len(labels), generator=draws)[:BATCH]
        loss = F.cross_entropy(head(states(backbone, train.take(rows))), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        parts = torch.arange(len(truth)).split(64)
        answers = torch.cat([head(states(backbone, test.take(rows))).argmax(dim=1) for rows in parts])
    return float((answers.numpy() == truth).mean())


def run(shards: Path, out: Path, seeds: int, minutes: float) -> None:
    end = time.monotonic() + 60 * minutes
    done = {tuple(json.loads(line)["key"]) for line in out.read_text().splitlines()} if out.exists() else set()
    heard = {name: open_shards([shards / name]) for name in ("librispeech_mini", "fsdd", "emodb4")}

    def waves(name: str, rows: np.ndarray) -> list[np.ndarray]:
        return [decode(heard[name].audio_bytes(int(row)), seconds=2.0) for row in rows]

    def of(name: str, split: str) -> np.ndarray:
        return np.flatnonzero(heard[name].split == split)

    unlabelled = [*waves("librispeech_mini", np.arange(len(heard["librispeech_mini"])))]
    unlabelled += [*waves("fsdd", of("fsdd", "train")[::8]), *waves("emodb4", of("emodb4", "train"))]
    for seed in range(seeds):
        for front, make in FRONTENDS.items():
            frontend, moments = make(), Moments()
            for wave in unlabelled[::5]:
                moments.update(frontend.unnormalised(torch.from_numpy(wave)[None]))
            frontend.set_statistics(moments.mean, moments.std)
            clips = Clips(frontend, unlabelled, 1.0)
            tasks = {name: task_of(frontend, heard, waves, of, name, seed) for name in TASKS}
            for encoder in ENCODERS:
                weights = None
                for start in ("none", "altered"):
                    for task, (train, test, wanted, truth) in tasks.items():
                        for way in ("frozen", "tuned"):
                            key = (task, front, encoder, start, way, seed)
                            if key in done:
                                continue
                            if time.monotonic() > end:
                                return
                            started, backbone = time.process_time(), backbone_of(frontend, encoder, seed)
                            extra = {}
                            if start == "altered":
                                if weights is None:
                                    extra["l1"], extra["l1_as_altered"] = pretrained(backbone, clips, seed)
                                    weights = {n: value.clone() for n, value in backbone.state_dict().items()}
                                backbone.load_state_dict(weights)
                            score = (
                                frozen(backbone, train, test, wanted, truth)
                                if way == "frozen"
                                else tuned(backbone, train, test, wanted, truth, seed)
                            )
                            line = {"key": key, "score": score, "cpu": time.process_time() - started, **extra}
                            with out.open("a") as file:
                                file.write(json.dumps(line) + "\n")


def task_of(frontend, heard, waves, of, name, seed):
    folder, kind, seconds, each = TASKS[name]
    names, found = labels_in(heard[folder], kind)
    rows, test = of(folder, "train"), of(folder, "test")
    order = np.random.default_rng(seed).permutation(rows)
    kept = np.concatenate([order[found.codes[order] == code][:each] for code in range(len(names))])
    one, other = (Clips(frontend, waves(folder, part), seconds) for part in (kept, test))
    return one, other, found.codes[kept].astype(np.int64), found.codes[test].astype(np.int64)


def show(out: Path) -> None:
    rows: dict[tuple[str, ...], dict[str, list[float]]] = {}
    restored = []
    for line in map(json.loads, out.read_text().splitlines()):
        task, front, encoder, start, way, _ = line["key"]
        rows.setdefault((task, front, encoder, way), {}).setdefault(start, []).append(line["score"])
        restored += [line["l1"] / line["l1_as_altered"]] if "l1" in line else []
    print("| task | frontend | encoder | | none | AlteredFrames | difference, 95 % |\n" + "|---" * 7 + "|")
    for (task, front, encoder, way), found in sorted(rows.items()):
        if len(found) < 2:
            continue
        none, altered = found["none"], found["altered"]
        count = min(len(none), len(altered))
        gains = np.subtract(altered[:count], none[:count])
        half = t.ppf(0.975, count - 1) * gains.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
        told = f"{gains.mean():+.3f} ({gains.mean() - half:+.3f} to {gains.mean() + half:+.3f})"
        print(f"| {task} | {front} | {encoder} | {way} | {np.mean(none):.3f} | {np.mean(altered):.3f} | {told} |")
    print(f"restored values are {np.mean(restored):.2f} times as far off as altered ones")


def main(shards: Path = Path("/tmp/shards"), out: Path = Path("altered_frames.jsonl"), seeds: int = 3,
         minutes: float = 30.0, show: bool = False) -> None:  # fmt: skip
    torch.set_num_threads(1)
    if show:
        _show(out)
    else:
        run(shards, out, seeds, minutes)


_show = show

if __name__ == "__main__":
    auto_cli(main, as_positional=False)
