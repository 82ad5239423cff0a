"""The command line: verbs, and the only place that prints or exits."""

from ssl_audio.cli.main import main

__all__ = ["main"]
