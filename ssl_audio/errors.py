"""The errors a person can do something about.

Every message says what was found, what was expected and what to do, in one line. The command line
prints the message alone and exits with `exit_code`; anything else that escapes is our bug and keeps
its traceback.
"""

from ssl_audio.names import printable


class SslAudioError(Exception):
    """A failure with one clear line for the person who meets it."""

    exit_code = 1


class Ended(BaseException):
    """This process was told to end. Nothing on the way to the command line handles it: whoever tries one file after
    another, or says what is wrong with a checkpoint, must not take it for a damaged file.
    """

    exit_code = 130


class RecipeError(SslAudioError, ValueError):
    """A recipe or an option asks for something that cannot be."""

    exit_code = 2


class AudioError(SslAudioError):
    """An audio file or member cannot be decoded, is empty or is too short."""


class ShardError(SslAudioError):
    """Shards, a manifest or a corpus are missing, damaged or not what they claim."""


class LayoutError(SslAudioError):
    """Tokens have no layout of the kind asked for, such as a (band, time) grid."""


class CheckpointError(SslAudioError):
    """A checkpoint cannot be read or does not fit. Whatever the message quotes of the file, it is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class ScanError(SslAudioError):
    """A way of computing the selective scan cannot be used here."""


def own_cause(error: BaseException | None) -> SslAudioError | None:
    """The error of ours that another one was raised from or beside, or that it is; None if there is none."""
    while error is not None and not isinstance(error, SslAudioError):
        error = error.__cause__ or error.__context__
    return error
