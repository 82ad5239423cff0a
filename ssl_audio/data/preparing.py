"""From a recording to clips ready to be stored, or to the reason why it cannot be used."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.files import decode, encode, steps_of
from ssl_audio.audio.reading import Finding, Findings, overs_in, peak_of
from ssl_audio.audio.statistics import Moments
from ssl_audio.data.clip import Clip, Event, check_events
from ssl_audio.data.corpora.corpus import Corpus, Recording
from ssl_audio.data.json_values import shown
from ssl_audio.data.rates import SAMPLE_RATE, SHORTEST_SECONDS, check_rate
from ssl_audio.errors import AudioError, RecipeError

Encoding = Literal["flac", "opus", "pcm"]
ENDINGS: dict[Encoding, Literal["flac", "opus", "wav"]] = {"flac": "flac", "opus": "opus", "pcm": "wav"}
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_SILENCE = 0.5 / 32768
_LAST_DIGITS = 4 / 32768
_ROUNDED_SECONDS = 0.1  # what annotations are rounded up by


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """In what form recordings are stored.

    Args:
        sample_rate: Samples per second, 8000 to 96000; recordings of other rates are resampled.
        encoding: `flac` (16 bit, lossless), `pcm` (16-bit WAV: larger, decoded in no time) or `opus` (lossy, small).
        min_seconds: Shorter recordings are rejected.
        max_seconds: Longer recordings are rejected; None rejects none.
        split_seconds: Longer recordings are cut into equal pieces of at most so many seconds; None cuts none.

    Raises:
        RecipeError: if the rate is out of range, or none that Opus has.
    """

    sample_rate: int = SAMPLE_RATE
    encoding: Encoding = "flac"
    min_seconds: float = SHORTEST_SECONDS
    max_seconds: float | None = None
    split_seconds: float | None = None

    def __post_init__(self) -> None:
        check_rate(self.sample_rate, "--sample_rate")
        if self.encoding == "opus" and self.sample_rate not in _OPUS_RATES:
            raise RecipeError(
                f"--sample_rate is {self.sample_rate}; Opus takes {', '.join(map(str, _OPUS_RATES))} Hz; choose one of "
                "them or another --encoding"
            )


class Written(NamedTuple):
    """A clip ready to be stored: description, audio as a file, moments of its log-mel, and what was found in it."""

    clip: Clip
    audio: bytes
    moments: Moments
    findings: tuple[Finding, ...] = ()


def _late(events: Sequence[Event], seconds: float) -> Finding:
    first = events[0]
    what = f"event {shown(first.label)} from {first.onset:g} to {first.offset:g} s"
    more = f" and {len(events) - 1} more" if len(events) > 1 else ""
    return Finding("late", f"{what}{more} ends after the clip, which lasts {seconds:g} s; what lies within is used")


class Rejected(NamedTuple):
    """What cannot be used, and why."""

    key: str
    source: str
    reason: str


def prepare(corpus: Corpus, form: Form, recording: Recording, *, measure: bool = True) -> list[Written | Rejected]:
    """The clips of a recording: one, several when it is cut, or one rejection.

    Args:
        corpus: Where it is from.
        form: In what form it is stored.
        recording: Which it is.
        measure: Take the moments of its log-mel, which takes longer than encoding it.
    """
    clip, source = recording.clip, recording.clip.source or recording.clip.key
    findings = Findings()
    try:
        waveform = corpus.waveform(recording, findings, sample_rate=form.sample_rate)
    except AudioError as error:
        return [Rejected(clip.key, source, str(error))]
    seconds = len(waveform) / form.sample_rate
    if seconds < form.min_seconds:
        return [Rejected(clip.key, source, f"{source}: lasts {seconds:.3f} s, less than {form.min_seconds:g} s")]
    if form.max_seconds is not None and seconds > form.max_seconds:
        return [Rejected(clip.key, source, f"{source}: lasts {seconds:.1f} s, more than {form.max_seconds:g} s")]
    try:
        check_events(clip.events, seconds)
    except ValueError as error:
        return [Rejected(clip.key, source, f"{source}: {error}")]
    if late := [event for event in clip.events if event.offset > seconds + _ROUNDED_SECONDS]:
        findings.add(_late(late, seconds))
    cancelled = findings.found.get("antiphase")
    # What is left of channels that cancel are the last digits of their 16 bits.
    if (peak := peak_of(waveform)) < (_LAST_DIGITS if cancelled else _SILENCE):
        why = (
            f"{cancelled.text}, such as with --channel left" if cancelled else "is silent, every sample is 0 in 16 bits"
        )
        return [Rejected(clip.key, source, f"{source}: {why}")]
    if peak > 1.0:
        findings.add(overs_in(waveform, peak))
    found = tuple(findings.close())
    pieces = 1 if form.split_seconds is None else math.ceil(seconds / form.split_seconds)
    if pieces == 1:
        return [_store(clip, waveform, form, measure, found)]
    bounds = [round(len(waveform) * number / pieces) for number in range(pieces + 1)]
    stored = [
        _piece(clip, source, waveform[first:end], form, measure, number=number, start=first / form.sample_rate)
        for number, (first, end) in enumerate(itertools.pairwise(bounds), start=1)
    ]
    # What was found is found once in a recording, however many pieces there are.
    first = next((place for place, piece in enumerate(stored) if isinstance(piece, Written)), None)
    return [
        piece._replace(findings=found) if isinstance(piece, Written) and place == first else piece
        for place, piece in enumerate(stored)
    ]


def _piece(
    clip: Clip, source: str, waveform: Float[np.ndarray, " _"], form: Form, measure: bool, *, number: int, start: float
) -> Written | Rejected:
    key = f"{clip.key}@{number:04d}"
    if np.abs(waveform).max() < _SILENCE:
        return Rejected(key, source, f"{source}: is silent from {start:.1f} s on")
    end = start + len(waveform) / form.sample_rate
    events = [
        dataclasses.replace(event, onset=max(event.onset, start) - start, offset=min(event.offset, end) - start)
        for event in clip.events
        if event.onset < end and event.offset > start
    ]
    return _store(dataclasses.replace(clip, key=key, events=events), waveform, form, measure)


def _store(
    clip: Clip, waveform: Float[np.ndarray, " _"], form: Form, measure: bool, findings: tuple[Finding, ...] = ()
) -> Written:
    rate = form.sample_rate
    audio = encode(waveform, sample_rate=rate, format=ENDINGS[form.encoding])
    clip = dataclasses.replace(clip, duration=round(len(waveform) / rate, 6), sample_rate=rate)
    if not measure:
        return Written(clip, audio, Moments(), findings)
    # Statistics are of what is stored; lossless formats hold the steps of 16 bits, which need no decoding.
    lossy = form.encoding == "opus"
    stored = decode(audio, sample_rate=rate) if lossy else steps_of(waveform).astype(np.float32) / 32768
    return Written(clip, audio, moments_of(stored, sample_rate=rate), findings)


def moments_of(waveform: Float[np.ndarray, " sample"], *, sample_rate: int) -> Moments:
    """Moments of the log-mel of a waveform, by the filter bank of its rate."""
    moments = Moments()
    moments.update(_fbank(sample_rate).log_mel(torch.from_numpy(waveform)[None]))
    return moments


@functools.cache
def _fbank(sample_rate: int) -> Fbank:
    return Fbank(sample_rate=sample_rate)
