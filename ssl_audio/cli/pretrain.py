"""`ssl-audio pretrain`."""

from ssl_audio.cli.results import add_result
from ssl_audio.experiments.pretrain import pretrain_words


def run(words: list[str]) -> None:
    """Train from a recipe, and print what came of it."""
    finished = pretrain_words(words)
    if finished is not None:
        add_result({"folder": finished.folder, **finished.summary})
        print(f"\n{finished.text}")
