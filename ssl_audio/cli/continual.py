"""`ssl-audio continual`: tasks one after the other by several methods, and tables of what is known of each."""

from ssl_audio.experiments.continual import continual
from ssl_audio.experiments.continual_plan import Continual
from ssl_audio.experiments.parsing import VerbParser, unwrapped
from ssl_audio.experiments.recipes import recipe_name, with_recipe_paths


def run(words: list[str]) -> None:
    """Parse, learn, and print the tables."""
    parser = VerbParser(
        prog="ssl-audio continual",
        description="Learn tasks one after the other by several methods, and test all of them after each.",
    )
    parser.add_argument("--config", action="config", help="A recipe of recipes/continual, or the file of one.")
    parser.add_class_arguments(Continual, None, as_positional=False)
    chosen = parser.parse_args(with_recipe_paths(words, "continual"))
    name = chosen.name or recipe_name(chosen)
    with unwrapped():
        options = vars(parser.instantiate_classes(chosen))
    options.pop("config", None)
    print(f"\n{continual(Continual(**{**options, 'name': name})).text}")
