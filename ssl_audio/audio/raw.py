"""Raw samples without a header, as they come through a pipe."""

import numpy as np
from jaxtyping import Float

from ssl_audio.errors import AudioError
from ssl_audio.names import suggest

FORMATS: dict[str, tuple[str, float]] = {
    "s16le": ("<i2", 1 / 32768),
    "s32le": ("<i4", 1 / 2147483648),
    "f32le": ("<f4", 1.0),
    "f64le": ("<f8", 1.0),
    "u8": ("u1", 1 / 128),
}
"""By the names that ffmpeg has for them: numpy's type, and what a step is worth."""


class RawSamples:
    """Bytes in blocks of any size to mono samples; a sample that a block cuts waits for the next.

    Args:
        format: One of `FORMATS`.
        channels: Next to each other in time; their mean is taken.

    Raises:
        AudioError: if the format is unknown.
    """

    def __init__(self, format: str = "s16le", *, channels: int = 1) -> None:
        if format not in FORMATS:
            raise AudioError(f"no format {format!r}{suggest(format, list(FORMATS))}; expected {', '.join(FORMATS)}")
        kind, self.scale = FORMATS[format]
        self.kind = np.dtype(kind)
        self.channels = channels
        self._waiting = b""

    def feed(self, block: bytes) -> Float[np.ndarray, " sample"]:
        """The samples that these bytes complete."""
        waiting = self._waiting + block
        size = self.kind.itemsize * self.channels
        whole = len(waiting) // size * size
        self._waiting = waiting[whole:]
        values = np.frombuffer(waiting[:whole], dtype=self.kind).astype(np.float32)
        if self.kind.kind == "u":
            values -= 128.0
        with np.errstate(all="ignore"):  # whoever takes the samples says what is wrong with NaN
            return (values * np.float32(self.scale)).reshape(-1, self.channels).mean(axis=1)
