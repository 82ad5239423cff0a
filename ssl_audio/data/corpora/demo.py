"""The demo corpus: spoken keywords, emotional sentences and sound events, all synthesised on this machine.

It is small enough for a laptop and hard enough that a pretrained encoder has something to gain: a linear
classifier on average log-mels is neither at chance nor perfect on any of its tasks.
"""

from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float

from ssl_audio.audio.reading import Findings
from ssl_audio.audio.resampling import resample
from ssl_audio.data.clip import Clip
from ssl_audio.data.corpora.corpus import Corpus, Recording
from ssl_audio.data.demo.conditions import record
from ssl_audio.data.demo.script import (
    EMOTIONS,
    SPLITS,
    VOICES,
    WORDS,
    Delivery,
    Emotion,
    Voice,
    choose_sentence,
    deliver,
    punctuate,
)
from ssl_audio.data.demo.sounds import SOUNDS, sound
from ssl_audio.data.demo.spectrum import SAMPLE_RATE, shape, slope
from ssl_audio.data.demo.speech import loader, speak
from ssl_audio.errors import AudioError
from ssl_audio.randomness import generator

_SMALL_VOICES = ("voice00", "voice01", "voice02", "voice16", "voice19", "voice20")
_SMALL_WORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")

# Takes of every (voice, word), (voice, emotion) and sound.
_TAKES = {"full": (3, 10, 50), "small": (2, 2, 4)}

# Sounds have no speaker; their takes go round these splits.
_EVENT_SPLITS = ("train", "test", "train", "valid", "train")


class Demo(Corpus):
    """Clips made by eSpeak NG and NumPy, each a pure function of the seed and of its key.

    Labels are of three kinds, one a clip: ``keyword`` (35), ``emotion`` (4) and ``event`` (10). No voice
    is in two splits.

    Args:
        size: ``full`` (3980 clips, about two hours) or ``small`` (about 200 of them, for tests).
        seed: Another seed gives other takes and recording conditions of the same content.
    """

    licence: ClassVar[str] = "CC0-1.0 (synthesised on this machine)"

    def __init__(self, size: Literal["small", "full"] = "full", *, seed: int = 0) -> None:
        self.size = size
        self.seed = seed

    def recordings(self) -> list[Recording]:
        """Every recording, shuffled so that each shard holds a mixture; durations are unknown as yet.

        Raises:
            ShardError: if eSpeak NG is not installed.
        """
        loader()
        clips = self._speech() + self._events()
        order = generator(self.seed, "demo", "order").permutation(len(clips))
        return [Recording(clip=clips[index]) for index in order]

    def waveform(
        self, recording: Recording, findings: Findings | None = None, *, sample_rate: int = SAMPLE_RATE
    ) -> Float[np.ndarray, " sample"]:
        """Synthesise one recording, at 16 kHz, and bring it to the rate.

        Raises:
            AudioError: if the key is not one of this corpus, or eSpeak NG stays silent.
            ShardError: if eSpeak NG is not installed or does not start.
        """
        key = recording.clip.key
        content = generator(self.seed, key, "content")
        match key.split("-"):
            case ["keyword", name, word, _] if name in VOICES and word in WORDS:
                dry = _say(word, voice=VOICES[name], language="en", delivery=deliver(None, rng=content))
            case ["emotion", name, emotion, _] if name in VOICES and emotion in EMOTIONS:
                dry = _express(emotion, voice=VOICES[name], rng=content)
            case ["event", name, _] if name in SOUNDS:
                dry = sound(name, rng=content)
            case _:
                raise AudioError(f"the demo corpus has no clip {key!r}; expected one that it lists")
        clip = record(dry, rng=generator(self.seed, key, "conditions"))
        return resample(torch.from_numpy(clip), have=SAMPLE_RATE, want=sample_rate).numpy()

    def _speech(self) -> list[Clip]:
        """Every voice says every word and every emotion several times."""
        keyword_takes, emotion_takes, _ = _TAKES[self.size]
        voices = VOICES if self.size == "full" else _SMALL_VOICES
        words = WORDS if self.size == "full" else _SMALL_WORDS
        spoken = [("keyword", word, take) for word in words for take in range(keyword_takes)]
        spoken += [("emotion", emotion, take) for emotion in EMOTIONS for take in range(emotion_takes)]
        return [
            Clip(
                key=f"{kind}-{voice}-{label}-{take}",
                sample_rate=SAMPLE_RATE,
                labels={kind: [label]},
                speaker=voice,
                split=SPLITS[voice],
                source=f"demo/{kind}/{voice}/{label}",
            )
            for voice in voices
            for kind, label, take in spoken
        ]

    def _events(self) -> list[Clip]:
        """Several takes of every sound."""
        return [
            Clip(
                key=f"event-{name}-{take}",
                sample_rate=SAMPLE_RATE,
                labels={"event": [name]},
                split=_EVENT_SPLITS[take % len(_EVENT_SPLITS)],
                source=f"demo/event/{name}",
            )
            for name in SOUNDS
            for take in range(_TAKES[self.size][2])
        ]


def _express(emotion: Emotion, *, voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """A sentence that the voice knows, in the manner of the emotion."""
    delivery = deliver(emotion, rng=rng)
    language, sentence = choose_sentence(voice, rng=rng)
    text = punctuate(sentence, emotion=emotion, rng=rng)
    return _say(text, voice=voice, language=language, delivery=delivery)


def _say(text: str, *, voice: Voice, language: str, delivery: Delivery) -> np.ndarray:
    """A delivery relative to the voice's own pitch and rate."""
    spoken = speak(
        text,
        voice=voice.speaking(language),
        rate=int(np.clip(voice.rate * delivery.pace, 80, 450)),
        pitch=int(np.clip(voice.pitch + delivery.pitch, 0, 99)),
        pitch_range=int(np.clip(delivery.pitch_range, 0, 100)),
        volume=int(np.clip(delivery.volume, 30, 200)),
    )
    return shape(spoken, gain=slope(delivery.effort))
