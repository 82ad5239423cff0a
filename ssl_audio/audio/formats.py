"""Which audio files can be read, by the ending of their name and by what libsndfile calls them."""

AUDIO_ENDINGS = (
    *("flac", "wav", "ogg", "opus", "mp3"),
    *("oga", "aiff", "aif", "aifc", "au", "snd", "caf", "w64", "rf64", "wave", "bwf", "mp2", "mp1", "mpga", "sph"),
    *("nist", "voc", "avr", "htk", "iff", "8svx", "svx", "sf", "ircam", "paf", "pvf", "sds", "wve"),
)
"""Of files that libsndfile decodes. Of a clip with several audio members the first of these counts."""

FFMPEG_ENDINGS = (
    *("m4a", "aac", "mp4", "m4b", "m4r", "wma", "webm", "weba", "mka", "mkv", "mov", "3gp", "amr", "ac3", "eac3"),
    *("dts", "ape", "wv", "tta", "tak", "mpc", "spx", "ra", "dsf", "avi"),
)
"""Of files with sound that only FFmpeg decodes."""

FORMATS = frozenset(
    (
        *("WAV", "WAVEX", "RF64", "W64", "NIST", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3"),
        *("VOC", "AVR", "HTK", "SVX", "IRCAM", "PAF", "PVF", "SDS", "WVE"),
    )
)
"""libsndfile's names of the formats that are read."""

EXPECTED = "expected wav, flac, ogg, opus, mp3 or another format that libsndfile reads"


def ending_of(name: str) -> str:
    """What stands behind the last dot of a file's name, in small letters; nothing where there is none."""
    return name.rsplit("/", 1)[-1].rpartition(".")[2].lower() if "." in name else ""
