"""A member of a tar as a file of its own."""

import io
from collections.abc import Callable

from ssl_audio.errors import ShardError


class Member(io.RawIOBase):
    """A member of a tar as a file of its own.

    A failure to read is kept in `failure` and looks like the end of the file: decoders in C cannot hand it on.

    Args:
        read: Gives so many bytes from an offset of the tar on.
        offset: Where the member begins.
        size: Its length in bytes.
    """

    def __init__(self, read: Callable[[int, int], bytes], offset: int, size: int) -> None:
        super().__init__()
        self._bytes = read
        self._offset = offset
        self.size = size
        self._place = 0
        self.failure: ShardError | None = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + (0, self._place, self.size)[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        wanted = max(0, min(len(buffer), self.size - self._place))
        try:
            buffer[:wanted] = self._bytes(self._offset + self._place, wanted)
        except ShardError as error:
            self.failure = error
            return 0
        self._place += wanted
        return wanted
