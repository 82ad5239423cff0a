"""The demo's version of a task, for a machine that does not have the corpus."""

import sys
from pathlib import Path
from typing import Any

import yaml

from ssl_audio.cli.recipes import with_recipe_paths

DEMO = Path("shards/demo")


def with_demo(words: list[str]) -> list[str]:
    """The same call, or one of the recipe that the recipe names for when its shards are missing. It says so loudly."""
    words = with_recipe_paths(words, "finetune")
    places = [place + 1 for place, word in enumerate(words) if word in ("--config", "-c") and place + 1 < len(words)]
    told: dict[str, Any] = {}
    tasks = []  # the others, such as adapters, are laid over whatever task there is
    for place in places:
        recipe = _read(Path(words[place]))
        told |= recipe
        tasks += [place] if "demo" in recipe or "data" in recipe else []
    shards = [Path(folder) for folder in told.get("data", {}).get("shards", [])]
    given = any(word.startswith("--data.shards") for word in words)
    missing = [folder for folder in shards if not folder.exists()]
    if given or not missing:
        return words
    if missing == [DEMO] or (DEMO in shards and not DEMO.exists()):
        _write_demo()
        return words
    if told.get("demo") is None:
        return words
    task = "+".join(Path(words[place]).stem for place in places)
    frame = "=" * 100
    print(
        f"{frame}\nNOT {task.upper()}: {', '.join(map(str, missing))} is not here. This runs the demo's version of "
        f"the task ({told['demo']}) on speech and sounds\nsynthesised on this machine; "
        f"its numbers say nothing about {task}.\n"
        f"How to get the corpus: {told.get('how_to_get') or 'see shards/README.md'}\n{frame}",
        file=sys.stderr,
    )
    demo = str(Path(words[tasks[0]]).parent / f"{told['demo']}.yaml")
    dropped = {number for place in tasks for number in (place - 1, place)}
    rest = [word for number, word in enumerate(words) if number not in dropped]
    named = any(word == "--name" or word.startswith("--name=") for word in rest)
    return with_demo(["--config", demo, *([] if named else ["--name", f"{task}-on-demo"]), *rest])


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}  # the parser says what is wrong with it
    return found if isinstance(found, dict) else {}


def _write_demo() -> None:
    from ssl_audio.cli.shards import run as shards

    shards(["write", "--corpus", "demo", "--out", str(DEMO)])
