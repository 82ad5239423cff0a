"""Who says what, and how: the voices, words and sentences of the demo corpus, and emotion as prosody."""

from typing import Literal, NamedTuple

import numpy as np

Emotion = Literal["calm", "happy", "angry", "sad"]

# The vocabulary of Speech Commands v2 (arXiv:1804.03209).
_VOCABULARY = """
    backward bed bird cat dog down eight five follow forward four go happy house learn left marvin nine
    no off on one right seven sheila six stop three tree two up visual wow yes zero
"""
WORDS = tuple(_VOCABULARY.split())

SENTENCES: dict[str, tuple[str, ...]] = {
    "en": (
        "The letter is lying on the kitchen table",
        "We will meet again on Thursday afternoon",
        "He put the bag under the wooden chair",
        "The train to the coast leaves at seven",
        "She is painting the door of the garage",
        "There are nine apples left in the basket",
        "They have moved to a house near the river",
        "I have read the first part of the report",
        "The shop around the corner sells bread",
        "It has been raining since early morning",
        "My brother works in an office downtown",
        "The children are playing behind the school",
        "You can find the keys in the upper drawer",
        "The meeting was moved to another room",
        "A green car is parked across the street",
        "In seven hours it will be time",
        "The cat is asleep beside the window",
        "We took the boat to the small island",
        "The water in the lake is rather cold",
        "Somebody left a coat in the hallway",
    ),
    "de": (
        "Der Brief liegt auf dem Tisch in der Küche",
        "Wir treffen uns am Donnerstag wieder",
        "Das Auto steht auf der anderen Seite der Straße",
        "Die Kinder spielen hinter der Schule",
    ),
    "fr": (
        "La lettre est sur la table de la cuisine",
        "Nous partons demain matin pour la mer",
        "Le train arrive à sept heures du soir",
        "Les enfants jouent derrière l'école",
    ),
    "es": (
        "La carta está sobre la mesa de la cocina",
        "Nos vemos otra vez el jueves por la tarde",
        "El tren sale a las siete de la mañana",
        "Los niños juegan detrás de la escuela",
    ),
    "it": (
        "La lettera è sul tavolo della cucina",
        "Ci vediamo di nuovo giovedì pomeriggio",
        "Il treno parte alle sette di mattina",
        "I bambini giocano dietro la scuola",
    ),
}


class Voice(NamedTuple):
    """A speaker.

    Args:
        accent: The English eSpeak voice.
        variant: The eSpeak variant, which shapes the vocal tract.
        pitch: Base pitch, on eSpeak's scale of 0 to 99.
        rate: Base rate in words a minute.
        tongue: A second language, in which the speaker says some of the sentences.
    """

    accent: str
    variant: str
    pitch: int
    rate: int
    tongue: str | None = None

    def speaking(self, language: str) -> str:
        """eSpeak's name for this voice in a language."""
        return f"{self.accent if language == 'en' else language}+{self.variant}"


_TRAIN = (
    Voice("en-us", "m1", 48, 165),
    Voice("en", "f2", 52, 160),
    Voice("en-gb-scotland", "m3", 44, 170, "de"),
    Voice("en-us", "f3", 46, 175, "es"),
    Voice("en-gb-x-rp", "m4", 55, 150),
    Voice("en-us", "f5", 40, 165, "fr"),
    Voice("en-029", "m6", 58, 160),
    Voice("en-gb-x-gbcwmd", "belinda", 38, 155),
    Voice("en-us-nyc", "m8", 50, 180, "it"),
    Voice("en", "grandma", 50, 145),
    Voice("en-us", "klatt2", 42, 170),
    Voice("en-gb-x-gbclan", "Mario", 54, 165, "es"),
    Voice("en-us", "Andrea", 36, 175),
    Voice("en-gb-x-rp", "quincy", 60, 155, "de"),
    Voice("en-us", "whisper", 50, 160),
    Voice("en", "edward", 47, 185, "fr"),
)
_VALID = (
    Voice("en-us", "m2", 52, 170),
    Voice("en-gb-scotland", "f1", 45, 160, "it"),
    Voice("en", "adam", 50, 165, "de"),
)
_TEST = (
    Voice("en-us", "m7", 46, 170, "de"),
    Voice("en-gb-x-rp", "f4", 50, 155),
    Voice("en-029", "Diogo", 56, 165, "es"),
    Voice("en-us", "linda", 42, 180, "fr"),
    Voice("en", "klatt4", 50, 160),
)

VOICES = {f"voice{number:02d}": voice for number, voice in enumerate(_TRAIN + _VALID + _TEST)}
SPLITS = dict(zip(VOICES, ["train"] * len(_TRAIN) + ["valid"] * len(_VALID) + ["test"] * len(_TEST), strict=True))


class Delivery(NamedTuple):
    """How something is said.

    Args:
        pitch: Steps of eSpeak's scale above the voice's own.
        pitch_range: 0 to 100; 50 is the voice's own.
        pace: Times the voice's own rate.
        volume: Percent of eSpeak's level; much more than 100 clips.
        effort: Decibels an octave by which the spectrum rises, as it does when somebody raises the voice.
    """

    pitch: float
    pitch_range: float
    pace: float
    volume: float
    effort: float


_MANNERS: dict[Emotion, Delivery] = {
    "calm": Delivery(0, 45, 0.95, 100, 0.0),
    "happy": Delivery(16, 75, 1.08, 110, 1.0),
    "angry": Delivery(4, 65, 1.22, 160, 3.0),
    "sad": Delivery(-14, 25, 0.78, 80, -3.0),
}
_NEUTRAL = Delivery(0, 50, 1.0, 100, 0.0)
EMOTIONS = tuple(_MANNERS)

# Standard deviations of each part of a delivery: the classes overlap, as they do among people.
_JITTER = Delivery(7, 12, 0.09, 15, 1.5)

# Odds of an exclamation mark, which eSpeak speaks with emphasis.
_EXCLAIMING = {"calm": 0.05, "happy": 0.5, "angry": 0.8, "sad": 0.05}


def deliver(emotion: Emotion | None, *, rng: np.random.Generator) -> Delivery:
    """A random delivery in the manner of an emotion, or a neutral one."""
    centre = _MANNERS[emotion] if emotion else _NEUTRAL
    drawn = rng.normal(centre, _JITTER)
    return Delivery(*(float(value) for value in drawn))


def punctuate(sentence: str, *, emotion: Emotion, rng: np.random.Generator) -> str:
    """The sentence with the mark that fits."""
    return sentence + ("!" if rng.random() < _EXCLAIMING[emotion] else ".")


def choose_sentence(voice: Voice, *, rng: np.random.Generator) -> tuple[str, str]:
    """A language that the voice speaks, English at least every other time, and a sentence in it."""
    foreign = voice.tongue is not None and rng.random() < 0.5
    language = str(voice.tongue) if foreign else "en"
    return language, SENTENCES[language][int(rng.integers(len(SENTENCES[language])))]
