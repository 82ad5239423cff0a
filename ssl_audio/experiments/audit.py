"""The shortcut audit of labelled shards, and whether there was one."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jsonargparse.typing import PositiveInt

from ssl_audio import randomness
from ssl_audio.audio.files import decode
from ssl_audio.data.index import ShardIndex, open_shards
from ssl_audio.data.json_values import read_json
from ssl_audio.data.labels import kinds_in, labels_in
from ssl_audio.data.manifest import FILE_NAME, Manifest, manifest_digest
from ssl_audio.data.targets import Targets
from ssl_audio.errors import ShardError, SslAudioError
from ssl_audio.evaluation.audit.duplicates import RATE, duplicates
from ssl_audio.evaluation.audit.heard import MOST_SECONDS, hear
from ssl_audio.evaluation.audit.parts import shared_by_parts
from ssl_audio.evaluation.audit.result import Audit
from ssl_audio.evaluation.audit.shortcuts import shortcuts
from ssl_audio.experiments.arguments import checked
from ssl_audio.experiments.display import TERMINAL, Display
from ssl_audio.experiments.output_files import write_text

FILE, PAGE = "audit.json", "report.html"
FEW_SOURCES = 50
"""Below so many speakers, or files where no speakers are known, one of them can give a label away."""
_SYNTHESISED = ("demo", "soundscapes")
_FEWEST_CLIPS = 4
_FEWEST_SPEAKERS = 2
_MOST_LABELS = 40
_MOST_BYTES = 1 << 26


@checked
def audit(
    shards: Sequence[str | Path],
    *,
    target: str = "label",
    split: str | None = None,
    most_clips: PositiveInt = 5000,
    seed: int = 0,
    runs: str | Path | None = "runs",
    display: Display = TERMINAL,
) -> Audit:
    """How well labels are told by what should not tell them, and what the parts of the data share.

    Args:
        shards: Folders of labelled shards.
        target: Kind of label; `speaker` is one too.
        split: Only the clips of this split.
        most_clips: Of more clips, so many are drawn, each label's share of them.
        seed: Decides what is drawn.
        runs: Folder of all runs, where the result is kept as `audit/TARGET-DIGEST/audit.json`; None keeps nothing.
        display: Shows messages and progress.

    Returns:
        Scores with intervals, verdicts, and what to do.

    Raises:
        SslAudioError: if shards or labels are missing, or no clip can be read.
    """
    started = time.monotonic()
    folders = [Path(folder) for folder in shards]
    every = open_shards(folders)
    for folder in folders:
        if (folder / FILE_NAME).exists():
            Manifest.load(folder)  # by which the result is kept and found again
    every = every if split is None else every.of_split(split)
    names, found = labels_in(every, target)
    chosen = np.flatnonzero(found.counts > 0)
    if not len(chosen):
        raise ShardError(f"no clip has a label of kind {target!r}; these shards have {kinds_in(every)} (--target)")
    several = bool((found.counts > 1).any())
    packed = Targets.of(found.select(chosen.astype(np.int32)), len(names)).hard().dense()
    kept, columns, notes = _usable(packed, names, several=several)
    index, targets = every.select(chosen[kept].astype(np.int32)), packed[kept][:, columns]
    labels, total = [names[column] for column in columns], len(chosen)
    drawn = _drawn(targets, int(most_clips), seed)
    if len(drawn) < len(index):
        notes.append(
            f"{len(drawn)} of {len(index)} clips were drawn (most_clips); duplicates are looked for among these"
        )
    with display.bar("listening") as progress:
        heard = hear(index, drawn, progress=progress)
    index, targets = index.select(heard.rows.astype(np.int32)), targets[heard.rows]
    with display.bar("looking for duplicates") as progress:
        pairs = duplicates(
            heard.digests,
            heard.fingerprints,
            lambda clip: decode(index.audio_bytes(clip), sample_rate=RATE, seconds=MOST_SECONDS),
            progress=progress,
        )
    speakers = _speakers(index) if target != "speaker" else None
    groups, called = _groups(index, targets, speakers, target, notes)
    with display.bar("telling labels") as progress:
        progress(0, 1)
        told = shortcuts(heard, targets, labels, groups, speakers, several=several, seed=seed)
        progress(1, 1)
    result = Audit(
        shards=[str(folder) for folder in folders],
        target=target,
        labels=labels,
        several=several,
        clips=len(index),
        of=total,
        groups=called,
        sources=len(np.unique(groups)),
        shortcuts=told,
        shared=shared_by_parts(index, targets, pairs, by_speaker=target == "speaker"),
        refused=heard.refused,
        notes=notes,
        manifests=[manifest_digest(folder) for folder in folders],
        seconds=round(time.monotonic() - started, 1),
    )
    if runs is not None:
        folder = kept_in(Path(runs), folders, target)
        write_text(folder / FILE, result.json())
        write_text(folder / PAGE, result.html())
    return result


def kept_in(runs: Path, shards: Sequence[Path], target: str) -> Path:
    """Where the audit of these shards is kept: by the digests of their manifests, wherever they lie."""
    digests = [manifest_digest(folder) or str(Path(folder).resolve()) for folder in shards]
    name = "".join(letter if letter.isalnum() else "_" for letter in target)[:40]
    return runs / "audit" / f"{name}-{randomness.derive('audit', target, *sorted(digests)):016x}"


def was_audited(runs: Path, shards: Sequence[Path], target: str) -> bool:
    """Whether the result of an audit of these shards and this kind of label is kept."""
    path = kept_in(runs, shards, target) / FILE
    try:
        if path.stat().st_size > _MOST_BYTES:
            return False
        found = read_json(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("target") == target


def made_here(shards: Sequence[Path]) -> bool:
    """Whether all of these are of our own corpora of synthesised sound, whose recordings are alike by construction."""
    try:
        return all(Manifest.load(folder).corpus in _SYNTHESISED for folder in shards)
    except SslAudioError:
        return False


def few_sources(index: ShardIndex) -> str | None:
    """How many speakers or files clips are from, in words, if these are few; None if they are many."""
    speakers = index.speakers.codes
    known = speakers >= 0
    if known.any():
        count = len(np.unique(speakers[known]))
        return f"{count} speakers" if count < FEW_SOURCES else None
    count = len(np.unique(index.files))
    return f"{count} files" if count < FEW_SOURCES else None


def _usable(targets: np.ndarray, names: list[str], *, several: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Clips and labels that can be asked for: labels of too few clips, and the rarest of very many, are left out.

    Raises:
        ShardError: if there are not two labels.
    """
    counts = targets.sum(axis=0)
    notes = []
    columns = np.flatnonzero(counts >= _FEWEST_CLIPS)
    columns = np.sort(columns[np.argsort(-counts[columns], kind="stable")][:_MOST_LABELS])
    kept = np.arange(len(targets)) if several else np.flatnonzero(targets[:, columns].any(axis=1))
    if several:
        columns = columns[counts[columns] < len(targets)]
    if len(columns) < (1 if several else 2):
        raise ShardError(
            f"{len(names)} labels, of which {len(columns)} have {_FEWEST_CLIPS} clips or more: nothing to tell apart; "
            "expected two (--target)"
        )
    if len(columns) < len(names):
        notes.append(
            f"{len(names) - len(columns)} of {len(names)} labels are left out: they have fewer than {_FEWEST_CLIPS} "
            f"clips, or are not among the {_MOST_LABELS} with the most"
        )
    return kept, columns, notes


