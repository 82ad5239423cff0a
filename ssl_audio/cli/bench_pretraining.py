"""`ssl-audio bench pretraining`: a slice of real pretraining, and how long all of AudioSet would take."""

import csv
import math
import statistics
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveFloat, PositiveInt

from ssl_audio.cli.results import add_figures
from ssl_audio.errors import SslAudioError
from ssl_audio.evaluation.report import ReportTable
from ssl_audio.experiments.pretrain import pretrain
from ssl_audio.training.run import METRICS

AUDIOSET_CLIPS = 2_042_985
"""AudioSet's full training set, as its segment list counts them."""


def pretraining(
    config: list[str] = ["ssast_base_patch", "repaired"],  # noqa: B006
    shards: list[Path] | None = None,
    minutes: PositiveFloat = 2.0,
    batch_clips: PositiveInt | None = None,
    epochs: PositiveInt = 10,
    options: dict[str, Any] = {},  # noqa: B006
    runs: Path = Path("runs"),
    name: str = "slice",
    out: Path | None = None,
) -> None:
    """Pretrain for some minutes as a recipe says: clips a second, waiting for data, memory, model FLOPs utilisation.

    The first tenth of the logged steps, at least one, is left out where there are more.

    Args:
        config: Recipes, later ones over earlier ones.
        shards: Folders of shards, instead of the recipe's.
        minutes: Of training.
        batch_clips: Clips of a batch, instead of the recipe's.
        epochs: Over all of AudioSet, for the extrapolation.
        options: Other options of pretraining by their names, such as {model.compile: true}.
        runs: Folder of all runs.
        name: Of the run.
        out: Also write the figures to this JSON file.

    Raises:
        SslAudioError: if too few steps were made to measure anything.
    """
    seconds = max(1, round(minutes * 60))
    limit = f"00:{seconds // 3600:02d}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"
    finished = pretrain(
        config,
        shards=None if shards is None else list(shards),
        name=name,
        runs=runs,
        resume="never",
        options={
            "trainer.max_steps": -1,
            "trainer.max_time": limit,
            "trainer.log_every_n_steps": 1,
            "data.split": None,
            "data.validation_split": None,
            "probe": [],
            **({} if batch_clips is None else {"data.batch_clips": batch_clips}),
            **options,
        },
    )
    if finished is None:  # another rank
        return
    figures = measured(finished.folder / METRICS)
    clips_per_second = figures["clips_per_second"]
    days = AUDIOSET_CLIPS * epochs / clips_per_second / 86400
    figures |= {"steps": finished.summary["steps"], "audioset_days": days, "precision": finished.summary["precision"]}
    rows = [
        ["clips a second", f"{clips_per_second:.1f}"],
        ["share of the time that waits for data", f"{figures['data_wait_share']:.1%}"],
        ["peak memory, GiB", f"{figures['memory_gb']:.2f}"],
        ["model FLOPs utilisation", "" if math.isnan(u := figures["flops_utilisation"]) else f"{u:.1%}"],
        [f"days for {epochs} epochs of AudioSet-2M, by this speed", f"{days:.2f}"],
    ]
    caption = f"{' + '.join(config)}, {figures['steps']} steps, {figures['precision']}"
    print(ReportTable(caption, ["", ""], rows).text())
    add_figures(figures, out)


def measured(path: Path) -> dict[str, float]:
    """Medians over the logged steps but for the first tenth; memory at its highest.

    Args:
        path: The metrics of a run.

    Raises:
        SslAudioError: if they have no speeds.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("watch/clips_per_second")]
    rows = rows[min(max(1, len(rows) // 10), len(rows) - 1) :] if rows else []
    if not rows:
        raise SslAudioError(f"{path}: too few steps to measure a speed; give more minutes or a smaller batch")

    def column(key: str) -> list[float]:
        return [float(row[f"watch/{key}"]) for row in rows if row.get(f"watch/{key}")]

    return {
        "clips_per_second": statistics.median(column("clips_per_second")),
        "data_wait_share": statistics.median(column("data_wait_share")),
        "memory_gb": max(column("memory_gb")),
        "flops_utilisation": statistics.median(column("flops_utilisation") or [math.nan]),
    }
