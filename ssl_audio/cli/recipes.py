"""`ssl-audio recipes`: list the recipes, or write one out."""

from pathlib import Path

from ssl_audio.errors import RecipeError
from ssl_audio.experiments.recipe_files import copy, listing
from ssl_audio.names import suggest


def run(words: list[str]) -> None:
    """List the recipes, or write one out."""
    if not words:
        print(listing())
        print("\n`ssl-audio recipes copy NAME` writes one out to edit: recipes/ here comes before the package's.")
        return
    if words[0] in ("-h", "--help"):
        print("usage: ssl-audio recipes\n       ssl-audio recipes copy NAME [--out FILE]")
        return
    if words[0] != "copy":
        raise RecipeError(f"recipes: no action {words[0]!r}{suggest(words[0], ['copy'])}; expected copy, or nothing")
    from ssl_audio.cli.parser import call

    def copy_recipe(name: str, out: Path | None = None) -> None:
        """Write a recipe of the package out, to be edited.

        Args:
            name: Of a recipe, alone or with its group, such as ks2 or encoders/bimamba_tiny.
            out: Where to; by default recipes/GROUP/NAME.yaml, which comes before the package's.
        """
        print(copy(name, out))

    call(copy_recipe, words[1:], prog="ssl-audio recipes copy")
