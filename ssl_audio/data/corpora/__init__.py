"""Corpora: one file each; import a new one here so that the command line knows its name."""

from ssl_audio.data.corpora.corpus import Corpus, Recording
from ssl_audio.data.corpora.demo import Demo
from ssl_audio.data.corpora.folder import Folder
from ssl_audio.data.corpora.table import Table

__all__ = ["Corpus", "Demo", "Folder", "Recording", "Table"]
