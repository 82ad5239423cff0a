"""The demo's version of a task, for a machine that does not have the corpus."""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssl_audio.checkpoints.newest import NEWEST, chosen_checkpoint
from ssl_audio.errors import RecipeError
from ssl_audio.experiments.display import TERMINAL, Display
from ssl_audio.experiments.recipes import asked_alone, read_recipe, recipe_path, section, with_recipe_paths
from ssl_audio.training.engines import is_first_process

DEMO = Path("shards/demo")
SOUNDSCAPES = {part: Path(f"shards/soundscapes_{part}") for part in ("strong", "weak", "unlabelled")}
DEMOS = (DEMO, *SOUNDSCAPES.values())
"""Shards that are synthesised where they are missing."""
_QUESTIONS = ("--print_config", "--help")


def with_demo(
    words: list[str],
    verb: str = "finetune",
    *,
    check: Callable[[list[str]], None],
    display: Display = TERMINAL,
) -> list[str]:
    """The same call, or one of the recipe that the recipe names for when its shards are missing. It says so loudly.

    Args:
        words: The call.
        verb: What it calls.
        check: Refuses wrong options; asked before minutes of synthesis.
        display: Shows messages and progress.
    """
    words = with_recipe_paths(words, verb)
    places = [place + 1 for place, word in enumerate(words) if word in ("--config", "-c") and place + 1 < len(words)]
    told: dict[str, Any] = {}
    tasks = []  # the others, such as adapters, are laid over whatever task there is
    for place in places:
        recipe = read_recipe(Path(words[place]))
        told |= {**recipe, "data": {**section(told, "data"), **section(recipe, "data")}}
        tasks += [place] if "demo" in recipe or "data" in recipe else []
    listed = section(told, "data").get("shards")
    shards = [Path(folder) for folder in listed if isinstance(folder, str)] if isinstance(listed, list) else []
    given = any(word.startswith("--data.shards") for word in words)
    missing = [folder for folder in shards if not folder.exists()]
    asked = any(word.startswith(_QUESTIONS) or word == "-h" for word in words)  # nothing is to be written for an answer
    if given or asked or not missing:
        return words
    if any(folder in DEMOS for folder in missing):
        start = asked_alone(words, "--checkpoint", str(told.get("checkpoint", NEWEST)))
        if verb == "finetune" and start == NEWEST:  # before minutes of synthesis
            chosen_checkpoint(NEWEST, Path(asked_alone(words, "--runs", "runs")))
        check(words)
        for folder in missing:
            if folder in DEMOS:
                _write_demo(folder, display)
        return words
    if told.get("demo") is None:
        return words
    if not isinstance(told["demo"], str) or not re.fullmatch(r"[\w.-]+", told["demo"]):
        raise RecipeError(f"demo: {str(told['demo'])[:100]!r} is not the name of a recipe in the same folder")
    task = "+".join(Path(words[place]).stem for place in places)
    frame = "=" * 100
    display.line(
        f"{frame}\nNOT {task.upper()}: {', '.join(map(str, missing))} is not here. This runs the demo's version of "
        f"the task ({told['demo']}) on speech and sounds\nsynthesised on this machine; "
        f"its numbers say nothing about {task}.\n"
        f"How to get the corpus: {told.get('how_to_get') or 'see shards/README.md'}\n{frame}"
    )
    beside = Path(words[tasks[0]]).parent / f"{told['demo']}.yaml"
    demo = str(beside) if beside.is_file() else recipe_path(told["demo"], verb)
    dropped = {number for place in tasks for number in (place - 1, place)}
    rest = [word for number, word in enumerate(words) if number not in dropped]
    named = any(word == "--name" or word.startswith("--name=") for word in rest)
    return with_demo(
        ["--config", demo, *([] if named else ["--name", f"{task}-on-demo"]), *rest], verb, check=check, display=display
    )


def _write_demo(folder: Path, display: Display) -> None:
    if not is_first_process():
        while not folder.exists():  # the first rank writes it, and it appears when it is whole
            time.sleep(1.0)
        return
    from ssl_audio.data.corpora import Corpus, Demo, Soundscapes
    from ssl_audio.data.writing import merge_shards, write_part

    made: dict[Path, Corpus] = {DEMO: Demo()}
    made |= {place: Soundscapes(part) for part, place in SOUNDSCAPES.items()}  # type: ignore[arg-type]
    with display.bar(f"writing {folder}") as progress:
        write_part(made[folder], folder, name=folder.name, processes=os.cpu_count() or 1, progress=progress)
    merge_shards(folder)
