"""`ssl-audio pretrain`."""

from ssl_audio.cli.answers import tell
from ssl_audio.experiments.pretrain import pretrain_words


def run(words: list[str]) -> None:
    """Train from a recipe, and print what came of it."""
    finished = pretrain_words(words)
    if finished is not None:
        tell({"folder": finished.folder, **finished.summary})
        print(f"\n{finished.text}")
