"""Compiled runs: the same as others to rounding, no code for each length, and to the bit when killed.

    python tests/soak/compiled.py [transformer|bimamba]

It takes minutes, most of them in the compiler.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults import tell_recompilations
from killing import ENCODERS, Launched, outcome, same, words
from kills import write_demo

_VARIANTS = 8
"""Of a block's code: encoder and decoder, with mask and without, with gradients and without."""
_STEP = "runs/pretrain/run/0/checkpoints/step-{:08d}.ckpt"
_VARYING = ("--data.crop_seconds=null", "--data.batch_seconds=12", "--data.global_clips=null", "--data.cover=false")


def main() -> None:
    """Both encoders, on crops and on whole clips of any length."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        shards = write_demo(root)
        for encoder in sys.argv[1:] or ENCODERS:
            call = words(shards, encoder, "--name=run", "--model.compile=true")
            whole = _finished(call, root / encoder / "whole")
            cut = Launched(call, root / encoder / "cut")
            cut.until(root / encoder / "cut" / _STEP.format(6), seconds=600.0)
            cut.kill()
            killed = _finished(call, root / encoder / "cut")
            assert same(outcome(whole[0]), outcome(killed[0])), encoder
            # The compiler draws other numbers for stochastic depth.
            still = ["--model.backbone.encoder.init_args.drop_path=0"] if encoder == "bimamba" else []
            varying = words(shards, encoder, "--name=run", *_VARYING, *still, steps=24)
            plain = outcome(_finished(varying, root / encoder / "plain")[0])
            compiled, times = _finished([*varying, "--model.compile=true"], root / encoder / "compiled")
            apart = max(
                abs(value - other[key]) / max(abs(value), 1e-3)
                for (_, one), (_, other) in zip(plain[1], outcome(compiled)[1], strict=True)
                for key, value in one.items()
                if key.endswith("loss")
            )
            assert plain[0].keys() == outcome(compiled)[0].keys(), "names of weights"
            assert apart < 1e-4, apart
            assert times < _VARIANTS, times
            print(
                f"{encoder}: killed and compiled, equal to the bit; 24 batches of any length, {times} recompilations, "
                f"losses {apart:.0e} from those of a run that is not compiled",
                flush=True,
            )


def _finished(call: list[str], folder: Path) -> tuple[Path, int]:
    """Where a run is that came to its end, and how often something was compiled again."""
    launched = Launched(call, folder, fault=tell_recompilations)
    if launched.wait(900.0) != [0]:
        raise SystemExit(launched.log.read_text()[-3000:])
    return folder / "runs/pretrain/run/0", launched.log.read_text().count("Recompiling function")


if __name__ == "__main__":
    main()
