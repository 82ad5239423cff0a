"""The end of a pretraining: probes, pictures and the report."""

import copy
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
import yaml
from torch import Tensor

from ssl_audio import randomness
from ssl_audio.audio.fbank import Fbank
from ssl_audio.data.index import ShardIndex, open_shards
from ssl_audio.data.loading import whole_clips
from ssl_audio.data.shard_rates import check_rates
from ssl_audio.data.unlabelled import AudioShards
from ssl_audio.errors import AudioError, SslAudioError
from ssl_audio.evaluation.embedding import (
    Embedder,
    embed_clips,
    frame_statistics,
    token_statistics,
)
from ssl_audio.evaluation.probe import Score, Task, score, tasks_of
from ssl_audio.evaluation.report import ReportTable, page
from ssl_audio.experiments.display import Display
from ssl_audio.model.backbone import Backbone
from ssl_audio.training.alerts import read_alerts
from ssl_audio.training.metrics_log import read_rows
from ssl_audio.training.module import Training
from ssl_audio.training.precision import default_precision
from ssl_audio.training.run import METRICS, Run

Scores = dict[str, dict[str, Score]]


@dataclasses.dataclass(frozen=True, slots=True)
class Probing:
    """Labelled shards on which a pretrained encoder is probed.

    Args:
        shards: Folder of shards with labels.
        targets: Kinds of label to tell apart; `speaker` is one too.
        protocol: `split` tests on the split test, `fold` on each fold in turn.
    """

    shards: Path
    targets: list[str]
    protocol: Literal["split", "fold"] = "split"


def assess(
    this: Run,
    module: Training,
    data: AudioShards,
    summary: dict[str, Any],
    *,
    untrained: dict[str, Tensor],
    probing: list[Probing],
    display: Display,
) -> str:
    """Probe, draw, report and close the run; returns the scores and the paths of the results as text."""
    from ssl_audio.evaluation.pictures import (  # matplotlib takes half a second
        curves_picture,
        scores_picture,
        watch_picture,
    )

    backbone = module.backbone.eval().cpu()
    before = copy.deepcopy(backbone)
    before.load_state_dict(untrained)
    window = data.crop_seconds or 10.0
    tables: list[ReportTable] = []
    pictures: dict[str, bytes] = {}
    if probing:
        scores = probe_all(
            {"pretrained": backbone, "untrained": before.eval()}, probing, window_seconds=window, display=display
        )
        tables = score_tables(scores)
        summary["scores"] = {
            task: {name: dataclasses.asdict(value) for name, value in row.items()} for task, row in scores.items()
        }
        pictures["Frozen linear probe"] = scores_picture(
            {task: {name: value.linear for name, value in row.items()} for task, row in scores.items()},
            ylabel="accuracy",
        )
    drawn = draw_picture(module, data.training_index, window)
    if drawn is not None:
        pictures[drawn[0]] = drawn[1]
        this.write("reconstruction.png", drawn[1])
    curves = curves_picture(read_rows(this.folder / METRICS), module.objective.titles)
    if curves is not None:
        pictures["Training curves"] = curves
        this.write("curves.png", curves)
    command = f"{_program()} inspect {this.folder}"
    recipe = yaml.safe_dump(module.recipe, sort_keys=False, allow_unicode=True)
    lead = (
        f"{summary['steps']} steps in {summary['seconds']:.0f} s ({summary['clips_per_second']:.0f} clips/s, "
        f"{summary['precision']}) on {summary['device']}"
    )
    alerts = read_alerts(this.folder)
    if alerts:
        rows = [[str(alert["step"]), alert["title"], alert["text"]] for alert in alerts[-20:]]
        tables.append(ReportTable(f"alerts ({len(alerts)} in all, the last 20)", ["step", "what", "found"], rows))
    panels = sorted(this.folder.glob("panel-*.png"))
    if panels:
        pictures[f"At step {int(panels[-1].stem.split('-')[1])}"] = panels[-1].read_bytes()
    watched = watch_picture(read_rows(this.folder / METRICS))
    if watched is not None:
        pictures["Training diagnostics"] = watched
    details = {"Recipe": recipe, "Summary": json.dumps(summary, indent=1)}
    report = page(
        f"Pretraining: {summary['name']}",
        lead,
        tables=tables,
        pictures=pictures,
        details=details,
        command=command,
    )
    this.write("report.html", report)
    this.save_summary(summary)
    places = f"checkpoint  {this.last}\nreport      {this.folder / 'report.html'}\nnext        {command}"
    return "\n\n".join([*(table.text() for table in tables), places])


def _program() -> str:
    """The command that starts this program: its name if the shell finds it, else its path."""
    return "ssl-audio" if shutil.which("ssl-audio") else os.path.relpath(sys.argv[0])


