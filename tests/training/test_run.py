"""What a run keeps of itself may be damaged."""

import pytest

from ssl_audio.errors import SslAudioError
from ssl_audio.training.run import Run


@pytest.mark.parametrize("content", [b'{"steps": 1', b"\xff\xfe\x00", b"[1]"])
@pytest.mark.parametrize("name", ["summary", "start"])
def test_a_damaged_file_of_a_run_is_one_line(tmp_path, name, content):
    assert Run(tmp_path).read(f"{name}.json") is None
    (tmp_path / f"{name}.json").write_bytes(content)
    with pytest.raises(SslAudioError, match=rf"{name}\.json: is no {name} of a run") as caught:
        Run(tmp_path).read(f"{name}.json")
    assert "\n" not in str(caught.value)
