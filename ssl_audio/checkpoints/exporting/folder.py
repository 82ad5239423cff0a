"""The folder of an export: a new one, an empty one, or that of an earlier export, whose files are replaced."""

from pathlib import Path

from ssl_audio.checkpoints.exporting.ast import CONFIG, EXTRACTOR, WEIGHTS
from ssl_audio.checkpoints.exporting.onnx import INT8, MODEL
from ssl_audio.checkpoints.exporting.parity import FILE_NAME
from ssl_audio.checkpoints.exporting.standalone import MODELING
from ssl_audio.errors import CheckpointError, RecipeError
from ssl_audio.storing import store

_OURS = (CONFIG, EXTRACTOR, WEIGHTS, MODEL, f"{MODEL}.data", INT8, f"{INT8}.data", MODELING, "README.md", FILE_NAME)


def prepare(folder: Path, *sources: Path | None) -> None:
    """Make the folder, and remove the files of an earlier export, which may be of another layout.

    Args:
        folder: Where the export will lie.
        sources: What it is made of.

    Raises:
        RecipeError: if something else is there.
        CheckpointError: if it cannot be written.
    """
    apart(folder, *sources)
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"--out {folder}: is a file; expected a folder, which is made")
    try:
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        if found and not (folder / FILE_NAME).is_file():
            raise RecipeError(
                f"--out {folder}: holds {found[0].name} and is no earlier export (it has no {FILE_NAME}); expected a "
                "new or an empty folder"
            )
        for name in _OURS:
            (folder / name).unlink(missing_ok=True)
        # Marks it as an export from now on, so that the same command can be given again after a failure.
        store(folder / FILE_NAME, "{}\n")
    except OSError as error:
        raise CheckpointError(f"cannot write {folder} ({error.strerror}); choose another, or make room") from error


def apart(out: Path, *sources: Path | None) -> None:
    """Find out whether writing would replace what it is made of.

    Raises:
        RecipeError: if it would.
    """
    for source in sources:
        if source is None or not source.exists():
            continue
        if out.exists() and (out.samefile(source) or (out.is_dir() and out.samefile(source.parent))):
            raise RecipeError(f"--out {out}: would replace {source}, which it is made of; expected another place")
