"""Files on the command line that hold names."""

import csv
from pathlib import Path

from ssl_audio.errors import SslAudioError


def names_in(path: Path) -> list[str]:
    """Names of labels: one a line, or the column `display_name` of AudioSet's `class_labels_indices.csv`.

    Raises:
        SslAudioError: if the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SslAudioError(f"{path}: no list of names ({error}); expected a text file, one label a line") from error
    if lines and "display_name" in lines[0].split(","):
        return [row["display_name"] for row in csv.DictReader(lines)]
    return [line.strip() for line in lines if line.strip()]
