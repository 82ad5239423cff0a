"""Probes of a frozen encoder on labelled shards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jsonargparse.typing import PositiveFloat

from ssl_audio.checkpoints.hugging_face_folders import is_folder, is_foreign
from ssl_audio.checkpoints.huggingface_teacher import frozen_features
from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.data.index import open_shards
from ssl_audio.evaluation.embedding import MAX_SECONDS
from ssl_audio.experiments.arguments import checked
from ssl_audio.experiments.assessment import Probing, Scores, probe_all
from ssl_audio.experiments.display import TERMINAL, Display


@checked
def probe(
    checkpoint: str | Path,
    *,
    shards: Sequence[str | Path],
    targets: Sequence[str],
    protocol: Literal["split", "fold"] = "split",
    window_seconds: PositiveFloat | None = None,
    base: Path | None = None,
    display: Display = TERMINAL,
) -> Scores:
    """Linear and nearest-neighbour scores of a frozen encoder, of the same encoder untrained, and of mel and cepstral
    statistics.

    Args:
        checkpoint: A checkpoint of `ssl-audio pretrain`, a published one, or, as a baseline, a folder of Hugging Face
            with any model on waveforms (extra `huggingface`): mean and deviation of its last states, nothing untrained.
        shards: Folders of labelled shards, each probed separately.
        targets: Kinds of label to tell apart; `speaker` is one too.
        protocol: `split` tests on the split test, `fold` on each fold in turn.
        window_seconds: Length of the windows that long clips are cut in; by default the crops of pretraining.
        base: What an adapter checkpoint was trained on; by default searched for in runs/ and in the folder of the file.
        display: Shows messages and progress.

    Returns:
        Scores by task and encoder.

    Raises:
        SslAudioError: if checkpoint or shards cannot be read.
    """
    wanted = [Probing(Path(folder), list(targets), protocol) for folder in shards]
    if is_folder(Path(checkpoint)) and is_foreign(Path(checkpoint)):
        longest = max(float(open_shards([one.shards]).seconds.max(initial=1.0)) for one in wanted)
        found_features = frozen_features(Path(checkpoint), longest=min(longest, MAX_SECONDS))
        return probe_all({}, wanted, window_seconds=10.0, display=display, others={"pretrained": found_features})
    found = open_checkpoint(Path(checkpoint), base=base)
    return probe_all(
        {"pretrained": found.backbone(), "untrained": found.untrained()},
        wanted,
        window_seconds=window_seconds or found.recipe.get("data", {}).get("crop_seconds") or 10.0,
        display=display,
    )
