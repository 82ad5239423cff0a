"""Whatever stands in an adapter checkpoint or in a folder of peft's: it opens, or one line says what is wrong."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import LORA, base_at, trained_at
from hostile import little_room, places, values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_audio.checkpoints.opening import open_checkpoint
from ssl_audio.checkpoints.peft_writing import write_peft
from ssl_audio.errors import SslAudioError

PLAIN = st.sampled_from(
    [None, True, 0, -1, 10**400, 1e300, float("nan"), "", "x", "(a+)+$", [], [[]], {}, {"": 1}, {"a": {}}]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    trained_at(root / "lora.ckpt", base_at(root / "base.ckpt"), [LORA], frames=64)
    write_peft(open_checkpoint(root / "lora.ckpt"), root / "peft")
    return root


def changed(data: st.DataObject, whole: Any, instead: st.SearchStrategy[Any]) -> Any:
    """The same with one value replaced or taken away."""
    found = copy.deepcopy(whole)
    *owners, name = data.draw(st.sampled_from(list(places(found))))
    owner = found
    for one in owners:
        owner = owner[one]
    if data.draw(st.booleans()) or isinstance(owner, list):
        owner[name] = data.draw(instead)
    else:
        del owner[name]
    return found


def opens(path: Path, base: Path) -> None:
    line = ""
    with little_room():
        try:
            open_checkpoint(path, base=base).backbone()
        except SslAudioError as error:
            line = str(error)
    assert "\n" not in line
    assert len(line) < 1500
    assert not list((path.parent / "outside").glob("*"))


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_tampered_adapter_opens_or_is_one_line(folder, data):
    whole = torch.load(folder / "lora.ckpt", weights_only=True)
    part = data.draw(st.sampled_from(["base", "recipe", "whole"]))
    if part == "whole":
        whole = changed(data, whole, values(folder / "outside"))
    else:
        whole["ssl_audio"][part] = changed(data, whole["ssl_audio"][part], values(folder / "outside"))
    try:
        torch.save(whole, folder / "x.ckpt")
    except RecursionError:  # what is too deep to write cannot be read either
        return
    opens(folder / "x.ckpt", folder / "base.ckpt")


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_tampered_options_of_peft_are_read_or_one_line(folder, data):
    file = folder / "peft/adapter_config.json"
    whole = file.read_text()
    file.write_text(json.dumps(changed(data, json.loads(whole), PLAIN)))
    try:
        opens(folder / "peft", folder / "base.ckpt")
    finally:
        file.write_text(whole)
