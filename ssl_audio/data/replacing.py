"""Training clips that cannot be decoded: another takes the place of each, which is told, counted and limited."""

import logging
from collections.abc import Iterable

import torch

from ssl_audio.errors import AudioError, ShardError

TRIES = 20
"""So many clips in a row that cannot be decoded are no accident."""

_log = logging.getLogger(__name__)


def count_replaced(replaced: dict[str, str], bad: Iterable[tuple[str, str]], *, clips: int, share: float) -> None:
    """Count clips that another took the place of, each once; the first is told.

    Args:
        replaced: Key and reason of those counted so far; the new ones come to them.
        bad: Key and reason of those met now.
        clips: How many clips there are.
        share: So many of them may turn out undecodable.

    Raises:
        AudioError: if none may.
        ShardError: if these are too many.
    """
    for key, reason in bad:
        if key in replaced:
            continue
        if not replaced and share:
            _log.warning("%s; another clip takes its place, and those to come are counted in the summary", reason)
        replaced[key] = reason
        if not share:
            raise AudioError(reason)
        if len(replaced) > share * clips:
            raise ShardError(
                f"{len(replaced)} of {clips} clips cannot be decoded, more than the {share:.2%} allowed; the last: "
                f"{reason}. Mend the shards or raise data.max_replaced"
            )


def of_all_ranks(replaced: dict[str, str]) -> dict[str, str]:
    """Those of all processes together, by key. Every rank must ask."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return dict(sorted(replaced.items()))
    every: list[dict[str, str]] = [{}] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(every, replaced)
    return dict(sorted((key, reason) for some in every for key, reason in some.items()))
