"""The sample rate of folders of shards, and whether it is the one that clips are wanted at."""

from collections.abc import Sequence
from pathlib import Path

from ssl_audio.data.manifest import FILE_NAME, Manifest
from ssl_audio.data.rates import SAMPLE_RATE
from ssl_audio.data.remarks import say_once
from ssl_audio.data.remote import is_remote
from ssl_audio.errors import ShardError


def rate_of(source: Path | str) -> int | None:
    """Samples per second of a folder of shards, or of one of its tars.

    Returns:
        None without a manifest that can be read: tars of others may hold clips of any rate.
    """
    if is_remote(source):
        return None
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    if not (folder / FILE_NAME).is_file():
        return None
    try:
        manifest = Manifest.load(folder)
    except ShardError:
        return None  # opening the shards says so
    listed = path == folder or any(shard.name == path.name for shard in manifest.shards)
    return manifest.sample_rate if listed else None


def common_rate(sources: Sequence[Path | str]) -> int:
    """The one rate of some folders of shards; 16 kHz where none says it.

    Raises:
        ShardError: if they have several.
    """
    found = {rate: source for source in sources if (rate := rate_of(source)) is not None}
    if len(found) > 1:
        shown = ", ".join(f"{source} {rate} Hz" for rate, source in sorted(found.items()))
        raise ShardError(
            f"these shards have several sample rates ({shown}); expected one, such as with "
            "--sample_rate of `ssl-audio shards write` or `ssl-audio stats`"
        )
    return next(iter(found), SAMPLE_RATE)


def check_rates(sources: Sequence[Path | str], rate: int, *, resample: bool) -> None:
    """Shards fit a frontend, or are resampled on purpose, which is said.

    Args:
        sources: Folders, tars or URLs.
        rate: Samples per second that the frontend expects.
        resample: Clips of other rates are resampled as they are read.

    Raises:
        ShardError: if they are not to be resampled and have another rate.
    """
    for source in sources:
        found = rate_of(source)
        if found is None or found == rate:
            continue
        if not resample:
            raise ShardError(
                f"{source}: holds clips of {found} Hz, but the frontend expects {rate} Hz; use shards written with "
                f"--sample_rate {rate}, or a recipe whose model.backbone.frontend.init_args.sample_rate is {found}; or "
                "resample each clip as it is read: --data.resample true"
            )
        say_once(f"{source}: clips of {found} Hz are resampled to {rate} Hz as they are read")
