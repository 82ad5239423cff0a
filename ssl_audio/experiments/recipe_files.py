"""Where recipes lie: in `recipes/` of the working directory, then among those that came with the package."""

from pathlib import Path

from ssl_audio.errors import RecipeError
from ssl_audio.names import suggest
from ssl_audio.storing import store

RECIPES = Path("recipes")
_PACKAGE = Path(__file__).resolve().parents[1]
# In a wheel they lie within the package, in a checkout beside it.
PACKAGED = next((at for at in (_PACKAGE / "recipes", _PACKAGE.parent / "recipes") if at.is_dir()), _PACKAGE / "recipes")
CORPORA = PACKAGED.parent / "shards"


def find(name: str) -> Path | None:
    """The file of a recipe, or None.

    Args:
        name: A path, or a name below `recipes/` such as `encoders/bimamba_tiny`, with or without `recipes/` and ending.
    """
    if Path(name).is_file():
        return Path(name)
    below = _below(name)
    for folder in (RECIPES, PACKAGED):
        for path in (folder / below, folder / f"{below}.yaml"):
            if not Path(below).is_absolute() and ".." not in Path(below).parts and path.is_file():
                return path
    return None


def _below(name: str) -> str:
    return name.removeprefix("./").removeprefix(f"{RECIPES}/")


def names_in(group: str) -> list[str]:
    """Names of the recipes of a group, such as `encoders`, wherever they lie."""
    return sorted({path.stem for folder in (RECIPES, PACKAGED) for path in (folder / group).glob("*.yaml")})


def expected(name: str, groups: list[str], *, option: str) -> Path:
    """The file of a recipe that one of these groups is to have.

    Raises:
        RecipeError: if there is none; the message lists those there are.
    """
    for group in groups:
        if (path := find(f"{group}/{name}" if group else name)) is not None:
            return path
    known = names_in(groups[0])
    near = suggest(Path(name).stem, known).removeprefix("; ")
    raise RecipeError(
        f"{option} {name}: no such recipe; {f'{near} ' if near else ''}recipes of {RECIPES / groups[0]}: "
        f"{', '.join(known)}"
    )


def listing() -> str:
    """All recipes in groups, with the first line that each says of itself."""
    groups: dict[str, dict[str, str]] = {}
    for folder in (PACKAGED, RECIPES):  # those here come second, and in the place of the package's
        for path in sorted(folder.glob("*/*.yaml")):
            here = f"({path}) " if folder.resolve() != PACKAGED else ""
            groups.setdefault(path.parent.name, {})[path.stem] = here + _first_line(path)
    groups["shards"] = {path.stem: _first_line(path) for path in sorted(CORPORA.glob("*.yaml"))}
    width = max((len(name) for rows in groups.values() for name in rows), default=0)
    lines = []
    for group, rows in sorted(groups.items()):
        lines += ["", group] + [f"  {name:<{width}}  {rows[name]}".rstrip() for name in sorted(rows)]
    return "\n".join(lines[1:])


def _first_line(path: Path) -> str:
    """The first comment, or what the file of a corpus says that it is."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(("# ", "what: ")):
            return line.partition(" ")[2].strip()
    return ""


def copy(name: str, out: Path | None) -> Path:
    """Write a recipe of the package out, to be edited; returns where.

    Args:
        name: As `listing` has it, alone or with its group: `ks2`, `encoders/bimamba_tiny`, `shards/esc50`.
        out: Where to; by default where it comes before the package's: `recipes/GROUP/NAME.yaml`.

    Raises:
        RecipeError: if there is no such recipe, or several, or a file lies there.
    """
    folders = {path.relative_to(PACKAGED.parent): path for path in sorted(PACKAGED.glob("*/*.*"))}
    folders |= {path.relative_to(PACKAGED.parent): path for path in sorted(CORPORA.glob("*.yaml"))}
    named = {str(at.with_suffix("")).removeprefix(f"{RECIPES}/"): at for at in folders}
    wanted = _below(name).removesuffix(".yaml")
    found = [one for one in named if wanted in (one, Path(one).name)]
    if not found:
        near = suggest(wanted, list(named)) or suggest(Path(wanted).name, [Path(one).name for one in named])
        raise RecipeError(f"recipes copy: no recipe {name!r}{near}; `ssl-audio recipes` lists them")
    if len(found) > 1:
        raise RecipeError(f"recipes copy: {name!r} is several: {', '.join(found)}; expected one of them")
    source = folders[named[found[0]]]
    target = named[found[0]] if out is None else out
    if target.exists():
        raise RecipeError(
            f"{target}: there is such a file, which is not written over; edit it, remove it, or give --out FILE"
        )
    try:
        store(target, source.read_bytes())
    except OSError as error:
        raise RecipeError(f"cannot write {target} ({error.strerror or error}); give --out FILE") from error
    return target
