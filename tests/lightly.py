"""Lightning, imported as `ssl-audio` imports it: without what takes longer than torch itself. To be imported first."""

from ssl_audio.cli.imports import light_imports

with light_imports():
    import lightning.pytorch  # noqa: F401