def check_probing(probing: list[Probing]) -> None:
    """Check before training that the probes after it are possible.

    Raises:
        ShardError: if shards or labels are missing.
    """
    for wanted in probing:
        tasks_of(open_shards([wanted.shards]), wanted.targets, protocol=wanted.protocol)


def probe_all(
    backbones: dict[str, Backbone],
    probing: list[Probing],
    *,
    window_seconds: float,
    display: Display,
    others: Mapping[str, tuple[Embedder, int]] = MappingProxyType({}),
) -> Scores:
    """Frozen scores of each encoder, and of mel and cepstral statistics, on every task of every set of shards.

    Clips are read at the rate of the encoders, which have the same; where shards have another, it is said.

    Args:
        backbones: Encoders by name.
        probing: On what.
        window_seconds: Length of the windows that a backbone's long clips are cut in.
        display: Shows messages and progress.
        others: Further encoders by name, each with the sample rate that it expects.
    """
    rate = [*(one.frontend.sample_rate for one in backbones.values()), *(rate for _, rate in others.values())][0]
    check_rates([wanted.shards for wanted in probing], rate, resample=True)
    scores: Scores = {}
    for wanted in probing:
        index = open_shards([wanted.shards])
        tasks = tasks_of(index, wanted.targets, protocol=wanted.protocol)
        used = _used(index, tasks)
        embedders: dict[str, Embedder] = {
            name: token_statistics(backbone, window_seconds=window_seconds) for name, backbone in backbones.items()
        }
        embedders |= {name: embed for name, (embed, _) in others.items()}
        frontend = Fbank(sample_rate=rate)
        embedders["mel"] = frame_statistics(frontend)
        embedders["cepstra"] = frame_statistics(frontend, cepstra=20)
        with display.bar(f"probing {wanted.shards.name}") as progress:
            features = embed_clips(
                index.select(used),
                embedders,
                sample_rate=rate,
                bf16=default_precision("cpu") == "bf16-mixed",
                progress=progress,
            )
        place = {clip: row for row, clip in enumerate(used.tolist())}
        for target, task in tasks.items():
            rows = [place[clip] for clip in task.clips.tolist()]
            name = target if len(probing) == 1 else f"{wanted.shards.name} {target}"
            scores[name] = {encoder: score(values[rows], task) for encoder, values in features.items()}
    return scores


def _used(index: ShardIndex, tasks: dict[str, Task]) -> Any:
    import numpy as np

    return np.unique(np.concatenate([task.clips for task in tasks.values()]))


def score_tables(scores: Scores) -> list[ReportTable]:
    """One table for each kind of probe."""
    encoders = list(next(iter(scores.values())))
    return [
        ReportTable(
            caption,
            ["task", *encoders],
            [[task, *(getattr(row[encoder], kind) for encoder in encoders)] for task, row in scores.items()],
        )
        for kind, caption in (
            ("linear", "frozen linear probe, accuracy on clips and voices held out"),
            ("neighbours", "five nearest neighbours, accuracy on the same clips"),
        )
    ]


def draw_picture(module: Training, index: ShardIndex, seconds: float, *, clips: int = 4) -> tuple[str, bytes] | None:
    """Title and picture of what the objective shows of a few clips that fill a crop, spread over the corpus; None if
    it shows nothing.
    """
    import numpy as np

    from ssl_audio.evaluation.pictures import panels_picture  # matplotlib takes half a second

    rate = int(module.backbone.frontend.sample_rate)
    long_enough = np.flatnonzero(index.seconds >= min(seconds, float(index.seconds.max())) * 0.999)
    drawn, title = [], ""
    for clip in long_enough[np.linspace(0, len(long_enough) - 1, clips).astype(int)]:
        try:
            one = index.select(np.array([clip]))
            batch = next(whole_clips(one, sample_rate=rate, batch_clips=1, max_seconds=seconds))
        except AudioError:
            # It was counted in training; the picture has one row less.
            continue
        waveform = batch.waveforms[:, : round(seconds * rate)]
        seeds = torch.tensor([randomness.derive("picture", *batch.keys)], device=module.device)
        with torch.inference_mode():
            spectrogram = module.backbone.spectrogram(waveform.to(module.device))
            picture = module.objective.picture(module.backbone, spectrogram, seeds)
        if picture is None:
            return None
        title = picture.title
        drawn.append((batch.keys[0][-24:], picture.rows[0]))
    if not drawn:
        raise SslAudioError("none of the clips chosen for the picture can be decoded; repair the shards")
    return title, panels_picture(drawn, hop_seconds=module.backbone.frontend.hop_seconds)
