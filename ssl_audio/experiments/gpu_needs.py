"""The packages that a machine without a network must be given, to run everything that is measured on a GPU."""

import re
from importlib import metadata
from pathlib import Path

from ssl_audio.errors import SslAudioError
from ssl_audio.evaluation.report import ReportTable

_EXTRAS = ("demo",)
_FOR_TESTS = ("pytest", "hypothesis", "beartype")


def needed(have: set[str]) -> dict[str, metadata.Distribution | None]:
    """Distributions that ssl_audio needs here, by name, without torch and what comes with it.

    Args:
        have: Names of distributions that are there, with what they need.

    Returns:
        None for those that are not installed here either.
    """
    found: dict[str, metadata.Distribution | None] = {}
    waiting = [f"ssl_audio[{','.join(_EXTRAS)}]", *_FOR_TESTS]
    while waiting:
        requirement = waiting.pop()
        name = _name(requirement)
        if name in have or name in found or name == "torch" or name.startswith(("nvidia-", "cuda-")):
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            found[name] = None
            continue
        if name != "ssl-audio":
            found[name] = distribution
        extras = set(re.findall(r"[\w-]+", (re.match(r"[\w.-]+\s*\[([^\]]*)\]", requirement) or ["", ""])[1]))
        for line in distribution.requires or []:
            wanted, _, marker = line.partition(";")
            if _applies(marker, extras):
                waiting.append(wanted.strip())
    return dict(sorted(found.items()))


def needs_table(have: Path | None) -> ReportTable:
    """The same as a table with versions and sizes as installed.

    Args:
        have: A file with names, separated by spaces, commas or lines.

    Raises:
        SslAudioError: if it cannot be read.
    """
    names: set[str] = set()
    if have is not None:
        try:
            names = {_name(word) for word in re.split(r"[\s,]+", have.read_text(encoding="utf-8")) if word}
        except (OSError, UnicodeDecodeError) as error:
            raise SslAudioError(f"--have: cannot read {have} ({getattr(error, 'strerror', None) or error})") from error
    rows: list[list[str | float]] = []
    total = 0.0
    for name, distribution in needed(names).items():
        if distribution is None:
            rows.append([name, "not installed here", ""])
            continue
        size = sum(file.size or 0 for file in distribution.files or []) / 2**20
        total += size
        rows.append([name, distribution.version, f"{size:.1f}"])
    rows.append(["together", "", f"{total:.1f}"])
    return ReportTable("packages beside torch, as installed here", ["package", "version", "MiB"], rows)


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


def _applies(marker: str, extras: set[str]) -> bool:
    from packaging.markers import InvalidMarker, Marker

    if not marker.strip():
        return True
    try:
        parsed = Marker(marker)
    except InvalidMarker:
        return True
    return any(parsed.evaluate({"extra": extra}) for extra in (*extras, ""))
