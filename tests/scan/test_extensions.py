"""What is wrong with mamba-ssm's and causal-conv1d's extensions is one line; what was built is called as it wants."""

import importlib
import sys
import types

import pytest
from test_convolution import upstream_functions
from test_selective_scan import upstream_extension

from ssl_audio.cli.doctor import doctor
from ssl_audio.scan.extensions import CONVOLUTION, INSTALL, MAMBA

_T, _N = "torch.Tensor", "torch.Tensor | None"
BUILT = {
    name: f"{name}({', '.join(f'arg{place}: {kind}' for place, kind in enumerate(kinds))}) -> list[torch.Tensor]"
    for name, kinds in {
        "fwd": [*5 * [_T], *3 * [_N], "bool"],
        "bwd": [*5 * [_T], *3 * [_N], _T, *3 * [_N], "bool", "bool"],
    }.items()
}
"""What pybind11 says of the functions of mamba-ssm 2.3.2.post1, built against torch 2.11.0 for CUDA 13.0."""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Writes modules that can be imported, by name and text."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(**modules: str) -> None:
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()

    yield install
    for name in ("mamba_ssm", "selective_scan_cuda", "causal_conv1d", "causal_conv1d_cuda"):
        sys.modules.pop(name, None)


def test_half_installed_states_are_one_line_each(installed, capsys, monkeypatch):
    assert MAMBA.fault() == f"mamba-ssm is not installed; {INSTALL}"
    installed(mamba_ssm="")
    assert "without its CUDA kernels: selective_scan_cuda is missing" in MAMBA.fault()
    installed(selective_scan_cuda="raise ImportError('undefined symbol: _ZN3c10\\nand more')")
    fault = MAMBA.fault()
    assert "selective_scan_cuda does not load, so mamba-ssm was built for another torch" in fault
    assert "_ZN3c10" in fault
    assert "\n" not in fault
    monkeypatch.setattr("ssl_audio.scan.extensions.metadata.version", lambda name: "9.9")
    doctor()
    rows = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines() if " unusable " in line]
    assert [row[0] for row in rows] == ["mamba-ssm", "causal-conv1d"]
    installed(selective_scan_cuda="def fwd(u, delta): ...\n")
    assert "mamba-ssm 9.9: its function fwd takes 2 arguments, not 9" in MAMBA.fault()
    installed(causal_conv1d="import causal_conv1d_cuda")
    assert "causal-conv1d is installed without its CUDA kernels: causal_conv1d_cuda is missing" in CONVOLUTION.fault()


def test_the_stand_ins_of_the_tests_have_the_signatures_of_what_was_built(monkeypatch):
    built = types.ModuleType("selective_scan_cuda")
    for name, text in BUILT.items():
        # No signature can be read of a compiled function, only its text.
        function = type(name, (), {"__doc__": text, "__call__": lambda self: None, "__signature__": "none"})()
        setattr(built, name, function)
    for module in (built, upstream_extension()):
        monkeypatch.setitem(sys.modules, "selective_scan_cuda", module)
        assert MAMBA.fault() is None
    monkeypatch.setitem(sys.modules, "causal_conv1d", types.ModuleType("causal_conv1d"))
    monkeypatch.setitem(sys.modules, "causal_conv1d.cpp_functions", upstream_functions())
    assert CONVOLUTION.fault() is None
