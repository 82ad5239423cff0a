"""What a person sees of the Mamba encoder: the flag, the doctor, the benchmarks, and their mistakes."""

import json
from pathlib import Path

import pytest
import torch

from ssl_audio.checkpoints.checkpoint import load_checkpoint
from ssl_audio.cli import main
from ssl_audio.evaluation.encoder_benchmark import Setting, crossover, measure_setting
from ssl_audio.model.encoders import BiMamba

ROOT = Path(__file__).parents[2]


def test_the_encoder_is_swapped_by_one_flag_and_nothing_else(tmp_path, demo_shards, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    recipe = ROOT / "recipes/pretrain/demo.yaml"
    words = ["--data.workers=0", "--data.batch_clips=8", "--probe=[]", f"--data.shards=[{demo_shards}]"]
    words += ["--trainer.max_steps=3", "--model.backbone.encoder=BiMamba", "--model.backbone.encoder.width=32"]
    main(["pretrain", "--config", str(recipe), *words, "--model.backbone.encoder.depth=2", "--name=mamba"])
    found = load_checkpoint(tmp_path / "runs/pretrain/mamba/0/checkpoints/last.ckpt")
    backbone = found.backbone()
    assert isinstance(backbone.encoder, BiMamba)
    untrained = found.untrained().state_dict()
    moved = [name for name, value in backbone.state_dict().items() if not torch.equal(value, untrained[name])]
    assert {"encoder.blocks.1.mixer.transform.back.A_log", "embedding.weight"} <= set(moved)


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
@pytest.mark.parametrize("repaired", [False, True])
def test_published_and_repaired_recipes_describe_what_they_say(size, repaired, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = ["pretrain", "--config", f"ssamba_{size}"]
    words += ["--config", "repaired", "--config", "repaired_mamba"] if repaired else []
    with pytest.raises(SystemExit):
        main([*words, "--print_config"])
    printed = capsys.readouterr().out
    for quirk in ("paired_flips", "second_final_norm", "zeroed_backward_dt_bias"):
        assert f"{quirk}: {'false' if repaired else 'true'}" in printed
    width = {"tiny": 192, "small": 384, "base": 768}[size]
    assert f"width: {width}\n" in printed
    assert "depth: 24" in printed


def test_doctor_tests_every_backend_and_says_what_is_missing(capsys):
    main(["doctor"])
    printed = capsys.readouterr().out
    lines = {tuple(line.split()[:2]): line for line in printed.splitlines() if line.startswith("  cpu ")}
    assert "works: off by at most" in lines["cpu", "torch"]
    assert "not used: for CUDA devices" in lines["cpu", "cuda"]
    assert "scans on cpu use:" in printed
    assert "MAMBA_KEEP_CUDA_BUILD=TRUE" in printed


def test_bench_scan_prints_ratios(tmp_path, capsys):
    out = tmp_path / "scan.json"
    main(["bench", "scan", "--shapes", "[2x40]", "--channels", "32", "--rounds", "2", "--out", str(out)])
    figures = json.loads(out.read_text())["2x40"]
    assert figures["loop"]["both"]["times_loop"] == 1.0
    assert figures["torch"]["forward"]["milliseconds"] > 0
    shares = [row["both"].get("share_of_bound") for name, row in figures.items() if name.startswith("cpu")]
    assert all(0 < share < 1 for share in shares)
    with pytest.raises(SystemExit):
        main(["bench", "scan", "--shapes", "[8by512]"])
    assert "'8by512' is no shape; expected rows x tokens" in capsys.readouterr().err


def test_bench_encoders_measures_each_in_its_own_process(drawn, tmp_path, capsys):
    out, picture = tmp_path / "encoders.json", tmp_path / "encoders.png"
    words = ["--tokens", "[64]", "--contenders", "[bimamba]", "--modes", "[inference]"]
    main(["bench", "encoders", *words, "--out", str(out), "--picture", str(picture)])
    cost = json.loads(out.read_text())["inference"]["bimamba"]["64"]
    assert cost["failure"] is None
    assert cost["seconds"] > 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit):
        main(["bench", "encoders", "--contenders", "[mamba]"])
    assert "no encoder 'mamba'; expected some of transformer, bimamba, naive" in capsys.readouterr().err


def test_scores_that_would_not_fit_are_not_tried():
    setting = {"width": 768, "clips": 8, "training": True, "precision": "fp32", "device": "cpu"}
    assert measure_setting(Setting(contender="naive", tokens=65536, **setting)).failure == "would not fit"


def test_the_crossover_lies_between_the_lengths_around_it():
    lengths = [512, 1024, 2048, 4096]
    assert crossover(lengths, [1, 4, 16, 64], [8, 16, 32, 64.0001]) is None
    assert crossover(lengths, [1, 4, 16, 64], [4, 8, 16 / 2, 32]) == pytest.approx(2**0.5 * 1024, rel=0.01)
    assert crossover(lengths, [2, 4, 8, 16], [1, 2, 4, 8]) == 512
