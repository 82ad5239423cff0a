"""`ssl-audio probe`: what a frozen encoder knows of labelled shards."""

from pathlib import Path
from typing import Literal

from jsonargparse.typing import PositiveFloat

from ssl_audio.cli.parser import call
from ssl_audio.cli.results import add_figures
from ssl_audio.experiments.assessment import score_tables
from ssl_audio.experiments.probe import probe as frozen_scores


def run(words: list[str]) -> None:
    """Parse and call `probe`."""
    call(probe, words, prog="ssl-audio probe", positional=False)


def probe(
    shards: list[Path],
    checkpoint: Path,
    targets: list[str],
    protocol: Literal["split", "fold"] = "split",
    window_seconds: PositiveFloat | None = None,
    out: Path | None = None,
    base: Path | None = None,
) -> None:
    """Frozen linear and nearest-neighbour scores of an encoder, beside an untrained one and mel and cepstral
    statistics.

    Args:
        shards: Folders of labelled shards, each probed by itself.
        checkpoint: A checkpoint of `ssl-audio pretrain`, a published one, or, as a baseline, a folder of Hugging Face
            with any model on waveforms (extra `huggingface`): mean and deviation of its last states.
        targets: Kinds of label to tell apart; `speaker` is one too.
        protocol: `split` tests on the split test, `fold` on each fold in turn.
        window_seconds: Length of the windows that long clips are cut in; by default the crops of pretraining.
        out: Also write the scores to this JSON file.
        base: What an adapter checkpoint was trained on; by default looked for below runs/ and beside the file.
    """
    scores = frozen_scores(
        checkpoint, shards=shards, targets=targets, protocol=protocol, window_seconds=window_seconds, base=base
    )
    for table in score_tables(scores):
        print(table.text() + "\n")
    rows = {
        task: {name: {"linear": s.linear, "neighbours": s.neighbours} for name, s in row.items()}
        for task, row in scores.items()
    }
    add_figures(rows, out)
