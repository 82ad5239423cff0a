"""`metrics.csv`: what a run logged, with no row lost, doubled or torn when it is killed."""

import csv
import io
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ssl_audio.storing import store, sync

_BUFFERED_ROWS = 50


class MetricsLog(Logger):
    """Logs to a CSV file: rows are appended; a new column rewrites the file.

    Args:
        path: The file. Its folder is made with the first row.
        steps: Existing rows are kept up to this step; None keeps all.
    """

    def __init__(self, path: Path, *, steps: int | None = 0) -> None:
        super().__init__()
        self.path = path
        self.columns: list[str] = []
        self._waiting: list[dict[str, Any]] = []
        self._steps = steps
        self._opened = False

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the recipe is in the run folder."""

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self._waiting.append({name: float(value) for name, value in metrics.items()} | {"step": step or 0})
        if len(self._waiting) >= _BUFFERED_ROWS:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Write waiting rows to the file."""
        self._open()
        rows, self._waiting = self._waiting, []
        fresh = sorted(set().union(*rows) - set(self.columns))
        if fresh:
            before = _read(self.path)
            self.columns = sorted([*self.columns, *fresh])
            self._rewrite([*before, *rows])
        elif rows:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                file.write(self._text(rows))

    @rank_zero_only
    def settle(self) -> None:
        """Sync waiting rows to the disk, so that they survive a power cut."""
        self.save()
        if self.path.exists():
            sync(self.path)

    def finalize(self, status: str) -> None:
        if self._waiting:
            self.save()

    def _open(self) -> None:
        """Keep the earlier rows that are still valid."""
        if self._opened:
            return
        self._opened = True
        kept = [row for row in _read(self.path) if self._steps is None or int(row["step"]) < self._steps]
        self.columns = sorted(set().union(*kept)) if kept else []
        if kept or self.path.exists():
            self._rewrite(kept)

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        store(self.path, ",".join(self.columns) + "\n" + self._text(rows))

    def _text(self, rows: list[dict[str, Any]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n").writerows(rows)
        return text.getvalue()


def settle_logs(trainer: L.Trainer) -> None:
    """Rows before a checkpoint must be on the disk before it: a resumed run does not log them again."""
    for logger in trainer.loggers:
        logger.settle() if isinstance(logger, MetricsLog) else logger.save()


def _read(path: Path) -> list[dict[str, str]]:
    """Rows with the cells that are filled; a last line without its end was torn and is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    rows = csv.DictReader(io.StringIO(whole))
    return [{name: cell for name, cell in row.items() if cell} for row in rows]


def read_rows(metrics: Path) -> list[tuple[int, dict[str, float]]]:
    """Step and values of each row of a `metrics.csv`; none if it is not there."""
    return [
        (int(row["step"]), {name: float(cell) for name, cell in row.items() if name != "step"})
        for row in _read(metrics)
    ]
