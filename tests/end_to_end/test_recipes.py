"""What a recipe of somebody else may do: be refused in one line. Asking for its options writes nothing."""

import re
from pathlib import Path

import pytest
from hostile import watched

from ssl_audio.cli import main
from ssl_audio.cli.recipes import read_recipe
from ssl_audio.cli.yaml_limits import load_yaml
from ssl_audio.errors import RecipeError

LAUGHS = "a: &a [ha, ha]\n" + "".join(
    f"{chr(letter)}: &{chr(letter)} [*{chr(letter - 1)}, *{chr(letter - 1)}]\n" for letter in range(ord("b"), ord("t"))
)
BAD = {
    "circle": ("data: &d\n  shards: [a]\n  more: *d\n", r"holds itself \(\*d\)"),
    "laughs": (LAUGHS, "of more than 50 levels or 100000 values"),
    "deep": ("a: " + "[" * 5000, "of more than 50 levels"),
    "blocks": ("- " * 3000 + "a", "of more than 50 levels"),
    "utf-16": ("seed_everything: 0\n".encode("utf-16"), "is no text in UTF-8"),
    "latin-1": (b"name: caf\xe9\n", "is no text in UTF-8 .*0xe9"),
    "zeros": (b"\0" * 100, "is no YAML"),
    "list": ("- 1\n- 2\n", "holds a list; expected options by name"),
    "word": ("just words\n", "holds a str; expected options by name"),
    "numbers": ("1: 2\n", "expected options by name"),
    "open": ("model: [", "is no YAML"),
    "tag": ("model: !!python/object/apply:os.system [touch ran]\n", "is no YAML"),
    "key": ("[1, [2]]: 3\n{a: 1}: 2\n", "cannot be read|is no YAML"),
    "large": ("a: " + "x" * 2**20, "expected a recipe of 1048576 at most"),
}


@pytest.mark.parametrize("name", BAD)
def test_yaml_that_is_no_recipe_is_one_line(tmp_path, name):
    text, line = BAD[name]
    path = tmp_path / f"{name}.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with watched(tmp_path) as seen, pytest.raises(RecipeError, match=rf"{name}.yaml: .*{line}") as caught:
        read_recipe(path)
    assert not seen
    assert "\n" not in str(caught.value)


def test_aliases_numbers_and_empty_recipes_are_read_as_before(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("\ufeffa: &a {rate: 1e-3, day: 2020-01-01}\nb: *a\n")
    assert read_recipe(path) == {"a": {"rate": 0.001, "day": "2020-01-01"}, "b": {"rate": 0.001, "day": "2020-01-01"}}
    path.write_text("# nothing\n")
    assert read_recipe(path) == {}
    assert load_yaml("[1, 2]") == [1, 2]


@pytest.mark.parametrize(
    ("verb", "text", "line"),
    [
        ("finetune", "data: 3\ncheckpoint: none\n", "data"),
        ("finetune", "data: {shards: {a: 1}}\nmodel: 5\ncheckpoint: none\n", "data|model"),
        ("finetune", "data: {shards: [gone]}\ndemo: ../../elsewhere\n", "is no name of a recipe that lies beside"),
        ("finetune", "checkpoint: [1]\nadaptation: x\n", "checkpoint|adaptation"),
        ("pretrain", "remote: commands\ndata: {shards: ['pipe:touch ran']}\n", "remote: commands stands in a recipe"),
        (
            "pretrain",
            "data: {shards: ['pipe:touch ran']}\nprobe: []\n",
            "is a command.*--remote commands",
        ),
    ],
)
def test_wrong_types_and_commands_are_one_line(tmp_path, monkeypatch, capsys, verb, text, line):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(text)
    base = ["--config", str(Path(__file__).parents[2] / "recipes/pretrain/demo.yaml")] if verb == "pretrain" else []
    with pytest.raises(SystemExit) as caught:
        main([verb, *base, "--config", "a.yaml"])
    printed = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code in (1, 2), printed
    assert len(printed) == 1, printed
    assert re.search(line, printed[0]), printed
    assert not Path("ran").exists()


def test_asking_for_the_options_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for verb, recipe in (("finetune", "finetune/demo_keyword"), ("pretrain", "pretrain/demo")):
        with pytest.raises(SystemExit) as caught:
            main([verb, "--config", str(Path(__file__).parents[2] / f"recipes/{recipe}.yaml"), "--print_config"])
        assert caught.value.code in (0, 1)
    assert not list(tmp_path.iterdir())
