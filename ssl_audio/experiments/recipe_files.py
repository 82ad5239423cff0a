"""Finding recipe files: in `recipes/` of the working directory, then among those of the package."""

from pathlib import Path

from ssl_audio.errors import RecipeError
from ssl_audio.names import in_columns, suggest
from ssl_audio.storing import store

RECIPES = Path("recipes")
_PACKAGE = Path(__file__).resolve().parents[1]
# In a wheel they are inside the package, in a checkout next to it.
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
    """Names of the recipes of a group, such as `encoders`, in both places."""
    return sorted({path.stem for folder in (RECIPES, PACKAGED) for path in (folder / group).glob("*.yaml")})


def _with_groups() -> list[str]:
    """Names such as `sed/table`, of recipes and of folders of stages."""
    found = (path.relative_to(folder) for folder in (RECIPES, PACKAGED) for path in folder.glob("*/*"))
    return sorted({path.with_suffix("").as_posix() for path in found})


def expected(name: str, groups: list[str], *, option: str) -> Path:
    """The file of a recipe, searched in these groups.

    Raises:
        RecipeError: if there is none; the message lists the existing ones.
    """
    for group in groups:
        if (path := find(f"{group}/{name}" if group else name)) is not None:
            return path
    known = names_in(groups[0])
    near = suggest(_below(name), _with_groups()) if "/" in name else suggest(Path(name).stem, known)
    near = near.removeprefix("; ")
    raise RecipeError(
        f"{option} {name}: no such recipe; {f'{near} ' if near else ''}recipes of {RECIPES / groups[0]}: "
        f"{', '.join(known)}"
    )


def recipes_by_group() -> dict[str, dict[str, str]]:
    """What each recipe is, by group and name: its first comment line."""
    groups: dict[str, dict[str, str]] = {}
    for folder in (PACKAGED, RECIPES):  # those of the working directory replace the package's
        for path in sorted([*folder.glob("*/*.yaml"), *folder.glob("*/*/*.yaml")]):
            here = f"({path}) " if folder.resolve() != PACKAGED else ""
            group = path.parent.relative_to(folder).as_posix()
            groups.setdefault(group, {})[path.stem] = here + _first_line(path)
    groups["shards"] = {path.stem: _first_line(path) for path in sorted(CORPORA.glob("*.yaml"))}
    return groups


def listing(groups: dict[str, dict[str, str]]) -> str:
    """All recipes by group, in lines."""
    width = max((len(name) for rows in groups.values() for name in rows), default=0)
    lines = []
    for group, rows in sorted(groups.items()):
        lines += ["", group, in_columns({name: rows[name] for name in sorted(rows)}, width=width)]
    return "\n".join(lines[1:])


def _first_line(path: Path) -> str:
    """The first comment, or the `what:` line of a corpus."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(("# ", "what: ")):
            return line.partition(" ")[2].strip()
    return ""


def copy(name: str, out: Path | None) -> Path:
    """Copy a recipe of the package to a file that can be edited; returns its path.

    Args:
        name: As `listing` has it, alone or with its group: `ks2`, `encoders/bimamba_tiny`, `shards/esc50`.
        out: Path of the copy; by default `recipes/GROUP/NAME.yaml`, which overrides the package's.

    Raises:
        RecipeError: if there is no such recipe, or several, or the file exists already.
    """
    every = sorted([*PACKAGED.glob("*/*.*"), *PACKAGED.glob("*/*/*.yaml")])
    folders = {path.relative_to(PACKAGED.parent): path for path in every}
    folders |= {path.relative_to(PACKAGED.parent): path for path in sorted(CORPORA.glob("*.yaml"))}
    named = {str(at.with_suffix("")).removeprefix(f"{RECIPES}/"): at for at in folders}
    wanted = _below(name).removesuffix(".yaml")
    found = [one for one in named if wanted in (one, Path(one).name)]
    if not found:
        near = suggest(wanted, list(named)) or suggest(Path(wanted).name, [Path(one).name for one in named])
        raise RecipeError(f"recipes copy: no recipe {name!r}{near}; `ssl-audio recipes` lists them")
    if len(found) > 1:
        raise RecipeError(f"recipes copy: {name!r} is ambiguous: {', '.join(found)}; expected one of them")
    source = folders[named[found[0]]]
    target = named[found[0]] if out is None else out
    if target.exists():
        raise RecipeError(f"{target}: exists already and is not overwritten; edit it, remove it, or give --out FILE")
    try:
        store(target, source.read_bytes())
    except OSError as error:
        raise RecipeError(f"cannot write {target} ({error.strerror or error}); give --out FILE") from error
    return target
