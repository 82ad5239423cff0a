"""A run that is killed with SIGKILL and goes on is, to the bit, the run that was left alone."""

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


def test_two_ranks_go_on_to_the_bit(demo_shards, tmp_path):
    call = words(demo_shards, "transformer", "--name=run", "--model.objective.negatives=all", ranks=2)
    finished(Launched(call, tmp_path / "whole", ranks=2))
    cut = Launched([*call, "--data.workers=1"], tmp_path / "cut", ranks=2)
    cut.until(tmp_path / "cut" / STEP.format(6))
    cut.kill()
    finished(Launched(call, tmp_path / "cut", ranks=2))
    assert same(outcome(tmp_path / "whole" / RUN), outcome(tmp_path / "cut" / RUN))
