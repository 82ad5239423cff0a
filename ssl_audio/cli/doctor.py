"""`ssl-audio doctor`: what this machine has, what is missing, and how to get it."""

import platform
from importlib import metadata

import torch

from ssl_audio import __version__
from ssl_audio.cli.parser import call
from ssl_audio.cli.results import add_result
from ssl_audio.errors import ScanError
from ssl_audio.scan import build, choice, cuda_convolution
from ssl_audio.scan.choice import BACKENDS, PREFERENCE, TOLERANCE, VARIABLE
from ssl_audio.scan.extensions import CONVOLUTION, INSTALL, MAMBA
from ssl_audio.training.precision import default_precision

PACKAGES = {
    "torch": "",
    "torchaudio": "",
    "lightning": "",
    "webdataset": "",
    "soundfile": "",
    "triton": "scans on GPUs without a CUDA toolchain; comes with torch on Linux",
    "mamba-ssm": f"the fastest scan on CUDA GPUs: {INSTALL}",
    "causal-conv1d": "comes with mamba-ssm",
    "av": "reads m4a, webm and what else needs FFmpeg: pip install 'ssl_audio[ffmpeg]'",
    "espeakng-loader": "speaks the demo corpus: pip install 'ssl_audio[demo]'",
    "wandb": "",
}
"""Packages worth knowing of, and what for when they are missing."""


def run(words: list[str]) -> None:
    """Parse and call `doctor`."""
    call(doctor, words, prog="ssl-audio doctor")


def doctor() -> None:
    """Say what this machine has: devices, versions, and which scan backends work, each tested on the spot."""
    print(f"ssl_audio {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}\n")
    devices, packages, chosen = _devices(), _packages(), {}
    for line in devices:
        print(line)
    print("\npackages")
    for name, version, advice in packages:
        print(f"  {name:<16} {version:<11} {advice}".rstrip())
    kinds = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    rows = [row for kind in kinds for row in _backends(kind)]
    print("\nselective scan, tested against float64")
    for kind, name, state in rows:
        print(f"  {kind:<5} {name:<7} {state}")
    print()
    for kind in kinds:
        try:
            chosen[kind] = choice.choose("auto", kind, torch.float32)
            print(f"scans on {kind} use: {chosen[kind]}")
        except ScanError as error:
            print(f"scans on {kind}: {error}")
    if "cuda" in kinds:
        refused = cuda_convolution.refusal(16, 4, "cuda", torch.float32)
        print(f"convolutions on cuda use: {'causal-conv1d' if refused is None else f'torch ({refused})'}")
    add_result(
        {
            "versions": {"ssl_audio": __version__, "python": platform.python_version()},
            "devices": dict(line.split(maxsplit=1) for line in devices),
            "packages": {name: {"version": version, "advice": advice} for name, version, advice in packages},
            "scans": [{"device": kind, "backend": name, "state": state} for kind, name, state in rows],
            "chosen": chosen,
        }
    )
    print(f"{VARIABLE} chooses another; compiled kernels are kept in {build.cache_folder()}")


def _devices() -> list[str]:
    lines = [
        f"cpu     {_processor()}, {torch.get_num_threads()} threads, kernels for {build.variant()}, "
        f"trains in {default_precision('cpu')}"
    ]
    for number in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(number)
        lines.append(
            f"cuda:{number}  {found.name}, {found.total_memory / 2**30:.0f} GiB, trains in {default_precision('cuda')}"
        )
    if not torch.cuda.is_available():
        lines.append("cuda    none found; everything here runs without one, more slowly")
    lines.append(f"C++     {build.compiler() or 'no compiler found: install one for fast scans, such as g++'}")
    return lines


def _processor() -> str:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return str(capabilities.get("cpu_name") or platform.processor() or platform.machine())


def _packages() -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    for name, advice in PACKAGES.items():
        try:
            rows.append((name, metadata.version(name), ""))
        except metadata.PackageNotFoundError:
            rows.append((name, "missing", advice))
    for extension in (MAMBA, CONVOLUTION):
        fault = extension.fault()
        if fault is not None and extension.version() is not None:
            rows.append((extension.package, "unusable", fault))
    return rows


def _backends(device_type: str) -> list[tuple[str, str, str]]:
    device = torch.device(device_type)
    rows: list[tuple[str, str, str]] = []
    for name, backend in BACKENDS.items():
        if name == "reference":
            continue
        reason = choice.refusal(name, device_type, torch.float32)
        if reason is not None:
            state = reason
        else:
            kinds = [kind for kind in TOLERANCE if backend.unfit(device, kind) is None]
            errors = {kind: choice.self_test(backend, device, kind) for kind in kinds}
            state = "works: off by at most " + ", ".join(
                f"{error:.0e} in {str(kind).removeprefix('torch.')}" for kind, error in errors.items()
            )
        if name in PREFERENCE.get(device_type, ()) or not reason:
            rows.append((device_type, name, state))
        elif device_type == "cpu":
            rows.append((device_type, name, f"not used: {state}"))
    return rows
