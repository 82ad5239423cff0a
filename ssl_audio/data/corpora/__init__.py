"""Corpora: one file each; import a new one here so that the command line knows its name."""

from ssl_audio.data.corpora.audioset import AudioSet
from ssl_audio.data.corpora.audioset_strong import AudioSetStrong
from ssl_audio.data.corpora.corpus import Corpus, Recording
from ssl_audio.data.corpora.demo import Demo
from ssl_audio.data.corpora.desed import DESED
from ssl_audio.data.corpora.esc50 import ESC50
from ssl_audio.data.corpora.fluent_speech_commands import FluentSpeechCommands
from ssl_audio.data.corpora.folder import Folder
from ssl_audio.data.corpora.fsd50k import FSD50K
from ssl_audio.data.corpora.iemocap import IEMOCAP
from ssl_audio.data.corpora.librispeech import LibriSpeech
from ssl_audio.data.corpora.maestro import Maestro
from ssl_audio.data.corpora.soundscapes import Soundscapes
from ssl_audio.data.corpora.speech_commands import SpeechCommands1, SpeechCommands2
from ssl_audio.data.corpora.table import Table
from ssl_audio.data.corpora.voxceleb1 import VoxCeleb1

__all__ = [
    "DESED",
    "ESC50",
    "FSD50K",
    "IEMOCAP",
    "AudioSet",
    "AudioSetStrong",
    "Corpus",
    "Demo",
    "FluentSpeechCommands",
    "Folder",
    "LibriSpeech",
    "Maestro",
    "Recording",
    "Soundscapes",
    "SpeechCommands1",
    "SpeechCommands2",
    "Table",
    "VoxCeleb1",
]
