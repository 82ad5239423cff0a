"""Shards that lie elsewhere: whatever webdataset opens, through its cache, where the user asked for it.

A recipe or a file may name a URL or a command; neither is opened because of that. Whoever calls says with `allow` (on
the command line `--remote`, which no recipe can give) what may be.
"""

import os
import re
from pathlib import Path
from typing import Literal, get_args

from ssl_audio.errors import ShardError
from ssl_audio.names import printable

CACHE = "SSL_AUDIO_CACHE"
Remote = Literal["none", "urls", "commands"]
"""What may be opened besides paths: nothing, URLs, or URLs and commands (`pipe:...`, which a shell runs)."""

_allowed: Remote = "none"


def allow(what: Remote) -> None:
    """Say for this process what may be opened besides paths; until then it is `none`."""
    global _allowed
    _allowed = what


def is_remote(source: Path | str) -> bool:
    """Whether it is a URL or a command (`pipe:...`) rather than a path."""
    return isinstance(source, str) and re.match(r"[a-z][a-z0-9+.-]+://|pipe:", source) is not None


def fetch(url: str) -> list[Path]:
    """Local copies of the tars of a URL, fetched when they are not there yet.

    Braces stand for several, as in webdataset: `https://host/shard-{000000..000009}.tar`. Copies are kept in
    the folder that the environment variable SSL_AUDIO_CACHE names, by default `~/.cache/ssl_audio`.

    Raises:
        ShardError: if one cannot be fetched or is no tar, or nobody asked for it.
    """
    _check(url)
    from webdataset.cache import FileCache  # takes seconds to import, and only remote shards need it
    from webdataset.shardlists import expand_urls

    folder = Path(os.environ.get(CACHE) or Path.home() / ".cache" / "ssl_audio")
    cache = FileCache(str(folder), url_to_name=_name)
    tars = []
    urls = expand_urls(url)
    for one in urls:  # there may have been several in it, and variables
        _check(one)
    for one in urls:
        try:
            tars.append(Path(cache.get_file(one)))
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ShardError(f"{one}: cannot be fetched ({reason}); expected a tar that webdataset can open") from error
    return tars


def _check(url: str) -> None:
    """What is opened was asked for.

    Raises:
        ShardError: if it was not.
    """
    needed: Remote = "commands" if url.startswith("pipe:") else "urls"
    choices = get_args(Remote)
    if not is_remote(url) or choices.index(needed) > choices.index(_allowed):
        what = "a command" if needed == "commands" else "a URL" if is_remote(url) else "a path among URLs"
        raise ShardError(
            f"{printable(url)[:200]}: is {what}, which is opened only where it is asked for: give --remote {needed} on "
            f"the command line (in Python ssl_audio.data.remote.allow({needed!r})), or fetch the shards and name their "
            "folder"
        )


def _name(url: str) -> str:
    """A file name that no other URL has and that sorts as the URLs do."""
    return re.sub(r"[^\w.-]+", "_", url)
