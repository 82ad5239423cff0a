"""What a file is by its first bytes, for messages about a file that is not what its name says."""

from pathlib import Path

HEAD_BYTES = 512
"""So many first bytes tell every kind that is known here."""

_LFS = "a Git LFS pointer, not the file itself (fetch it with `git lfs pull`)"
_ANNEX = "a git-annex pointer, not the file itself (fetch it with `git annex get`)"
_HTML = "an HTML page, perhaps a server's answer in place of the file (download it again)"
_XML = "an XML document, perhaps a server's answer in place of the file (download it again)"

# (offset, bytes there, what it is); the first that fits counts.
_KINDS = (
    (0, b"version https://git-lfs.github.com/", _LFS),
    (0, b"/annex/objects/", _ANNEX),
    (0, b"\x00\x05\x16\x07", "an AppleDouble companion file of macOS, which holds no data of its own"),
    (0, b"fLaC", "FLAC audio"),
    (0, b"OggS", "Ogg audio"),
    (8, b"WAVE", "WAV audio"),
    (0, b"riff\x2e\x91\xcf\x11", "W64 audio"),
    (8, b"AIF", "AIFF audio"),
    (0, b".snd", "AU audio"),
    (0, b"caff", "CAF audio"),
    (0, b"ID3", "MP3 audio"),
    (4, b"ftyp", "MP4 or M4A audio or video"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM audio or video"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA audio or WMV video"),
    (257, b"ustar", "a tar file"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"PK\x03\x04", "a zip file (as torch.save and numpy.savez write)"),
    (0, b"PK\x05\x06", "an empty zip file"),
    (0, b"BZh", "a bzip2 file"),
    (0, b"\xfd7zXZ\x00", "an xz file"),
    (0, b"\x28\xb5\x2f\xfd", "a zstandard file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z file"),
    (0, b"Rar!", "a RAR file"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"\x93NUMPY", "a NumPy file"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"%PDF", "a PDF file"),
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"\x7fELF", "a program (ELF)"),
    (8, b'{"', "a safetensors file"),
    (8, b"{ ", "a safetensors file"),
)
_MP3_FRAMES = (0xFA, 0xFB, 0xF2, 0xF3, 0xE2, 0xE3)
_PICKLE_PROTOCOLS = range(2, 6)


def kind_of(head: bytes) -> str:
    """What a file is, in words that follow "is": "an HTML page ...", "a tar file", "text that begins with 'abc'".

    Nothing is decoded or opened; only well-known first bytes are compared.

    Args:
        head: The first `HEAD_BYTES` bytes of the file, or all of a shorter one.
    """
    if not head:
        return "empty"
    for offset, mark, kind in _KINDS:
        if head[offset : offset + len(mark)] == mark:
            return kind
    if not head.strip(b"\0"):
        return "nothing but zeros, as an unfinished copy or download leaves"
    if head[0] == 0xFF and len(head) > 1 and head[1] in _MP3_FRAMES:
        return "MP3 audio"
    if head[0] == 0x80 and len(head) > 1 and head[1] in _PICKLE_PROTOCOLS:
        return "a Python pickle"
    return _text(head) or f"of an unknown kind (it begins with {head[:12]!r})"


def kind_of_file(path: Path) -> str:
    """What a file is, as `kind_of` says it; "a folder" or "a device or a pipe" where it is no regular file.

    Raises:
        OSError: if it is missing or may not be read.
    """
    if path.is_dir():
        return "a folder"
    if path.exists() and not path.is_file():
        return "a device or a pipe"
    with path.open("rb") as file:
        return kind_of(file.read(HEAD_BYTES))


def _text(head: bytes) -> str | None:
    """What text it is, if it is text: bytes above 127 are counted as letters of some encoding."""
    plain = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    start = plain[:64].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<!-- saved from")):
        return _HTML
    if start.startswith(b"<?xml") or start.startswith(b"<error"):
        return _HTML if b"<html" in plain.lower() else _XML
    if any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head):
        return None
    if start.startswith((b"{", b"[")):
        return "JSON text"
    return f"text that begins with {head[:24].decode('utf-8', errors='backslashreplace')!r}"
