"""Speech from eSpeak NG, called through ctypes.

eSpeak keeps much between utterances: the voice, its parameters, the phase of its pitch flutter, the state of
its noise. Setting every parameter does not bring all of it back, so the library is loaded afresh for every
utterance and unloaded after it (about 2 ms). Then the same call gives the same samples in whatever order and
process, and there is nothing to initialise, to pickle or to share between processes. (Should something else
in the process hold the same library open, it would not be unloaded, and samples would depend on the past.)
"""

import _ctypes
import ctypes
import functools
import importlib
import tempfile
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float

from ssl_audio.data.demo.spectrum import resample_in_frequency
from ssl_audio.errors import AudioError, ShardError

# From espeak-ng/speak_lib.h.
_SYNCHRONOUS_RETRIEVAL = 2
_DO_NOT_EXIT = 0x8000
_UTF8 = 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_ON_SAMPLES = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

# eSpeak copies the path of its data into 160 characters and appends to it.
_LONGEST_PATH = 120

# The library has one state per process, so threads take turns.
_ONE_AT_A_TIME = threading.Lock()


def loader() -> ModuleType:
    """The package that brings eSpeak NG.

    Raises:
        ShardError: if it is not installed.
    """
    try:
        return importlib.import_module("espeakng_loader")
    except ImportError as error:
        raise ShardError(
            "the demo corpus speaks through eSpeak NG, and espeakng_loader is not installed; "
            'install the extra: pip install "ssl_audio[demo]"'
        ) from error


def speak(
    text: str, *, voice: str, rate: int, pitch: int, pitch_range: int, volume: int
) -> Float[np.ndarray, " sample"]:
    """One utterance at 16 kHz without silence around it, about within [-1, 1].

    Args:
        text: What is said, in the language of the voice.
        voice: An eSpeak voice, with a variant if wanted: ``en-us+m3``.
        rate: Words a minute, 80 to 450.
        pitch: 0 to 99; 50 is the voice's own.
        pitch_range: 0 (monotone) to 100; 50 is the voice's own.
        volume: Percent, 0 to 200; beyond 100 loud parts may clip, as a shout in a microphone does.

    Raises:
        AudioError: if nothing comes out.
        ShardError: if eSpeak NG is not installed, does not start or has no such voice.
    """
    parameters = {_RATE: rate, _VOLUME: volume, _PITCH: pitch, _RANGE: pitch_range}
    with _ONE_AT_A_TIME:
        sample_rate, samples = _utter(text, voice=voice, parameters=parameters)
    if not samples.any():
        raise AudioError(f"eSpeak NG said nothing for {text!r} with voice {voice!r}; expected speech")
    return resample_in_frequency(_trim(samples / 32768.0), source_rate=sample_rate)


def _utter(text: str, *, voice: str, parameters: dict[int, int]) -> tuple[int, np.ndarray]:
    """Sample rate and int16 samples of one utterance by a library that has never spoken before."""
    chunks: list[bytes] = []

    def collect(samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback = _ON_SAMPLES(collect)  # kept in a name for as long as eSpeak may call it
    data = _data_path()
    library = ctypes.CDLL(str(loader().get_library_path()))
    try:
        sample_rate = library.espeak_Initialize(_SYNCHRONOUS_RETRIEVAL, 0, data.encode(), _DO_NOT_EXIT)
        if sample_rate <= 0:
            raise ShardError(f"eSpeak NG does not start with the data at {data}; reinstall espeakng-loader")
        # Some variants make their noise with eSpeak's generator, some with the C library's.
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        ctypes.CDLL(None).srand(1)
        library.espeak_SetSynthCallback(callback)
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ShardError(f"eSpeak NG has no voice {voice!r}; expected LANGUAGE or LANGUAGE+VARIANT")
        for parameter, value in parameters.items():
            library.espeak_SetParameter(parameter, value, 0)
        encoded = text.encode() + b"\0"
        library.espeak_Synth(encoded, len(encoded), 0, 0, 0, _UTF8, None, None)
        library.espeak_Synchronize()
    finally:
        library.espeak_Terminate()
        _ctypes.dlclose(library._handle)
    return sample_rate, np.frombuffer(b"".join(chunks), dtype=np.int16)


@functools.cache
def _data_path() -> str:
    """The folder of voices; through a short link if eSpeak would cut its path short."""
    path = str(loader().get_data_path())
    if len(path) <= _LONGEST_PATH:
        return path
    link = Path(_link_folder().name) / "espeak-ng-data"
    link.symlink_to(path, target_is_directory=True)
    if len(str(link)) > _LONGEST_PATH:
        raise ShardError(f"the path of {link.parent} is too long for eSpeak NG; set TMPDIR=/tmp")
    return str(link)


@functools.cache
def _link_folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder that goes when the process ends."""
    return tempfile.TemporaryDirectory(prefix="espeak-")


def _trim(waveform: Float[np.ndarray, " sample"]) -> Float[np.ndarray, " kept"]:
    """Without the silence before and after (below 1 % of the peak)."""
    heard = np.flatnonzero(np.abs(waveform) > 0.01 * np.abs(waveform).max())
    return waveform[heard[0] : heard[-1] + 1]
