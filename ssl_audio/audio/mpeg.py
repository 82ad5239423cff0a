"""MPEG audio (MP3): how many frames a stream really holds, and a stream that says so.

libsndfile reads as many frames as a Xing or Info header claims, and where there is none, as many as it estimates from
the size: of a variable bit rate, of files joined end to end and of streams cut at the front the rest is lost.

Source: ISO/IEC 11172-3, section 2.4.2.3 (the frame header); the Xing header as LAME writes it.
"""

import dataclasses
import functools
import mmap
import struct
from collections.abc import Iterator

Data = bytes | memoryview | mmap.mmap

_BIT_RATES = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_LONGEST_FRAME = 2881
_SURE_FRAMES = 4
_FRAMES_AND_BYTES = 3
_BLOCK_BYTES = 1 << 16
_ID3V1_BYTES = 128
_XING_BIT_RATE = 9
"""Index of a bit rate whose frame has room for a Xing header, in Layer III of every version."""


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """What a frame header says that all frames of a stream have in common.

    Args:
        version: Its two bits: 3 is MPEG-1, 2 MPEG-2, 0 MPEG-2.5.
        layer: 1, 2 or 3.
        sample_rate: Samples per second.
        mono: It has one channel.
    """

    version: int
    layer: int
    sample_rate: int
    mono: bool

    @property
    def samples(self) -> int:
        """Samples per channel of a frame."""
        if self.layer == 1:
            return 384
        return 576 if self.layer == 3 and self.version != 3 else 1152

    @property
    def side_bytes(self) -> int:
        """Bytes between the header of a Layer III frame and where a Xing header stands."""
        return {(True, True): 17, (True, False): 32, (False, True): 9, (False, False): 17}[self.version == 3, self.mono]


@dataclasses.dataclass(slots=True)
class MpegStream:
    """Frames of one kind that belong together: a file, or one of several that were joined.

    Args:
        kind: Of its frames.
        header: The first four bytes.
        ranges: Where its frames lie, first and end; what is between them is no sound.
        frames: How many there are, the frame of a Xing header excluded.
        claimed: How many its Xing or Info header claims; None where there is none.
        info_end: Where the frame of that header ends; what is sound begins there.
    """

    kind: Kind
    header: bytes
    ranges: list[tuple[int, int]]
    frames: int = 0
    claimed: int | None = None
    info_end: int = 0

    @property
    def honest(self) -> bool:
        """Whether the header claims all frames that are there; some writers count its own frame too."""
        return self.claimed is not None and self.claimed >= self.frames

    @property
    def samples(self) -> int:
        """Samples per channel of all frames."""
        return self.frames * self.kind.samples

    def sound(self) -> list[tuple[int, int]]:
        """The ranges without the frame of a Xing header."""
        kept = ((max(first, self.info_end), end) for first, end in self.ranges)
        return [(first, end) for first, end in kept if first < end]


def looks_like(head: bytes) -> bool:
    """Whether a file that begins so may be MPEG audio."""
    return head[:3] == b"ID3" or (len(head) >= 4 and _frame_bytes(head, 0) > 0)


def says_its_length(data: Data, size: int | None = None) -> bool:
    """Whether a file is one stream whose header says where it ends, as most are: a quick look before `scan`.

    Args:
        data: The file, or its beginning.
        size: Bytes of the file, if that is only its beginning.
    """
    at = _tag_end(data, 0)
    length = _frame_bytes(data, at) if at + 4 <= len(data) else 0
    header = length and _header(data, at, length)
    if not header or header[0] != _FRAMES_AND_BYTES:
        return False
    _, frames, count = header
    # The bytes of the header's own frame are counted by some writers.
    ends = (at + count, at + length + count)
    if size is not None:
        return frames > 0 and any(size - end in (0, _ID3V1_BYTES) for end in ends)
    return frames > 0 and any(_only_tags(data, end) for end in ends)


def _only_tags(data: Data, at: int) -> bool:
    """Whether nothing is from here on but an APE tag and an ID3v1 tag, or either."""
    if bytes(data[at : at + 8]) == b"APETAGEX" and at + 32 <= len(data):
        at += 32 + int(struct.unpack("<I", data[at + 12 : at + 16])[0])
    return at == len(data) or (at + _ID3V1_BYTES == len(data) and bytes(data[at : at + 3]) == b"TAG")


