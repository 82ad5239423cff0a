"""`ssl-audio stream`: labels of a sound that may have no end, as it comes."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, PositiveInt

from ssl_audio.audio.files import decode, probe
from ssl_audio.audio.raw import FORMATS, RawSamples
from ssl_audio.audio.resampling import RATES
from ssl_audio.cli.inputs import names_in
from ssl_audio.cli.stream_rows import EventRows, LabelRows, Rows
from ssl_audio.errors import AudioError, RecipeError
from ssl_audio.evaluation.pretrained import Pretrained, pretrained
from ssl_audio.evaluation.streaming import SoundStream, Way
from ssl_audio.experiments.parsing import VerbParser
from ssl_audio.names import printable

Format = Literal["s16le", "s32le", "f32le", "f64le", "u8"]

RECORDERS = {
    "arecord": ["-q", "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", "{rate}"],
    "parec": ["--raw", "--format=s16le", "--channels=1", "--rate={rate}", "--latency-msec=50"],
    "rec": ["-q", "-t", "raw", "-e", "signed", "-b", "16", "-L", "-c", "1", "-r", "{rate}", "-"],
}
"""Programs that write the microphone's samples to their standard output, and how."""

_FILE_SECONDS = 5.0
_PIPE_BYTES = 1 << 16


def run(words: list[str]) -> None:
    """Parse and listen."""
    parser = VerbParser(
        prog="ssl-audio stream",
        description="Labels of a sound as it comes, a row for each stretch and label: start, end, label, probability; "
        "or its sound events (--events). "
        "Every row is written whole. `ffmpeg -i URL -f s16le -ac 1 -ar 16000 - | ssl-audio stream --checkpoint F -`.",
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="A fine-tuned checkpoint.")
    parser.add_argument("source", type=str | None, nargs="?", default=None, help="An audio file; - for raw samples.")
    parser.add_argument("--microphone", type=bool, default=False, help="Listen to the microphone.")
    parser.add_argument("--rate", type=PositiveInt, default=16000, help="Samples per second of raw samples.")
    parser.add_argument("--format", type=Format, default="s16le", help="Of raw samples: " + ", ".join(FORMATS) + ".")
    parser.add_argument("--channels", type=PositiveInt, default=1, help="Of raw samples; their mean is taken.")
    parser.add_argument("--every", type=PositiveFloat, default=1.0, help="Seconds of a stretch.")
    parser.add_argument(
        "--events",
        type=bool,
        default=False,
        help="Sound events instead, a row for each when it has ended: onset, offset, label, confidence.",
    )
    parser.add_argument(
        "--begins",
        type=bool,
        default=False,
        help="With --events: also a row when an event starts, without an offset.",
    )
    parser.add_argument("--top", type=PositiveInt, default=1, help="So many labels of each stretch.")
    parser.add_argument(
        "--least", type=ClosedUnitInterval, default=0.0, help="Leave out labels less probable than this."
    )
    parser.add_argument("--rows", type=Literal["csv", "json"], default="csv", help="Rows as CSV or as lines of JSON.")
    parser.add_argument(
        "--way",
        type=Way,
        default="auto",
        help="exact: as a whole pass would see it, for encoders trained for streams; windows: overlapping windows.",
    )
    parser.add_argument(
        "--window_seconds",
        type=PositiveFloat | None,
        default=None,
        help="Seconds of sound up to its end that a stretch has its labels from.",
    )
    parser.add_argument(
        "--ahead_seconds",
        type=NonNegativeFloat,
        default=0.0,
        help="Of overlapping windows: seconds behind it that a stretch waits for, so that its end has seen more.",
    )
    parser.add_argument("--base", type=Path | None, default=None, help="What an adapter checkpoint was trained on.")
    parser.add_argument("--device", type=str, default="cpu", help="Where to compute: cpu, cuda.")
    parser.add_argument("--label_names", type=Path | None, default=None, help="Names of the labels, one a line.")
    chosen = parser.parse_args(words)
    if chosen.microphone == (chosen.source is not None):
        raise RecipeError("stream: expected one source: an audio file, - for raw samples of a pipe, or --microphone")
    if chosen.source not in (None, "-") and not Path(chosen.source).exists():
        raise RecipeError(f"stream: no file {printable(chosen.source)}; expected an audio file, or - for a pipe")
    if chosen.source not in (None, "-") and Path(chosen.source).is_dir():
        raise RecipeError(
            f"stream: {printable(chosen.source)} is a folder; `ssl-audio predict --windows` reads folders"
        )
    if chosen.begins and not chosen.events:
        raise RecipeError("--begins: rows of begins are of sound events; expected --events with it")
    if not RATES[0] <= chosen.rate <= RATES[1]:
        raise RecipeError(f"--rate {chosen.rate}: expected samples per second, {RATES[0]} to {RATES[1]}")
    model = pretrained(chosen.checkpoint, base=chosen.base, device=chosen.device)
    if chosen.label_names is not None:
        model.name_labels(names_in(chosen.label_names))
    if model.head is None:
        raise RecipeError(
            f"stream: {model.checkpoint.path} has no head, so it labels nothing; fine-tune it with `ssl-audio "
            "finetune` (its states in Python: encoder.stream())"
        )
    native = chosen.source not in (None, "-")
    stream = model.stream(
        sample_rate=model.sample_rate if native else chosen.rate,
        every_seconds=chosen.every,
        window_seconds=chosen.window_seconds,
        way=chosen.way,
        states=False,
        ahead_seconds=chosen.ahead_seconds,
    )
    if chosen.events:
        if stream.event_refusal is not None:
            raise RecipeError(f"stream: {model.checkpoint.path}: {stream.event_refusal}")
        rows: Rows = EventRows(model.labels, begins=chosen.begins, least=chosen.least, form=chosen.rows)
        after = f"begin and end of an event come {stream.event_delay_seconds:.2f} s after them at most"
    else:
        rows = LabelRows(model.labels, top=chosen.top, least=chosen.least, form=chosen.rows)
        after = f"a frame waits {stream.delay_seconds:.2f} s at most"
        if stream.event_refusal is None:
            after += "; this checkpoint finds sound events: --events writes them"
    how = "as a whole pass" if stream.exact else f"overlapping windows ({stream.refusal})"
    print(f"stream: {how}; {after}", file=sys.stderr)
    if native:
        listen(stream, file_blocks(Path(chosen.source), model), rows)
    elif chosen.source == "-":
        listen(stream, raw_blocks(sys.stdin.fileno(), RawSamples(chosen.format, channels=chosen.channels)), rows)
    else:
        with microphone(chosen.rate) as pipe:
            listen(stream, raw_blocks(pipe, RawSamples()), rows)


