"""`ssl-audio recipes`: list the recipes, write one out, or propose one for shards."""

from pathlib import Path

from ssl_audio.cli.results import add_result
from ssl_audio.errors import RecipeError
from ssl_audio.experiments.recipe_files import copy, listing, recipes_by_group
from ssl_audio.names import suggest


def run(words: list[str]) -> None:
    """List the recipes, write one out, or propose one for shards."""
    if not words:
        groups = recipes_by_group()
        add_result(groups)
        print(listing(groups))
        print("\n`ssl-audio recipes copy NAME` writes one out to edit; recipes/ here comes first.")
        return
    if words[0] in ("-h", "--help"):
        print("usage: ssl-audio recipes")
        print("       ssl-audio recipes copy NAME [--out FILE]")
        print("       ssl-audio recipes propose SHARDS... [--out FILE]")
        return
    if words[0] == "propose":
        _propose(words[1:])
        return
    if words[0] != "copy":
        near = suggest(words[0], ["copy", "propose"])
        raise RecipeError(f"recipes: no action {words[0]!r}{near}; expected copy, propose, or nothing")
    from ssl_audio.cli.parser import call

    def copy_recipe(name: str, out: Path | None = None) -> None:
        """Write a recipe of the package out, to be edited.

        Args:
            name: Of a recipe, alone or with its group, such as ks2 or encoders/bimamba_tiny.
            out: Where to; by default recipes/GROUP/NAME.yaml, which comes before the package's.
        """
        print(copy(name, out))

    call(copy_recipe, words[1:], prog="ssl-audio recipes copy")


def _propose(words: list[str]) -> None:
    from ssl_audio.experiments.parsing import VerbParser
    from ssl_audio.experiments.proposal import propose

    parser = VerbParser(
        prog="ssl-audio recipes propose",
        description="Write a recipe of pretraining for shards, from what they hold, with its reasons as comments.",
    )
    parser.add_argument("shards", type=Path, nargs="+", help="Folders of shards.")
    parser.add_argument("--out", type=Path | None, default=None, help="By default recipes/pretrain/FOLDER.yaml.")
    chosen = parser.parse_args(words)
    written = propose(chosen.shards, chosen.out)
    print(f"{written}\nnext        ssl-audio pretrain --config {written if chosen.out else written.stem}")