def scan(data: Data) -> list[MpegStream]:
    """The streams in a file, in order; none when it is not MPEG audio, or of a free bit rate.

    It may begin in the middle of a frame, as a stream that was cut at the front does.
    """
    streams: list[MpegStream] = []
    lengths, end = _lengths(), len(data)
    at = _tag_end(data, 0)
    # What begins in the middle of a frame has the next one near; anything else is no MPEG audio.
    found = _next(data, at, at + _LONGEST_FRAME)
    if found is None:
        return []
    at = found
    current, common = None, -1
    while at + 4 <= end:
        length = lengths[data[at + 1] << 8 | data[at + 2]] if data[at] == 0xFF else 0
        if not length or at + length > end:
            begin = _next(data, _tag_end(data, at), end)
            if begin is None:
                break
            at = begin
            continue
        # Version, layer and rate, and whether there is one channel, do not change within a stream.
        here = (data[at + 1] & 0xFE) << 16 | (data[at + 2] & 0x0C) << 8 | (data[at + 3] >> 6 == 3)
        claimed = _info(data, at, length) if data[at + 4 : at + 8] == b"\0\0\0\0" or here != common else None
        if current is None or here != common or claimed is not None:
            common = here
            current = MpegStream(kind_of(bytes(data[at : at + 4])), bytes(data[at : at + 4]), [(at, at)])
            streams.append(current)
        first, last = current.ranges[-1]
        if last == at:
            current.ranges[-1] = (first, at + length)
        else:
            current.ranges.append((at, at + length))
        at += length
        if claimed is None:
            current.frames += 1
        else:
            current.claimed, current.info_end = claimed or None, at
    return [stream for stream in streams if stream.frames]


def xing(stream: MpegStream) -> bytes:
    """A frame for the front of a Layer III stream that says how many frames follow."""
    header = stream.header
    first = bytes([0xFF, header[1] | 1, _XING_BIT_RATE << 4 | header[2] & 0x0C, header[3]])
    frame = bytearray(_frame_bytes(first, 0))
    frame[:4] = first
    struct.pack_into(">4sII", frame, 4 + stream.kind.side_bytes, b"Xing", 1, stream.frames)
    return bytes(frame)


def kind_of(header: bytes) -> Kind:
    """What a frame header says."""
    version = header[1] >> 3 & 3
    return Kind(version, 4 - (header[1] >> 1 & 3), _RATES[version][header[2] >> 2 & 3], header[3] >> 6 == 3)


def _info(data: Data, at: int, length: int) -> int | None:
    """Frames that a Xing, Info or VBRI header in this frame claims; 0 if it claims none, None if it is no such header.

    The decoder does not know VBRI, so what that claims does not count.
    """
    header = _header(data, at, length)
    if header is not None:
        return header[1]
    return 0 if bytes(data[at + 36 : at + 40]) == b"VBRI" else None


def _header(data: Data, at: int, length: int) -> tuple[int, int, int] | None:
    """Which numbers a Xing or Info header in this frame holds, the number of frames and that of bytes."""
    for side in (17, 32, 9):
        mark = at + 4 + side
        if bytes(data[mark : mark + 4]) in (b"Xing", b"Info") and mark + 16 <= min(at + length, len(data)):
            flags, frames, count = struct.unpack(">III", data[mark + 4 : mark + 16])
            return flags & 3, frames * (flags & 1), count
    return None


def _next(data: Data, at: int, most: int) -> int | None:
    """The next place, up to `most`, from which some frames of one kind follow one another or end the file."""
    for place in _syncs(data, at, most):
        here, frames = place, 0
        while frames < _SURE_FRAMES and here + 4 <= len(data):
            length = _frame_bytes(data, here)
            if not length or (data[here + 1] ^ data[place + 1]) & 0xFE or (data[here + 2] ^ data[place + 2]) & 0x0C:
                break
            here, frames = here + length, frames + 1
        ended = here == len(data) or (here > len(data) and frames > 1)
        if frames == _SURE_FRAMES or (frames and ended):
            return place
    return None


def _syncs(data: Data, at: int, most: int) -> Iterator[int]:
    most = min(most, len(data) - 3)
    while at < most:
        block = bytes(data[at : min(at + _BLOCK_BYTES, most)])
        place = block.find(0xFF)
        while place >= 0:
            yield at + place
            place = block.find(0xFF, place + 1)
        at += len(block)


def _tag_end(data: Data, at: int) -> int:
    """Where the ID3v2 tags end that begin here."""
    while bytes(data[at : at + 3]) == b"ID3" and at + 10 <= len(data):
        a, b, c, d = data[at + 6 : at + 10]
        at += 10 + (a << 21 | b << 14 | c << 7 | d) + 10 * bool(data[at + 5] & 0x10)
    return at


def _frame_bytes(data: Data, at: int) -> int:
    return _lengths()[data[at + 1] << 8 | data[at + 2]] if data[at] == 0xFF else 0


@functools.cache
def _lengths() -> list[int]:
    """Bytes of a frame by the second and third byte of its header; 0 where they are no header."""
    lengths = [0] * (1 << 16)
    for second in range(0xE0, 0x100):
        version, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
        if version == 1 or layer == 4:
            continue
        rates, kilobits = _RATES[version], _BIT_RATES[1 if version == 3 else 2, layer]
        for third in range(1 << 8):
            bits, rate, padding = third >> 4, third >> 2 & 3, third >> 1 & 1
            if not 0 < bits < 15 or rate == 3:
                continue
            per_slot = {1: 12, 2: 144, 3: 144 if version == 3 else 72}[layer]
            slots = per_slot * kilobits[bits - 1] * 1000 // rates[rate] + padding
            lengths[second << 8 | third] = slots * (4 if layer == 1 else 1)
    return lengths
