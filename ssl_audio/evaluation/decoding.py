"""One recording decoded and checked, in this process or in another, and the loop of such a process."""

import dataclasses
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ssl_audio.audio.files import decode, probe
from ssl_audio.audio.reading import Finding, Findings, Reading
from ssl_audio.audio.resampling import ratio_of
from ssl_audio.data.member import Member
from ssl_audio.data.rates import shortest_samples
from ssl_audio.data.workers import begin_process
from ssl_audio.errors import AudioError

LONG_SECONDS = 60
"""Longer recordings are never held whole: they are read in stretches of this length."""

REPLY_BYTES = 1 << 22
"""A process returns its list unfinished once it has decoded this much."""

Waveform = Float[np.ndarray, " sample"]


@dataclasses.dataclass(frozen=True, slots=True)
class DecodedRecording:
    """A recording that can be read from end to end.

    Args:
        samples: How long it is.
        waveform: Its samples; None if it is long.
        findings: What is to be said of it.
    """

    samples: int
    waveform: Waveform | None
    findings: list[Finding]


class Wanted(NamedTuple):
    """A recording that is to be decoded.

    Args:
        name: What to call it.
        encoded: Where its sound is.
        stretch: Which stretch of a long one; None checks all of it and gives the samples of a short one.
    """

    name: str
    encoded: Path | bytes | Member
    stretch: int | None = None


Reply = DecodedRecording | Waveform | AudioError


def reply_to(wanted: Wanted, *, rate: int, reading: Reading) -> Reply:
    """The decoded recording, or why it cannot be decoded.

    Args:
        wanted: The recording, or a stretch of it.
        rate: Samples per second of the result.
        reading: How it is read where there is a choice.

    Raises:
        ShardError: if its shard cannot be read.
    """
    try:
        if wanted.stretch is not None:
            return _stretch(wanted, wanted.stretch, rate, reading, None)
        return _checked(wanted, rate, reading)
    except AudioError as error:
        if isinstance(wanted.encoded, Member) and wanted.encoded.failure is not None:
            raise wanted.encoded.failure from error
        return error


def _checked(wanted: Wanted, rate: int, reading: Reading) -> DecodedRecording:
    """A damaged recording is found before it is among others: a short one is kept as it was read, a long one is read
    from end to end in stretches.
    """
    findings = Findings()
    if isinstance(wanted.encoded, bytes):
        whole = decode(wanted.encoded, sample_rate=rate, name=wanted.name, reading=reading, findings=findings)
    else:
        told = probe(wanted.encoded, name=wanted.name, reading=reading)
        samples = max(1, round(told.frames / ratio_of(have=told.sample_rate, want=rate)))
        if samples > LONG_SECONDS * rate:
            for stretch in range(-(-samples // (LONG_SECONDS * rate))):
                _stretch(wanted, stretch, rate, reading, findings)
            return DecodedRecording(samples, None, findings.close())
        whole = decode(
            wanted.encoded,
            sample_rate=rate,
            seconds=(samples + 1) / rate,
            name=wanted.name,
            reading=reading,
            findings=findings,
        )
    if len(whole) < (least := shortest_samples(rate)):
        raise AudioError(f"{wanted.name}: {len(whole)} samples, less than one frame of {least} (25 ms)")
    return DecodedRecording(len(whole), whole, findings.close())


def _stretch(wanted: Wanted, stretch: int, rate: int, reading: Reading, findings: Findings | None) -> Waveform:
    return decode(
        wanted.encoded,
        sample_rate=rate,
        start=float(stretch * LONG_SECONDS),
        seconds=float(LONG_SECONDS),
        name=wanted.name,
        reading=reading,
        findings=findings,
    )


def serve(connection: Connection, rate: int, reading: Reading) -> None:
    """Reply to lists of wanted recordings, one after the other, until the other end is closed.

    To each list goes a reply for each of the first recordings, and None behind them.
    """
    begin_process()
    try:
        while True:
            room = REPLY_BYTES
            for wanted in connection.recv():
                found = reply_to(wanted, rate=rate, reading=reading)
                send(connection, found)
                waveform = found.waveform if isinstance(found, DecodedRecording) else found
                room -= waveform.nbytes if isinstance(waveform, np.ndarray) else 0
                if room <= 0:
                    break
            connection.send(None)
    except (EOFError, ConnectionError):
        return


def send(connection: Connection, found: Reply) -> None:
    """Send a reply; samples go beside the rest, because pickling would copy them."""
    waveform = found.waveform if isinstance(found, DecodedRecording) else found
    if not isinstance(waveform, np.ndarray):
        connection.send((found, None))
        return
    rest = dataclasses.replace(found, waveform=None) if isinstance(found, DecodedRecording) else None
    connection.send((rest, len(waveform)))
    connection.send_bytes(np.ascontiguousarray(waveform).data.cast("B"))


def receive(connection: Connection) -> Reply | None:
    """What `send` sent, or None where a list ends.

    Raises:
        EOFError, OSError: if the other process is gone.
    """
    told = connection.recv()
    if told is None:
        return None
    found, samples = told
    if samples is None:
        return found
    waveform = np.empty(samples, dtype=np.float32)
    connection.recv_bytes_into(waveform.data.cast("B"))
    return waveform if found is None else dataclasses.replace(found, waveform=waveform)
