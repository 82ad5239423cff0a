"""A run that is killed with SIGKILL and goes on is, to the bit, the run that was left alone."""

import re

import pytest
import torch
from killing import Launched, outcome, same, task_words, words

STEP = "runs/pretrain/run/0/checkpoints/step-{:08d}.ckpt"
RUN = "runs/pretrain/run/0"


def finished(launched: Launched) -> None:
    codes = launched.wait()
    assert codes == [0] * len(codes), launched.log.read_text()[-3000:]


def test_killed_runs_go_on_to_the_bit(demo_shards, tmp_path):
    # Every killed run reads with other workers than the one that was left alone. The soak tries both encoders with all
    # numbers of ranks, threads and workers.
    for encoder, ranks, threads, kill in (("transformer", 1, 2, 6), ("bimamba", 2, 1, 9)):
        root = tmp_path / encoder
        call = words(demo_shards, encoder, "--name=run", "--model.objective.negatives=all", ranks=ranks)
        finished(Launched(call, root / "whole", ranks=ranks, threads=threads))
        launched = Launched([*call, "--data.workers=1"], root / "cut", ranks=ranks, threads=threads)
        launched.until(root / "cut" / STEP.format(kill))
        launched.kill()
        finished(Launched([*call, "--data.workers=2"], root / "cut", ranks=ranks, threads=threads))
        assert same(outcome(root / "whole" / RUN), outcome(root / "cut" / RUN)), (encoder, ranks, threads)


def test_a_killed_finetuning_of_two_ranks_goes_on_to_the_bit(demo_shards, tmp_path):
    # One rank that stops in the middle of a step: tests/end_to_end/test_finetune.py.
    call = task_words(demo_shards, "bimamba", "--name=run", ranks=2)
    finished(Launched(call, tmp_path / "whole", ranks=2))
    launched = Launched([*call, "--data.workers=1"], tmp_path / "cut", ranks=2)
    launched.until(tmp_path / "cut" / STEP.format(6).replace("pretrain", "finetune"))
    launched.kill()
    finished(Launched([*call, "--data.workers=2"], tmp_path / "cut", ranks=2))
    run = RUN.replace("pretrain", "finetune")
    assert same(outcome(tmp_path / "whole" / run), outcome(tmp_path / "cut" / run))
    for name in ("predictions.parquet", "outcome.json"):
        one, other = (strip(tmp_path / each / run / name) for each in ("whole", "cut"))
        assert one == other, name


def test_a_finetuning_in_shards_is_that_of_one_rank_to_rounding(demo_shards, tmp_path):
    # Mixing takes partners, and batch norm statistics, from the batch of a rank.
    options = (
        "--name=run", "--model.augmentation.mixup=0", "--model.head.norm=layer", "--model.optimizer=torch.optim.SGD",
        "--model.optimizer.init_args={lr: 0.01, momentum: 0.9}", "--trainer.gradient_clip_val=1",
    )  # fmt: skip
    finished(Launched(task_words(demo_shards, "transformer", *options), tmp_path / "whole"))
    sharded = ("--trainer.strategy=fsdp", "--model.recompute=true")
    call = task_words(demo_shards, "transformer", *options, *sharded, ranks=2)
    cut = Launched(call, tmp_path / "cut", ranks=2)
    cut.until(tmp_path / "cut" / STEP.format(6).replace("pretrain", "finetune"))
    cut.kill()
    finished(Launched(call, tmp_path / "cut", ranks=2))
    run = RUN.replace("pretrain", "finetune")
    (weights, rows, _), (other_weights, other_rows, _) = (
        outcome(tmp_path / "whole" / run),
        outcome(tmp_path / "cut" / run),
    )
    assert [step for step, _ in rows] == [step for step, _ in other_rows]
    for (_, one), (_, other) in zip(rows, other_rows, strict=True):
        assert other == pytest.approx(one, rel=5e-6)
    for name, value in weights.items():
        torch.testing.assert_close(other_weights[name], value, rtol=0, atol=5e-6)


def strip(path):
    """What a run leaves, without how long it took."""
    return re.sub(rb'"(seconds|clips_per_second)": [\d.]+', b"", path.read_bytes())


def test_another_number_of_ranks_goes_on_with_the_same_clips_to_rounding(demo_shards, tmp_path):
    # Plain gradient descent: Adam divides by roots of squares, and so makes a rate of a rounding near zero.
    options = (
        "--name=run", "--model.objective.negatives=all", "--data.validation_split=null",
        "--trainer.val_check_interval=null", "--model.optimizer=torch.optim.SGD",
        "--model.optimizer.init_args={lr: 0.01, momentum: 0.9, fused: false}", "--trainer.gradient_clip_val=1",
    )  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finished(Launched(words(demo_shards, "transformer", *options), whole))
    for ranks, step in ((2, 3), (1, 6)):
        launched = Launched(words(demo_shards, "transformer", *options, ranks=ranks), cut, ranks=ranks)
        launched.until(cut / STEP.format(step))
        launched.kill()
    # And at last with weights in shards, and activations computed twice.
    sharded = words(demo_shards, "transformer", *options, "--trainer.strategy=fsdp", "--model.recompute=true", ranks=2)
    finished(Launched(sharded, cut, ranks=2))
    (weights, rows, optimizer), (other_weights, other_rows, other_optimizer) = outcome(whole / RUN), outcome(cut / RUN)
    assert [step for step, _ in rows] == [step for step, _ in other_rows] == list(range(12))
    # Twelve steps measured 5e-7 apart, four roundings of float32; another clip or mask moves a loss by a hundredth.
    for (_, one), (_, other) in zip(rows, other_rows, strict=True):
        assert other == pytest.approx(one, rel=5e-6)
    for name, value in weights.items():
        torch.testing.assert_close(other_weights[name], value, rtol=0, atol=5e-6)
    # Under the same numbers too, which sharding does not keep by itself.
    torch.testing.assert_close(other_optimizer[0]["state"], optimizer[0]["state"], rtol=0, atol=5e-6)
