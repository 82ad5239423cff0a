"""What a recipe of somebody else may do: be refused in one line. Asking for its options writes nothing."""

import contextlib
import itertools
import os
import re
from pathlib import Path

import pytest
from hostile import watched

from ssl_audio.checkpoints.checkpoint import Checkpoint
from ssl_audio.cli import main
from ssl_audio.cli.main import VERBS
from ssl_audio.errors import RecipeError
from ssl_audio.experiments import recipe_files
from ssl_audio.experiments.backbone_choice import changed, changes, check_changes, parsed
from ssl_audio.experiments.parsing import VerbParser
from ssl_audio.experiments.recipes import read_recipe, recipe_path, with_recipe_paths
from ssl_audio.experiments.yaml_limits import load_yaml

LAUGHS = "a: &a [ha, ha]\n" + "".join(
    f"{chr(letter)}: &{chr(letter)} [*{chr(letter - 1)}, *{chr(letter - 1)}]\n" for letter in range(ord("b"), ord("t"))
)
BAD = {
    "circle": ("data: &d\n  shards: [a]\n  more: *d\n", r"holds itself \(\*d\)"),
    "laughs": (LAUGHS, "of more than 50 levels or 100000 values"),
    "deep": ("a: " + "[" * 5000, "of more than 50 levels"),
    "blocks": ("- " * 3000 + "a", "of more than 50 levels"),
    "utf-16": ("seed_everything: 0\n".encode("utf-16"), "is not UTF-8 text"),
    "latin-1": (b"name: caf\xe9\n", "is not UTF-8 text .*0xe9"),
    "zeros": (b"\0" * 100, "is not valid YAML"),
    "list": ("- 1\n- 2\n", "holds a list; expected options by name"),
    "word": ("just words\n", "holds a str; expected options by name"),
    "numbers": ("1: 2\n", "expected options by name"),
    "open": ("model: [", "is not valid YAML"),
    "tag": ("model: !!python/object/apply:os.system [touch ran]\n", "is not valid YAML"),
    "key": ("[1, [2]]: 3\n{a: 1}: 2\n", "cannot be read|is not valid YAML"),
    "twice": ("data: {a: 1}\nmodel: {a: 1}\ndata: {b: 1}\n", "line 3: the key 'data' stands twice in one block"),
    "inner": ("a: {b: [1, {b: 1, b: 2}]}\n", "line 1: the key 'b' stands twice"),
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
    path.write_text("a: &a {x: a, a: x}\nb: &b [a, a]\nc: {<<: *a, x: b}\nd: *b\n")
    assert read_recipe(path)["c"] == {"x": "b", "a": "x"}
    path.write_text("# nothing\n")
    assert read_recipe(path) == {}
    assert load_yaml("[1, 2]") == [1, 2]


def test_names_on_the_command_line_are_kept_as_they_are():
    parser = VerbParser(prog="x")
    parser.add_argument("paths", nargs="+", type=Path)
    names = [os.fsdecode(b"caf\xe9.wav"), "song #3.wav", "a: b.wav", "0012/[x].wav", "null", "'q'.wav"]
    assert parser.parse_args(names).paths == [Path(name) for name in names]


@pytest.mark.parametrize(
    ("verb", "text", "line"),
    [
        ("finetune", "data: 3\ncheckpoint: none\n", "data"),
        ("finetune", "data: {shards: {a: 1}}\nmodel: 5\ncheckpoint: none\n", "data|model"),
        (
            "finetune",
            "data: {shards: [gone]}\ndemo: ../../elsewhere\n",
            "is not the name of a recipe in the same folder",
        ),
        ("finetune", "checkpoint: [1]\nadaptation: x\n", "checkpoint|adaptation"),
        ("pretrain", "remote: commands\ndata: {shards: ['pipe:touch ran']}\n", "remote: commands is set in a recipe"),
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


def test_the_options_of_a_fine_tuning_are_shown_with_its_backbone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = Path(__file__).parents[2] / "recipes/finetune/few.yaml"
    words = ["--model.backbone.position_start=noise"]
    with pytest.raises(SystemExit):
        main(["finetune", f"--config={recipe}", "--checkpoint=none", *words, "--print_config"])
    assert "position_start: noise" in capsys.readouterr().out


def test_null_is_null_in_an_object_within_an_object(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipes = [
        f"--config={Path(__file__).parents[2] / 'recipes/pretrain'}/{name}.yaml" for name in ("demo", "real_audio")
    ]
    with pytest.raises(SystemExit):
        main(["pretrain", *recipes, "--print_config", "--model.backbone.frontend.init_args.floor=null"])
    assert "floor: null" in capsys.readouterr().out


def test_a_list_of_objects_replaces_a_list_and_takes_nothing_from_it(tmp_path, monkeypatch, capsys):
    """Its objects begin at the defaults of their class, whatever another class had under the same names."""
    monkeypatch.chdir(tmp_path)
    words = ["--config", "adapters/pfeiffer_parallel", "--adapters", "[{class_path: LowRank, init_args: {rank: 2}}]"]
    probes = [Path(f"{name}.yaml") for name in "ab"]
    probes[0].write_text("probe: [{shards: one, targets: [event], protocol: fold}]\n")
    probes[1].write_text("probe: [{shards: two, targets: [event]}]\n")
    for call in (
        ["finetune", "--config=few", "--checkpoint=none", *words, "--print_config"],
        ["pretrain", "--config=demo", *(f"--config={path}" for path in probes), "--print_config"],
    ):
        with pytest.raises(SystemExit):
            main(call)
    shown = capsys.readouterr().out
    assert "rank: 2\n" in shown
    assert "reduction: null" in shown
    assert "- shards: two\n" in shown
    assert "protocol: fold" not in shown


def test_an_object_in_the_backbone_of_a_checkpoint_can_be_replaced_or_dropped():
    def spec(pattern):
        encoder = {"class_path": "ssl_audio.model.encoders.Transformer", "init_args": {"pattern": pattern}}
        options = {"frontend": {"class_path": "ssl_audio.audio.fbank.Fbank", "init_args": {}}, "encoder": encoder}
        return {"class_path": "ssl_audio.model.backbone.Backbone", "init_args": options}

    path = "ssl_audio.model.patterns."
    patterns = [None]
    patterns += [{"class_path": f"{path}FrequencyTime", "init_args": {"published": told}} for told in (False, True)]
    patterns += [{"class_path": f"{path}Window", "init_args": {"columns": 2, "bands": None}}]
    for had, wanted in itertools.product(patterns, repeat=2):
        asked = changes(parsed(spec(had)), parsed(spec(wanted)))
        assert bool(asked) == (had is not wanted)
        assert changed(spec(had), asked).init_args.encoder.init_args.pattern == (
            parsed(spec(wanted)).init_args.encoder.init_args.pattern
        )


def test_what_is_asked_of_the_encoder_of_a_checkpoint_is_said_as_what_it_is():
    """A pattern is no encoder: the Mamba itself says that it has no place for one."""
    encoder = {"class_path": "ssl_audio.model.encoders.BiMamba", "init_args": {"width": 16, "depth": 2}}
    options = {"frontend": {"class_path": "ssl_audio.audio.fbank.Fbank", "init_args": {}}, "encoder": encoder}
    spec = {"class_path": "ssl_audio.model.backbone.Backbone", "init_args": options}
    found = Checkpoint(Path("m.ckpt"), {"model": {"backbone": spec}}, {}, 0, "")
    inside = "init_args.encoder.init_args"
    check_changes({f"{inside}.pattern.class_path": (None, "ssl_audio.model.patterns.SameTime")}, found)
    for name, values, line in (
        ("init_args.encoder.class_path", ("a.BiMamba", "a.Transformer"), "holds a BiMamba, not a Transformer"),
        (f"{inside}.depth", (2, 3), "holds a BiMamba with depth 2, not 3"),
    ):
        with pytest.raises(RecipeError, match=line):
            check_changes({name: values}, found)


def test_recipes_are_found_here_then_in_the_package(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    packaged = recipe_files.PACKAGED
    encoder = "--model.backbone.encoder=recipes/encoders/bimamba_tiny.yaml"
    found = with_recipe_paths(["--config", "demo", "--config=adapters/lora", "--lr", "1", encoder], "pretrain")
    assert found == [
        "--config", str(packaged / "pretrain/demo.yaml"), "--config", str(packaged / "adapters/lora.yaml"), "--lr", "1",
        f"--model.backbone.encoder={packaged}/encoders/bimamba_tiny.yaml",
    ]  # fmt: skip
    assert recipe_path("recipes/cluster/gpu.yaml", "pretrain") == str(packaged / "cluster/gpu.yaml")
    main(["recipes", "copy", "pretrain/demo"])
    assert recipe_path("demo", "pretrain") == "recipes/pretrain/demo.yaml"
    assert Path("recipes/pretrain/demo.yaml").read_bytes() == (packaged / "pretrain/demo.yaml").read_bytes()
    Path("recipes/pretrain/mine.yaml").write_text("# Ours.\nseed_everything: 1\n")
    main(["recipes"])
    lines = capsys.readouterr().out.splitlines()
    assert any(re.fullmatch(r"  mine +\(recipes/pretrain/mine.yaml\) Ours\.", line) for line in lines)
    assert any(re.fullmatch(r"  ks2 +KS2: the 35 words.*", line) for line in lines)
    assert {"adapters", "encoders", "finetune", "pretrain", "shards"} <= set(lines)
    main(["recipes", "copy", "shards/esc50", "--out", "mine/esc.yaml"])
    assert Path("mine/esc.yaml").is_file()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("recipes copy ks3", "no recipe 'ks3'; did you mean 'ks2'"),
        ("recipes copy encoders/bimamba_tin", "did you mean 'encoders/bimamba_tiny'"),
        ("recipes copy esc50", "'esc50' is ambiguous: finetune/esc50, shards/esc50"),
        (
            "pretrain --config adapters/lora --config adapters/dora",
            "lora and adapters/dora: both list adapters",
        ),
        ("recipes copy ks2 --out kept.yaml", "kept.yaml: exists already and is not overwritten"),
        ("recipes copi ks2", "no action 'copi'; did you mean 'copy'"),
        ("pretrain --config adapters/lorra", "no such recipe; did you mean 'lora'"),
        ("finetune --config sed/tabel", "did you mean 'sed/table'"),
        ("compare --task ks2 --encoders=[bimamba_tinny]", "--encoders bimamba_tinny: no such recipe; did you mean"),
    ],
)
def test_mistakes_about_recipes_are_one_line(tmp_path, monkeypatch, capsys, words, line):
    monkeypatch.chdir(tmp_path)
    Path("kept.yaml").write_text("mine")
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    printed = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code == 2
    assert len(printed) == 1, printed
    assert line in printed[0]
    assert Path("kept.yaml").read_text() == "mine"


@pytest.mark.parametrize("text", ["[" * 100000, '{"verb": 1}', "[1]", "\\xff", '{"steps": 1, "seconds": "x"}'])
def test_a_summary_that_is_none_is_one_line(tmp_path, capsys, text):
    (tmp_path / "recipe.yaml").write_text("")
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(SystemExit):
        main(["inspect", str(tmp_path)])
    assert re.fullmatch(r"ssl-audio: .*summary.json: is no summary of a run \(\w+\);.*\n", capsys.readouterr().err)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_lists_its_options_and_does_nothing_without_any(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for words in ([verb, "--help"], [verb]):
        with contextlib.suppress(SystemExit):
            main(words)
        told = capsys.readouterr()
        if "--help" in words:
            assert f"usage: ssl-audio {verb}" in told.out
            # In plain words, on a terminal of 80 columns.
            assert not re.findall(r"<class|Optional\[|Union\[|Literal\[", told.out)
            assert not [line for line in told.out.splitlines() if len(line) > 80]
        elif told.err:
            assert re.fullmatch(r"ssl-audio: .*\n", told.err)
    assert not list(tmp_path.iterdir())


def test_a_wrong_option_is_told_before_the_demo_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["pretrain", "--config", "demo", "--trainer.max_steps", "many"])
    assert "--trainer.max_steps: expected a whole number, found many" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_recipe_comes_before_a_folder_of_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ks2").mkdir()
    with pytest.raises(SystemExit):
        main(["finetune", "--config", "ks2", "--checkpoint=none", "--print_config"])
    assert "target: keyword" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["pretrain", "--config", "./ks2"])
    assert "--config ./ks2: is a folder; expected a recipe" in capsys.readouterr().err
