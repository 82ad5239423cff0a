"""Long jobs in pieces that stay when the job is stopped: a table that grows chunk by chunk."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_audio.errors import SslAudioError
from ssl_audio.storing import writing

Item = TypeVar("Item")
Row = dict[str, Any]


def in_chunks(
    items: Sequence[Item],
    compute: Callable[[Sequence[Item]], Iterable[Row]],
    *,
    out: Path,
    job: Sequence[str],
    chunk: int = 64,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[pa.Table]:
    """One table for each chunk of items; those that an earlier run of the same job finished are read back.

    They lie in a hidden folder beside `out`; `forget` takes it away when the result is written.

    Args:
        items: What there is to do.
        compute: Items to rows.
        out: Where the result will be.
        job: What the rows depend on besides the code; another job begins anew.
        chunk: Items that are done or lost together.
        progress: Called with the items done and their number.

    Raises:
        SslAudioError: if chunks cannot be written.
    """
    folder = _folder(out)
    digest = hashlib.sha256(json.dumps([*job, chunk, len(items)]).encode()).hexdigest()
    try:
        if not (folder / digest).exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / digest).touch()
        for number, start in enumerate(range(0, len(items), chunk)):
            path = folder / f"{number:06d}.parquet"
            if not path.exists():
                rows = []
                for row in compute(items[start : start + chunk]):
                    rows.append(row)
                    progress(start + len(rows), len(items))
                with writing(path) as file:
                    pq.write_table(pa.Table.from_pylist(rows), file)
            yield pq.read_table(path)
            progress(min(start + chunk, len(items)), len(items))
    except OSError as error:
        raise SslAudioError(f"cannot write beside {out} ({error.strerror}); choose another place with --out") from error


def forget(out: Path) -> None:
    """Take the chunks away: the result is written."""
    shutil.rmtree(_folder(out), ignore_errors=True)


def _folder(out: Path) -> Path:
    return out.with_name(f".{out.name}.chunks")
