"""Compiled kernels in the cache: whole, or compiled again before anybody loads them."""

from pathlib import Path

import pytest

from ssl_audio.errors import ScanError
from ssl_audio.scan import build


@pytest.fixture
def compiler(tmp_path, monkeypatch) -> Path:
    """A stand-in that writes a library of 4 kB and a line for each call."""
    script = tmp_path / "c++"
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit\nfor out; do :; done\necho >> {tmp_path}/calls\n')
    with script.open("a") as file:
        file.write("head -c 4096 /dev/zero | tr '\\\\0' k > \"$out\"\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    return tmp_path / "calls"


def test_a_damaged_library_is_compiled_again_before_it_is_loaded(compiler, tmp_path, caplog):
    def calls() -> int:
        return compiler.read_text().count("\n")

    path = build.library("portable", cache=tmp_path)
    whole, record = path.read_bytes(), path.with_suffix(".json")
    assert len(whole) == 4096
    assert build.library("portable", cache=tmp_path) == path
    assert calls() == 1
    damages = [
        lambda: path.write_bytes(whole[:1000]),
        lambda: path.write_bytes(b"x" + whole[1:]),
        lambda: path.write_bytes(b""),
        lambda: record.write_text('{"bytes"'),
        record.unlink,
    ]
    for number, damage in enumerate(damages):
        damage()
        caplog.clear()
        assert build.library("portable", cache=tmp_path).read_bytes() == whole
        assert "is damaged, or nothing says that it is whole; compiling it again" in caplog.text
        assert calls() == 2 + number
    path.unlink()
    # What a process that was killed while compiling left is taken away.
    (path.parent / f".{path.name}.0123.part").touch()
    build.library("portable", cache=tmp_path)
    assert {found.name for found in path.parent.iterdir()} == {path.name, record.name}
    (tmp_path / "file").touch()
    with pytest.raises(ScanError, match="point SSL_AUDIO_CACHE to a folder that can be written to"):
        build.library("portable", cache=tmp_path / "file")
