"""Corpora: one file each; import a new one here so that the command line knows its name."""

from ssl_audio.data.corpora.audioset import AudioSet
from ssl_audio.data.corpora.corpus import Corpus, Recording
from ssl_audio.data.corpora.demo import Demo
from ssl_audio.data.corpora.desed import DESED
from ssl_audio.data.corpora.esc50 import ESC50
from ssl_audio.data.corpora.fluent_speech_commands import FluentSpeechCommands
from ssl_audio.data.corpora.folder import Folder
from ssl_audio.data.corpora.fsd50k import FSD50K
from ssl_audio.data.corpora.iemocap import IEMOCAP
from ssl_audio.data.corpora.librispeech import LibriSpeech
from ssl_audio.data.corpora.speech_commands import SpeechCommands1, SpeechCommands2
from ssl_audio.data.corpora.table import Table
from ssl_audio.data.corpora.voxceleb1 import VoxCeleb1

__all__ = [
    "DESED",
    "ESC50",
    "FSD50K",
    "IEMOCAP",
    "AudioSet",
    "Corpus",
    "Demo",
    "FluentSpeechCommands",
    "Folder",
    "LibriSpeech",
    "Recording",
    "SpeechCommands1",
    "SpeechCommands2",
    "Table",
    "VoxCeleb1",
]
