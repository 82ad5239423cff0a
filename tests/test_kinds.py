"""What a file is by its first bytes."""

import os
import struct
from pathlib import Path

import pytest

from ssl_audio.kinds import kind_of, kind_of_file


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "empty"),
        (b"\0" * 512, "zeros"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"/annex/objects/SHA256E-s1", "git annex get"),
        (b"\n <!DOCTYPE html><html>", "HTML"),
        (b"\xef\xbb\xbf<html lang=en>", "HTML"),
        (b'<?xml version="1.0"?><!DOCTYPE html><html>', "HTML"),
        (b'<?xml version="1.0"?><Error><Code>NoSuchKey', "XML"),
        (b'{"error": "not found"}', "JSON"),
        (b"a: 1\n", "text that begins with 'a: 1"),
        (b"caf\xe9", "text that begins with"),
        (b"x" * 257 + b"ustar\0", "a tar file"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"PK\x03\x04", "zip"),
        (b"\x80\x02}", "pickle"),
        (struct.pack("<Q", 40) + b'{"__metadata__"', "safetensors"),
        (b"RIFF\0\0\0\0WAVEfmt ", "WAV"),
        (b"RF64\xff\xff\xff\xffWAVE", "WAV"),
        (b"fLaC\0", "FLAC"),
        (b"\xff\xfb\x90", "MP3"),
        (b"\0\0\0\x20ftypM4A ", "M4A"),
        (b"\x1a\x45\xdf\xa3", "WebM"),
        (b"\x00\x05\x16\x07\0\2", "AppleDouble"),
        (b"\x01\x02\x03\x04", "unknown kind"),
    ],
)
def test_the_first_bytes_name_the_kind(head: bytes, words: str) -> None:
    assert words in kind_of(head)


def test_of_a_path_folders_and_pipes_are_named_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"<html>")
    assert kind_of_file(tmp_path) == "a folder"
    assert kind_of_file(tmp_path / "pipe") == "a device or a pipe"
    assert "HTML" in kind_of_file(tmp_path / "file")
