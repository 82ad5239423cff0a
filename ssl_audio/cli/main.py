"""`ssl-audio <verb>`: find the verb, run it, turn failures into one line."""

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from ssl_audio.cli.imports import light_imports
from ssl_audio.errors import Ended, RecipeError, SslAudioError
from ssl_audio.names import in_columns, printable, suggest

# Verb: its module in this package, and what it does. Modules are imported only when their verb runs.
VERBS = {
    "shards": "write, verify or show WebDataset shards of a corpus",
    "stats": "mean and standard deviation of the log-mel spectrograms of shards",
    "audit": "shortcuts that give labels away: level, noise, speakers, duplicates",
    "pretrain": "self-supervised pretraining from shards",
    "finetune": "train a checkpoint for a task on labelled shards, and test it",
    "compare": "compare encoders, pretrained and from scratch, on one task",
    "continual": "learn tasks in sequence by several methods, and measure forgetting",
    "evaluate": "score a fine-tuned checkpoint on labelled shards",
    "predict": "predict labels or sound events of files, folders or shards",
    "pseudo": "pseudo-labels: frame scores of training clips by event detectors",
    "stream": "label endless sound as it comes: a file, a pipe, a microphone",
    "embed": "vectors of files, folders or shards, for each recording or frame",
    "probe": "linear and nearest-neighbour scores of a frozen checkpoint",
    "export": "convert a checkpoint for transformers, timm, PyTorch, ONNX or peft",
    "inspect": "say what a run, a checkpoint or a folder of shards is",
    "recipes": "list the recipes, write one out to edit, or propose one for shards",
    "bench": "measure speed, as ratios in one run",
    "completion": "a script by which bash, zsh or fish completes verbs and options",
    "doctor": "say what this machine has, what is missing and how to get it",
}

USAGE = """\
usage: ssl-audio <verb> [options]

Self-supervised pretraining of audio encoders.

{verbs}

`ssl-audio <verb> --help` lists a verb's options; --version prints the version.
With any verb: --quiet shows no messages and no progress, results and mistakes
alone; --json prints the result as one JSON object.
Exit codes: 0 done, 1 failed, 2 a mistake in the call or the recipe,
75 stopped by the machine (the same call resumes), 130 interrupted.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit with 0, 1 (failure), 2 (a mistake in the call or recipe) or 130 (interrupted)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Threads that wait leave their core to others; by default they spin. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may be no UTF-8
    quiet, wants_json = "--quiet" in words, "--json" in words
    try:
        with contextlib.ExitStack() as held:
            if quiet:
                words.remove("--quiet")
                nowhere = held.enter_context(open(os.devnull, "w"))  # noqa: PTH123 -- a device
                held.enter_context(contextlib.redirect_stderr(nowhere))
            if wants_json:
                from ssl_audio.cli.results import as_json

                words.remove("--json")
                if words[:1] == ["stream"]:
                    raise RecipeError("stream --json: its rows have no end; expected --rows json, a line for each row")
                held.enter_context(as_json())
            _run(words)
    except (Ended, SslAudioError) as error:
        print(f"ssl-audio: {printable(str(error))}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print("ssl-audio: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None


def _run(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE.format(verbs=in_columns(VERBS)), end="")
        return
    if words[0] in ("-V", "--version"):
        from ssl_audio import __version__

        print(f"ssl-audio {__version__}")
        return
    verb, *rest = words
    if verb not in VERBS:
        raise RecipeError(f"no verb {verb!r}{suggest(verb, VERBS)}; `ssl-audio --help` lists them")
    _load(verb).run(rest)


def _load(verb: str) -> ModuleType:
    """Import a verb's module without the collector, which would look through all of torch's objects again and again."""
    name = f"ssl_audio.cli.{verb}"
    if name in sys.modules:
        return sys.modules[name]
    gc.disable()
    try:
        with light_imports():
            module = importlib.import_module(name)
    finally:
        gc.enable()
    gc.freeze()
    return module
