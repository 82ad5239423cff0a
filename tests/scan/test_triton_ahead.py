"""The Triton kernels compile for the GPUs that people have, on a machine without one."""

import json
import subprocess
import sys

import pytest

COMPILE = """
import dataclasses, json
from ssl_audio.scan.triton_ahead import compile_ahead
found = compile_ahead() + compile_ahead([90], half=True)
print(json.dumps([dataclasses.asdict(one) for one in found]))
"""


def test_kernels_compile_for_gpus_that_are_not_there():
    """In a process of its own, without the shape checker, which Triton cannot read."""
    pytest.importorskip("triton")
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {(one["architecture"], one["kernel"]) for one in found} == {
        (architecture, kernel) for architecture in (80, 90, 100) for kernel in ("forward_kernel", "backward_kernel")
    }
    for one in found:
        assert one["spilled_bytes"] == 0, one
        assert 16 <= one["registers"] <= 255, one
        assert one["shared_bytes"] <= 48 * 1024, one
