"""`ssl-audio bench gpu`: all that a GPU must show, within some minutes."""

from pathlib import Path
from typing import Literal

from jsonargparse.typing import PositiveFloat

from ssl_audio.cli.bench import device_named
from ssl_audio.errors import SslAudioError
from ssl_audio.experiments.gpu_needs import needs_table
from ssl_audio.experiments.gpu_session import PAGE, measure_gpu


def gpu(
    minutes: PositiveFloat = 20.0,
    out: Path = Path("runs/gpu"),
    device: Literal["cuda", "cpu"] = "cuda",
    shards: list[Path] = [],  # noqa: B006
    only: list[str] = [],  # noqa: B006
    rehearsal: bool | None = None,
    needs: bool = False,
    have: Path | None = None,
) -> None:
    """Tests, benchmarks and slices of pretraining in order of value, each with its own time limit and files.

    The same command resumes: parts that are done are not repeated. On a CPU all sizes are the smallest, to try the
    code.

    Args:
        minutes: For all parts together.
        out: Folder of the figures, of what was printed, and of the page made of both.
        device: cuda, or cpu for a rehearsal.
        shards: Folders to pretrain from; by default the demo corpus, which is written first.
        only: Names of the only parts to run, again if they are done.
        rehearsal: The smallest sizes; by default on a CPU alone.
        needs: Only list the packages that this needs, and stop.
        have: A file with the names of packages that the machine has, which are not listed.

    Raises:
        SslAudioError: if a part failed.
    """
    if needs:
        print(needs_table(have).text())
        return
    where = device_named(device)
    found = measure_gpu(
        out,
        minutes=minutes,
        device=where.type,
        shards=shards,
        only=only,
        rehearsal=where.type == "cpu" if rehearsal is None else rehearsal,
    )
    print(out / PAGE)
    failed = [name for name, outcome in found.items() if outcome.state == "failed"]
    if failed:
        raise SslAudioError(f"failed: {', '.join(failed)}; what they printed is in {out}, the rest is done")