def listen(stream: SoundStream, blocks: Iterator[Float[np.ndarray, " _"]], rows: Rows) -> None:
    """Write the rows of every stretch or event when it ends."""
    rows.begin()
    stretches = 0
    for block in blocks:
        found = stream.feed(block)
        rows.write(found)
        stretches += len(found.stretches)
    found = stream.finish()
    rows.write(found)
    if not stretches + len(found.stretches):
        print("stream: the sound ended before its first patch was complete, so there are no rows", file=sys.stderr)


def file_blocks(path: Path, model: Pretrained) -> Iterator[Float[np.ndarray, " sample"]]:
    """A file at the checkpoint's rate, a few seconds at a time."""
    information = probe(path)
    seconds, start = information.frames / information.sample_rate, 0.0
    while start < seconds:
        block = decode(path, sample_rate=model.sample_rate, start=start, seconds=_FILE_SECONDS)
        yield block
        start += _FILE_SECONDS
        if len(block) < round(_FILE_SECONDS * model.sample_rate):
            return


def raw_blocks(pipe: int, samples: RawSamples) -> Iterator[Float[np.ndarray, " sample"]]:
    """What a pipe holds, as soon as it holds anything, until it is closed."""
    while block := os.read(pipe, _PIPE_BYTES):
        yield samples.feed(block)


@contextmanager
def microphone(rate: int) -> Iterator[int]:
    """The pipe of a program that records, for a `with` statement.

    Raises:
        RecipeError: if there is none on this machine.
        AudioError: if it fails.
    """
    program = next((name for name in RECORDERS if shutil.which(name)), None)
    if program is None:
        raise RecipeError(
            f"--microphone: none of {', '.join(RECORDERS)} is installed; pipe raw samples in: PROGRAM | ssl-audio "
            "stream --checkpoint F -"
        )
    options = [option.format(rate=rate) for option in RECORDERS[program]]
    with subprocess.Popen([program, *options], stdout=subprocess.PIPE) as recorder:
        assert recorder.stdout is not None
        try:
            yield recorder.stdout.fileno()
            if code := recorder.wait():
                raise AudioError(f"--microphone: {program} ended with exit code {code}; its own message is above")
        finally:
            recorder.kill()
