"""The end of a fine-tuning: scores with intervals, the confusion matrix, the report."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ssl_audio.checkpoints.newest import of_fold
from ssl_audio.checkpoints.opening import open_alone
from ssl_audio.errors import SslAudioError
from ssl_audio.evaluation.events.predictions import EventPredictions
from ssl_audio.evaluation.metrics import confusion, d_prime, mean_defined
from ssl_audio.evaluation.predictions import Over, Predictions, joined
from ssl_audio.evaluation.report import ReportTable, page
from ssl_audio.evaluation.screening import screening_of
from ssl_audio.training.metrics_log import read_rows
from ssl_audio.training.run import METRICS, Run, json_text

TIMELINES = "timelines.png"
_LEVELS = {"noise": "files with noise", "clean_windows": "windows", "noise_windows": "windows with noise"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One training and its one test.

    Args:
        start: `pretrained` or `scratch`.
        fold: Which fold tested, from 0.
        valid: Validation score of the weights that were tested.
        chosen: Name of these weights.
        steps: Optimizer steps taken.
        seconds: Duration of training.
        predictions: Of the test clips.
        clips_per_second: In training.
        last_valid: Validation score after the last step.
        replaced: Training clips that could not be decoded, and why.
        heard: Test clips that were in the pretraining, without their labels; None where that is not known.
        validation: Of sound events every score of the validation clips, on which thresholds were tuned.
        beside: Further answers by what they are of: `noise`, `clean_windows`, `noise_windows`.
    """

    start: str
    fold: int
    valid: float
    chosen: str
    steps: int
    seconds: float
    predictions: Predictions
    clips_per_second: float = 0.0
    last_valid: float | None = None
    replaced: dict[str, str] = dataclasses.field(default_factory=dict)
    heard: int | None = None
    validation: dict[str, float] | None = None
    beside: dict[str, Predictions] = dataclasses.field(default_factory=dict)

    def json(self) -> str:
        """Everything but the predictions, with the test scores."""
        apart = ("predictions", "beside")
        fields = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in apart
        }
        return json_text({**fields, "test": self.predictions.summary()})

    @classmethod
    def load(cls, path: Path, predictions: Predictions, beside: dict[str, Predictions] | None = None) -> "Outcome":
        """Read back what `json` wrote.

        Raises:
            SslAudioError: if it is damaged.
        """
        fields = Run(path.parent).read(path.name) or {}
        fields.pop("test", None)
        try:
            return cls(**fields, predictions=predictions, beside=beside or {})
        except TypeError as error:
            raise SslAudioError(f"{path}: is no outcome of a training; remove {path.parent} to train again") from error


def scores_of(outcomes: list[Outcome], *, over: Over = "clips", seed: int = 0) -> dict[str, Any]:
    """Mean over folds of each test score, its spread, and the interval of the headline over all clips or speakers."""
    folds = [outcome.predictions.summary() for outcome in outcomes]
    together = joined([outcome.predictions for outcome in outcomes])
    low, high = together.interval(over=over, seed=seed)
    values = [outcome.predictions.headline for outcome in outcomes]
    heard = [outcome.heard for outcome in outcomes]
    test = {name: mean_defined([fold[name] for fold in folds]) for name in folds[0]}
    tuned = [outcome.validation for outcome in outcomes if outcome.validation is not None]
    validation = {name: mean_defined([one[name] for one in tuned]) for name in tuned[0]} if tuned else None
    return {
        # Of the mean area, as the published code has it: one fold without a mistake would make the mean of d' infinite.
        "test": {**test, "d_prime": d_prime(test["AUC"])},
        "headline": float(np.mean(values)),
        "spread": float(np.std(values)),
        "interval": [low, high],
        "folds": values,
        "valid": float(np.mean([outcome.valid for outcome in outcomes])),
        **({} if validation is None else {"validation": validation}),
        "chosen": [outcome.chosen for outcome in outcomes],
        "steps": sum(outcome.steps for outcome in outcomes),
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 1),
        "clips": len(together.keys),
        "heard_in_pretraining": None if None in heard else sum(heard),
        "replaced": {key: reason for outcome in outcomes for key, reason in outcome.replaced.items()},
    }


