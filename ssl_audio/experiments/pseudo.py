"""Pseudo-labels: the scores that models give the frames of training clips, for other models to learn from."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jsonargparse.typing import PositiveInt

from ssl_audio.data.index import open_shards
from ssl_audio.data.loading import whole_clips
from ssl_audio.data.pseudo_labels import PseudoLabels
from ssl_audio.data.shard_rates import check_rates
from ssl_audio.errors import ShardError
from ssl_audio.evaluation.ensemble import ensemble
from ssl_audio.evaluation.pretrained import Pretrained
from ssl_audio.experiments.display import TERMINAL, Display


def pseudo_labels(
    checkpoints: Sequence[str | Path | Pretrained],
    *,
    shards: Sequence[str | Path],
    out: str | Path,
    split: str | None = "train",
    device: str = "cpu",
    batch_clips: PositiveInt = 16,
    max_seconds: float = 10.0,
    display: Display = TERMINAL,
) -> PseudoLabels:
    """Write the mean of the logits that detectors of sound events give the frames of clips.

    Args:
        checkpoints: Files of `finetune`, or what `pretrained` gave, with scores of frames, such as one of each encoder;
            all for the same labels.
        shards: Folders of clips.
        out: Folder for `pseudo.json` and `logits.npy`.
        split: Only the clips of this split; None takes all.
        device: Where to compute.
        batch_clips: Clips at a time.
        max_seconds: Clips are cut to this.
        display: Shows progress.

    Raises:
        CheckpointError: if one gives no scores of frames, or they are not for the same labels.
        ShardError: if the shards are missing, or it cannot be written.

    Source: CPJKU/cpjku_dcase24@9b5cb78 (averages of logits, saved for every frame).
    """
    model = ensemble(checkpoints, device=device)
    hop = model.frame_hop
    check_rates([Path(folder) for folder in shards], model.sample_rate, resample=True)
    index = open_shards([Path(folder) for folder in shards])
    if split is not None:
        index = index.of_split(split)
    keys, found = [str(key) for key in index.key], []
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ShardError(f"two clips are called {twice}; expected other names, as scores are kept by name")
    with display.bar("pseudo-labels") as progress, torch.inference_mode():
        for batch in whole_clips(
            index, sample_rate=model.sample_rate, batch_clips=batch_clips, max_seconds=max_seconds
        ):
            logits = model.frame_logits(batch.waveforms, batch.samples)
            found += list(logits.cpu().numpy())
            progress(len(found), len(keys))
    most = max(len(row) for row in found)
    # A clip that is shorter than others has no scores behind its end.
    padded = [np.pad(row, ((0, most - len(row)), (0, 0)), constant_values=np.nan) for row in found]
    made = PseudoLabels(tuple(keys), tuple(model.labels), hop, np.stack(padded))
    made.write(Path(out))
    display.line(f"{out}: scores of {len(keys)} clips, {most} frames of {hop:g} s, mean of {len(model.members)} models")
    return made
