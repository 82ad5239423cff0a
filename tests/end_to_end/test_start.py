"""What a verb imports before it has anything to do: the time of a start, without a clock."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from ssl_audio.scan.choice import choose

ROOT = Path(__file__).parents[2]
CODE = """
import contextlib, io, sys
from ssl_audio.cli import main

def imported_by(words, names):
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main(words.split())
    assert printed.getvalue(), words
    found = names & set(sys.modules)
    assert not found, f"{words} imports {found}"

# Each takes from a third of a second to more than torch itself.
heavy = {"torch._dynamo", "sympy", "torch.distributed.fsdp", "torchvision", "transformers", "scipy", "sklearn"}
heavy |= {"matplotlib", "wandb", "webdataset"}
imported_by("--help", {*heavy, "lightning", "torchmetrics", "torch", "numpy", "jsonargparse", "yaml"})
imported_by("embed --help", {*heavy, "lightning", "torchmetrics"})
imported_by("pretrain --config demo --print_config", heavy)
imported_by("finetune --config demo_keyword --checkpoint none --print_config", heavy)

# What opens a checkpoint: a model without memory, to look at its sizes, and one that computes.
import torch
from ssl_audio.audio.fbank import Fbank
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Transformer
for kind, sizes, names in ((Transformer, {"heads": 2}, heavy), (BiMamba, {}, {"torch._dynamo"})):
    with torch.device("meta"):
        Backbone(frontend=Fbank(), encoder=kind(width=16, depth=1, **sizes), position_frames=64)
    with torch.inference_mode():
        Backbone(frontend=Fbank(), encoder=kind(width=16, depth=1, **sizes), position_frames=64)(torch.zeros(1, 9000))
    assert not names & set(sys.modules), names & set(sys.modules)

# Lightning asks for the class of compiled modules, which a stand-in answers for.
from lightning.fabric.wrappers import OptimizedModule
assert OptimizedModule.__module__ == "ssl_audio.cli.imports"
linear = torch.nn.Linear(1, 1)
assert not isinstance(linear, OptimizedModule)
assert isinstance(torch.compile(linear), OptimizedModule)
"""


def test_a_start_imports_nothing_that_it_does_not_use():
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr


def test_the_choice_of_a_scan_is_marked_as_torch_marks_constants():
    def other() -> None: ...

    assert vars(torch.compiler.assume_constant_result(other)).items() <= vars(choose).items()
