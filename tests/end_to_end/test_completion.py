"""The script that completes verbs, options and choices, asked as bash asks it."""

import shutil
import subprocess

import pytest

from ssl_audio.cli import completion
from ssl_audio.cli.main import main


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
def test_bash_completes_verbs_options_and_choices(monkeypatch, capsys):
    monkeypatch.setattr(completion, "_calls", lambda: [("export",), ("shards", "show"), ("pretrain",), ("finetune",)])
    monkeypatch.setattr(completion, "_options", lambda words: OPTIONS.get(words) or real(words))
    main(["completion", "bash"])
    script = capsys.readouterr().out
    for words, found in (
        ("ex", "export"),
        ("export --fo", "--format"),
        ("export --format h", "huggingface"),
        ("export --checkpoint x.ckpt --int8 t", "true"),
        ("shards s", "show"),
        ("shards show --cl", "--clips"),
        ("pretrain --config ssast_tiny_p", "ssast_tiny_patch"),
        ("export sounds/", ""),
    ):
        asked = f"COMP_WORDS=(ssl-audio {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))"
        asked += "; _ssl_audio; echo ${COMPREPLY[@]}"
        shown = subprocess.run(["bash", "-c", f"{script}\n{asked}"], capture_output=True, text=True, check=True)
        assert shown.stdout.strip() == found, words


real = completion._options
OPTIONS = {(verb,): {"--config": []} for verb in ("pretrain", "finetune")}  # whose help takes a second each
