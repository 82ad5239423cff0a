"""A run that is killed with SIGKILL and goes on is, to the bit, the run that was left alone."""

import torch
from killing import Launched, outcome, same, words

STEP = "runs/pretrain/run/0/checkpoints/step-{:08d}.ckpt"
RUN = "runs/pretrain/run/0"


def finished(launched: Launched) -> None:
    codes = launched.wait()
    assert codes == [0] * len(codes), launched.log.read_text()[-3000:]


def test_killed_runs_go_on_to_the_bit(demo_shards, tmp_path):
    # Every killed run reads with other workers than the one that was left alone.
    for encoder, kills in (("transformer", (3, 9)), ("bimamba", (6,))):
        whole, cut = tmp_path / encoder / "whole", tmp_path / encoder / "cut"
        finished(Launched(words(demo_shards, encoder, "--name=run"), whole))
        for number, step in enumerate(kills):
            launched = Launched(words(demo_shards, encoder, "--name=run", f"--data.workers={1 + number}"), cut)
            launched.until(cut / STEP.format(step))
            launched.kill()
        finished(Launched(words(demo_shards, encoder, "--name=run", "--data.workers=2"), cut))
        assert same(outcome(whole / RUN), outcome(cut / RUN)), encoder


def test_two_ranks_are_one_to_rounding_and_go_on_to_the_bit(demo_shards, tmp_path):
    alike = [
        "--name=run", "--model.views=null", "--model.objective.sketch_weight=0", "--model.objective.negatives=all",
        "--model.optimizer={class_path: torch.optim.SGD, init_args: {lr: 0.05}}", "--data.validation_split=null",
        # Every clip fills its crop: the mean over the ranks' clips is then the mean over all of them.
        "--data.crop_seconds=0.295",
        "--model.schedule=ssl_audio.training.optimisation.Constant", "--checkpoints.keep=9",
    ]  # fmt: skip

    def call(ranks, *options):
        return [
            word
            for word in words(demo_shards, "transformer", *alike, *options, ranks=ranks)
            if not word.startswith(
                ("--model.schedule.init_args", "--trainer.val_check", "--data.validation_split=valid")
            )
        ]

    finished(Launched(call(1), tmp_path / "one"))
    finished(Launched(call(2), tmp_path / "two", ranks=2))
    cut = Launched(call(2, "--data.workers=1"), tmp_path / "cut", ranks=2)
    cut.until(tmp_path / "cut" / STEP.format(6))
    cut.kill()
    finished(Launched(call(2), tmp_path / "cut", ranks=2))
    assert same(outcome(tmp_path / "two" / RUN), outcome(tmp_path / "cut" / RUN))
    # After three steps; rounding grows with more of them.
    one, two = (
        torch.load(tmp_path / name / STEP.format(3), weights_only=True)["state_dict"] for name in ("one", "two")
    )
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=2e-5)
    # On one rank instead of two, the run goes on with the same clips and the same global batch.
    fewer = Launched(call(2), tmp_path / "fewer", ranks=2)
    fewer.until(tmp_path / "fewer" / STEP.format(6))
    fewer.kill()
    finished(Launched(call(1), tmp_path / "fewer"))
    for name, value in outcome(tmp_path / "fewer" / RUN)[0].items():
        torch.testing.assert_close(value, outcome(tmp_path / "one" / RUN)[0][name], rtol=1e-2, atol=1e-3)
