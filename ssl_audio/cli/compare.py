"""`ssl-audio compare`: encoders, pretrained and from scratch, on one task under one budget."""

import shlex

from ssl_audio.cli.results import add_result
from ssl_audio.errors import RecipeError
from ssl_audio.experiments.compare import compare
from ssl_audio.experiments.comparison import Comparison, options_in
from ssl_audio.experiments.parsing import VerbParser


def run(words: list[str]) -> None:
    """Parse, compare, and print the tables."""
    parser = VerbParser(
        prog="ssl-audio compare",
        description="Compare encoders, pretrained and from scratch, or adapters, on one task with one budget.",
    )
    parser.add_class_arguments(Comparison, None, as_positional=False, skip={"options"})
    parser.add_argument(
        "--options",
        type=list[str] | str,
        default=[],
        help="More options of `finetune`, the same for all, as one would write them there: '--model.tuning.train=[] "
        "--data.target=speaker', or as a list.",
    )
    chosen = vars(parser.parse_args(_options_joined(words)))
    chosen.pop("config", None)
    plan = Comparison(**{**chosen, "options": options_in(_words_in(chosen["options"]))})
    finished = compare(plan)
    add_result({"folder": finished.folder, **finished.summary})
    print(f"\n{finished.text}")


def _options_joined(words: list[str]) -> list[str]:
    """One option of finetune alone looks like one of compare's own; several in a string do not, for their spaces."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] == "--options" and word.startswith("--"):
            joined[-1] = f"--options={word}"
        else:
            joined.append(word)
    return joined


def _words_in(given: list[str] | str) -> list[str]:
    try:
        return shlex.split(given) if isinstance(given, str) else given
    except ValueError as error:
        raise RecipeError(f"--options {given}: {error}; expected options of finetune") from error
