"""Parts, and what is said of them, are those that were recorded when the `.json` of every clip was read for them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_clips import drawn, indexed

from ssl_audio.data.index import ShardIndex
from ssl_audio.data.labels import part_clips
from ssl_audio.data.remarks import say_once
from ssl_audio.errors import SslAudioError

RECORDED = Path(__file__).parents[1] / "golden" / "parts.json"

CORPORA: dict[str, dict[str, Any]] = {
    "plain": {"seed": 1},
    "gaps": {"seed": 2, "gaps": True},
    "speakers": {"seed": 3, "speakers": 20},
    "few speakers": {"seed": 4, "speakers": 4},
    "speakers with gaps": {"seed": 5, "speakers": 30, "gaps": True},
    "files": {"seed": 6, "files": 60},
    "files with gaps": {"seed": 7, "files": 150, "gaps": True},
    "files of speakers": {"seed": 8, "files": 60, "speakers": 40},
    "one event": {"seed": 9, "several": 1, "gaps": True},
}
TASKS: dict[str, dict[str, Any]] = {
    "events": {"target": "event", "several": True},
    "events without several": {"target": "event", "several": False},
    "keywords": {"target": "keyword", "several": False},
    "speakers": {"target": "speaker", "several": False},
    "background": {"target": "event", "several": True, "negatives": True},
    "nothing": {"target": "nothing", "several": True},
}
WAYS: dict[str, dict[str, Any]] = {
    "split": {"protocol": "split"},
    "share": {"protocol": "split", "validation_share": 0.3, "splits": ("train", "valid", "test")},
    "set aside": {"protocol": "split", "splits": ("train", None, "dev"), "seed": 3},
    "no such split": {"protocol": "split", "splits": ("train", "Valid", "test")},
    "fold": {"protocol": "fold", "fold": 2},
    "fold and share": {"protocol": "fold", "fold": 4, "validation_share": 0.2},
    "no such fold": {"protocol": "fold", "fold": 5},
    "random": {"protocol": "random", "seed": 1},
    "few": {"protocol": "random", "labels_per_class": 7, "validation_share": 0.2},
    "few of splits": {"protocol": "split", "labels_per_class": 3},
}


def outcome(index: ShardIndex, task: str, way: str, caplog) -> str:
    """Everything that comes of it, as text."""
    say_once.cache_clear()
    caplog.clear()
    found: list[object] = []
    try:
        parts = part_clips(index, **TASKS[task], **WAYS[way])
    except SslAudioError as error:
        found = [type(error).__name__, str(error)]
    else:
        found = [parts.labels, parts.folds]
        for part in (parts.train, parts.valid, parts.test):
            found += [list(part.index.key), np.packbits(part.targets).tolist(), [str(name) for name in part.speakers]]
    return json.dumps([found, [record.getMessage() for record in caplog.records]])


@pytest.mark.parametrize("corpus", CORPORA)
def test_parts_are_those_recorded(corpus, caplog):
    recorded = json.loads(RECORDED.read_text())[corpus]
    index = indexed(drawn(**CORPORA[corpus]), folders=2)
    found = {task: [outcome(index, task, way, caplog) for way in WAYS] for task in TASKS}
    assert {task: digest(texts) for task, texts in found.items()} == recorded


def digest(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
