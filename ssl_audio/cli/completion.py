"""`ssl-audio completion`: a script by which a shell completes verbs, options and their choices.

All options are looked up once, when the script is written, so that completing takes no time and starts no Python.
"""

import contextlib
import io
import re
from collections.abc import Iterable, Iterator
from typing import Literal

from ssl_audio.cli.parser import call
from ssl_audio.experiments.recipe_files import recipes_by_group

_BASH = """\
# Completion of ssl-audio, by `ssl-audio completion {shell}`; generate it again after an update.
{begin}_ssl_audio() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} found=
    case "${{COMP_WORDS[1]}} $before" in
{choices}
    esac
    if [[ -z $found && $COMP_CWORD -eq 1 ]]; then
        found="{verbs}"
    elif [[ -z $found && ( $word == -* || $COMP_CWORD -eq 2 ) ]]; then
        case "${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}" in
{options}
        esac
    fi
    COMPREPLY=($(compgen -W "$found" -- "$word"))
}}
complete -o default -F _ssl_audio ssl-audio
"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"
_OPTION = re.compile(r"^  (?:-\w, )?(--[\w.]+)(?: \{([^}]*)\})?", re.MULTILINE)


def run(words: list[str]) -> None:
    """Parse and call `completion`."""
    call(completion, words, prog="ssl-audio completion")


def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print a script by which a shell completes verbs, options and their choices. It takes some seconds.

    For bash, `ssl-audio completion bash > ~/.local/share/bash-completion/completions/ssl-audio`; for zsh, into a file
    that ~/.zshrc sources; for fish, into ~/.config/fish/completions/ssl-audio.fish.

    Args:
        shell: Which.
    """
    found = {words: options for words in _calls() if (options := _options(words))}
    recipes = [name for rows in recipes_by_group().values() for name in rows]
    for verb in ("pretrain", "finetune"):
        found[verb,]["--config"] = sorted(set(recipes))
    print(_fish(found) if shell == "fish" else _bash(found, shell), end="")


def _calls() -> Iterator[tuple[str, ...]]:
    """Every verb, and what may stand behind it."""
    from ssl_audio.cli.bench import BENCHES
    from ssl_audio.cli.main import VERBS

    yield from ((verb,) for verb in VERBS if verb not in ("bench", "shards", "recipes"))
    yield from (("bench", name) for name in BENCHES)
    yield from (("shards", action) for action in ("write", "merge", "verify", "show"))
    yield from (("recipes", action) for action in ("copy", "propose"))


def _options(words: tuple[str, ...]) -> dict[str, list[str]]:
    """The options that the help of a verb lists, each with its choices, if it has any."""
    from ssl_audio.cli.main import main

    more = ["--corpus", "folder"] if words == ("shards", "write") else []
    with contextlib.redirect_stdout(io.StringIO()) as told, contextlib.suppress(SystemExit):
        main([*words, *more, "--help"])
    options = {name: given.split(",") if given else [] for name, given in _OPTION.findall(told.getvalue())}
    return {**options, "--quiet": [], "--json": []}


def _bash(found: dict[tuple[str, ...], dict[str, list[str]]], shell: str) -> str:
    def case(pattern: str, words: Iterable[str]) -> str:
        return f'        {pattern}) found="{" ".join(words)}" ;;'

    below: dict[str, list[str]] = {}
    for words in found:
        below.setdefault(words[0], []).extend(words[1:])
    choices = [
        case(f'"{words[0]} {name}"', given) for words, own in found.items() for name, given in own.items() if given
    ]
    options = [case(f'"{" ".join(words)}"', own) for words, own in found.items() if words[1:]]
    options += [case(f'"{verb} "*', names) for verb, names in below.items() if names]
    options += [case(f'"{words[0]} "*', own) for words, own in found.items() if not words[1:]]
    begin = _ZSH if shell == "zsh" else ""
    lines = {"choices": "\n".join(choices), "options": "\n".join(options), "verbs": " ".join(below)}
    return _BASH.format(shell=shell, begin=begin, **lines)


def _fish(found: dict[tuple[str, ...], dict[str, list[str]]]) -> str:
    verbs = " ".join(dict.fromkeys(words[0] for words in found))
    lines = [
        "# Completion of ssl-audio, by `ssl-audio completion fish`; generate it again after an update.",
        f"complete -c ssl-audio -n __fish_use_subcommand -f -a '{verbs}'",
    ]
    for words, options in found.items():
        where = " ".join(f"; and __fish_seen_subcommand_from {word}" for word in words).removeprefix("; and ")
        if words[1:]:
            lines.append(f"complete -c ssl-audio -n '__fish_seen_subcommand_from {words[0]}' -a {words[1]}")
        for name, given in options.items():
            choices = f" -x -a '{' '.join(given)}'" if given else ""
            lines.append(f"complete -c ssl-audio -n '{where}' -l {name.removeprefix('--')}{choices}")
    return "\n".join(lines) + "\n"