def _drawn(targets: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Which clips are heard: all, or so many, in their order."""
    if len(targets) <= most:
        return np.arange(len(targets))
    rng = randomness.generator(seed, "audit")
    order = np.lexsort((rng.random(len(targets)), targets.argmax(axis=1)))
    return np.sort(order[np.linspace(0, len(order) - 1, most).astype(int)])


def _speakers(index: ShardIndex) -> list[str] | None:
    """Who speaks in each clip; None if not all say it, or all say the same."""
    codes = index.speakers.codes
    return None if (codes < 0).any() or len(np.unique(codes)) < _FEWEST_SPEAKERS else index.speakers.strings.tolist()


def _groups(
    index: ShardIndex, targets: np.ndarray, speakers: list[str] | None, target: str, notes: list[str]
) -> tuple[np.ndarray, str]:
    """What is never on both sides of the cross-validation, and what to call it."""
    files = np.unique(index.files, return_inverse=True)[1]
    if speakers is None:
        if target != "speaker":
            notes.append("Speakers are not known of all clips: clips of one speaker may be on both sides.")
        return files, "files"
    codes = np.unique(speakers, return_inverse=True)[1]
    fewest = min(len(np.unique(codes[column])) for column in targets.T)
    if fewest < _FEWEST_SPEAKERS:
        notes.append(
            "A label has a single speaker: whatever tells this speaker tells the label, and no score can take them "
            "apart. Clips of one speaker are on both sides; get more speakers of each label."
        )
        return files, "files"
    if fewest < 5:
        notes.append(f"A label has only {fewest} speakers: intervals over so few are too narrow.")
    return codes, "speakers"