def write_report(
    this: Run,
    outcomes: dict[str, list[Outcome]],
    facts: dict[str, Any],
    *,
    recipe: dict[str, Any],
    over: Over = "clips",
    positive: str | None = None,
) -> tuple[dict[str, Any], str]:
    """Write summary, pictures and report of a run; returns the summary, and the scores and paths as text."""
    scores = {start: scores_of(found, over=over) for start, found in outcomes.items()}
    together = {start: joined([o.predictions for o in found]) for start, found in outcomes.items()}
    first = next(iter(together))
    several = together[first].several
    summary = {**facts, "intervals": over, "labels": together[first].labels, "scores": scores}
    name = together[first].headline_name
    located = isinstance(together[first], EventPredictions)
    tables = [_event_table(scores) if located else _score_table(scores, name, several=several)]
    if positive is not None:
        summary["screening"] = {}
        for start, found in outcomes.items():
            levels = {"files": together[start]}
            for name, what in _LEVELS.items():
                if all(name in outcome.beside for outcome in found):
                    levels[what] = joined([outcome.beside[name] for outcome in found])
            summary["screening"][start], table = screening_of(levels, positive, over=over)
            tables.append(dataclasses.replace(table, caption=f"{start}: {table.caption}"))
    if len(together) > 1:
        other = list(together)[1]
        difference = together[first].against(together[other], over=over)
        summary["gain"] = {**dataclasses.asdict(difference), "over": other}
        tables.append(
            ReportTable(
                f"{first} against {other}, on the same clips (interval over {over})",
                ["", "gain", "95 % from", "to", "p"],
                [
                    [
                        first,
                        signed(difference.gain),
                        signed(difference.low),
                        signed(difference.high),
                        f"{difference.p:.3f}",
                    ]
                ],
            )
        )
    pictures = {}
    if not several and not located:
        from ssl_audio.evaluation.pictures import confusion_picture  # matplotlib takes half a second

        matrix = confusion_picture(confusion(together[first].scores, together[first].targets), together[first].labels)
        pictures["Confusion matrix"] = matrix
        this.write("confusion.png", matrix)
    drawn = next(iter(sorted(this.folder.glob(f"**/{TIMELINES}"))), None)
    if drawn is not None:
        pictures["Timelines of the best and the worst test clips"] = drawn.read_bytes()
    curves = _curves(this)
    if curves is not None:
        pictures["Training curves"] = curves
    best = next(iter(sorted(this.folder.glob("**/best.ckpt"))), None)
    command = (
        f"ssl-audio predict --checkpoint {best}{_base_option(best)} "
        f"{'--events --out events.tsv' if located else '--out labels.csv'} FILES..."
        if best is not None
        else "ssl-audio finetune ... --model.head.kind linear  (nearest neighbours leave no checkpoint)"
    )
    lead = f"{summary['trained']}, from {facts['checkpoint']}, on {facts['device']}"
    notice = "on the embedded demo corpus: " if facts.get("demo") else ""
    report = page(
        f"Fine-tuning: {facts['name']}",
        notice + lead,
        tables=[*tables, _label_table(together[first])],
        pictures=pictures,
        details={
            "Recipe": yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True),
            "Summary": json_text(summary),
        },
        command=command,
    )
    this.write("report.html", report)
    this.save_summary(summary)
    places = f"report      {this.folder / 'report.html'}\nnext        {command}"
    return summary, "\n\n".join([*(table.text() for table in tables), places])


def _base_option(best: Path) -> str:
    """Where an adapter checkpoint's base lies, if it is not where the other verbs look for it."""
    alone = open_alone(best)
    if alone.base is None:
        return ""
    began = of_fold(alone.recipe.get("base") or alone.recipe["checkpoint"], int(alone.recipe["data"]["fold"]))
    return "" if began.resolve().is_relative_to(Path("runs").resolve()) else f" --base {began}"


def signed(value: float) -> str:
    """With its sign, so that a gain does not look like a score."""
    return f"{value:+.3f}"


def _event_table(scores: dict[str, dict[str, Any]]) -> ReportTable:
    names = ("PSDS2", "event_F1", "segment_F1", "mpAUC", "mAP")
    rows: list[list[str | float]] = [
        [
            start,
            found["headline"],
            f"{found['interval'][0]:.3f} to {found['interval'][1]:.3f}",
            *(_number(found["test"][name]) for name in names),
            f"{found['valid']:.3f}",
            "; ".join(sorted(set(found["chosen"]))),
        ]
        for start, found in scores.items()
    ]
    head = ["start", "PSDS1", "95 % interval", *(name.replace("_", " ") for name in names), "valid", "weights"]
    return ReportTable("test PSDS1; F1 with collars of 200 ms, and of seconds; mAP of clips", head, rows)


def _score_table(scores: dict[str, dict[str, Any]], head: str, *, several: bool) -> ReportTable:
    folds = max(len(found["folds"]) for found in scores.values())
    caption = f"test {head}" + (f", mean of {folds} folds" if folds > 1 else "")
    rows = [
        [
            start,
            found["headline"],
            f"{found['interval'][0]:.3f} to {found['interval'][1]:.3f}",
            f"{found['spread']:.3f}" if folds > 1 else "-",
            _number(found["test"]["AUC"]),
            _number(found["test"]["d_prime"]),
            *([] if several else [_number(found["test"]["EER"])]),
            f"{found['valid']:.3f}",
            "; ".join(sorted(set(found["chosen"]))),
        ]
        for start, found in scores.items()
    ]
    errors = [] if several else ["EER"]
    return ReportTable(
        caption, ["start", head, "95 % interval", "spread", "AUC", "d'", *errors, "valid", "weights"], rows
    )


def _label_table(predictions: Predictions) -> ReportTable:
    return ReportTable("scores by label", *predictions.label_table())


def _number(value: float) -> str:
    return "-" if not math.isfinite(value) else f"{value:.3f}"


def _curves(this: Run) -> bytes | None:
    from ssl_audio.evaluation.pictures import curves_picture  # matplotlib takes half a second

    metrics = next(iter(sorted(this.folder.glob(f"**/{METRICS}"))), None)
    return None if metrics is None else curves_picture(read_rows(metrics))
