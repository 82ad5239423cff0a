"""Shards that lie elsewhere: whatever webdataset opens, through its cache."""

import os
import re
from pathlib import Path

from ssl_audio.errors import ShardError

CACHE = "SSL_AUDIO_CACHE"


def is_remote(source: Path | str) -> bool:
    """Whether it is a URL or a command (`pipe:...`) rather than a path."""
    return isinstance(source, str) and re.match(r"[a-z][a-z0-9+.-]+://|pipe:", source) is not None


def fetch(url: str) -> list[Path]:
    """Local copies of the tars of a URL, fetched when they are not there yet.

    Braces stand for several, as in webdataset: `https://host/shard-{000000..000009}.tar`. Copies are kept in
    the folder that the environment variable SSL_AUDIO_CACHE names, by default `~/.cache/ssl_audio`.

    Raises:
        ShardError: if one cannot be fetched or is no tar.
    """
    from webdataset.cache import FileCache  # takes seconds to import, and only remote shards need it
    from webdataset.shardlists import expand_urls

    folder = Path(os.environ.get(CACHE) or Path.home() / ".cache" / "ssl_audio")
    cache = FileCache(str(folder), url_to_name=_name)
    tars = []
    for one in expand_urls(url):
        try:
            tars.append(Path(cache.get_file(one)))
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ShardError(f"{one}: cannot be fetched ({reason}); expected a tar that webdataset can open") from error
    return tars


def _name(url: str) -> str:
    """A file name that no other URL has and that sorts as the URLs do."""
    return re.sub(r"[^\w.-]+", "_", url)
