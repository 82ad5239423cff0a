"""Compiling the CPU kernels, once per type of CPU, into a cache."""

import contextlib
import hashlib
import json
import logging
import os
import platform
import shutil
import subprocess
from pathlib import Path

import torch

from ssl_audio.errors import ScanError
from ssl_audio.locking import Lock
from ssl_audio.storing import aside, store, sweep

SOURCE = Path(__file__).with_name("kernels.cpp")
_FLAGS = [
    *("-std=c++17", "-O3", "-fPIC", "-shared", "-fopenmp", "-ffp-contract=fast", "-Wno-psabi"),
    *("-fno-math-errno", "-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros"),
]

_log = logging.getLogger(__name__)

VARIANTS = {"avx512": ("-march=native", 16), "avx2": ("-march=x86-64-v3", 8), "portable": ("", 4)}
"""Instruction set, by name: what the compiler is told, and the floats of a vector."""


def cache_folder() -> Path:
    """Where compiled code is kept: `SSL_AUDIO_CACHE`, or the user's cache."""
    chosen = os.environ.get("SSL_AUDIO_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "ssl_audio"


def variant() -> str:
    """The widest variant this CPU runs; `SSL_AUDIO_SCAN_VARIANT` overrides.

    Raises:
        ScanError: if the variable names none.
    """
    chosen = os.environ.get("SSL_AUDIO_SCAN_VARIANT")
    if chosen:
        if chosen not in VARIANTS:
            raise ScanError(f"SSL_AUDIO_SCAN_VARIANT={chosen}: no such variant; expected {', '.join(VARIANTS)}")
        return chosen
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if all(capabilities.get(name) for name in ("avx512_f", "avx512_dq", "avx512_bw", "avx512_vl")):
        return "avx512"
    return "avx2" if capabilities.get("avx2") and capabilities.get("fma3") else "portable"


def compiler() -> str | None:
    """The C++ compiler: `CXX`, or the first of the usual names; None if there is none."""
    return next(
        (path for name in (os.environ.get("CXX"), "g++", "clang++", "c++") if name and (path := shutil.which(name))),
        None,
    )


def library(name: str | None = None, *, cache: Path | None = None) -> Path:
    """The compiled kernels, built at first use, and again where they are damaged: one that is cut short would kill
    whoever loads it.

    Args:
        name: One of `VARIANTS`; None is the widest this CPU runs.
        cache: Where to keep them; None is `cache_folder`.

    Raises:
        ScanError: if there is no compiler, it fails, or the cache cannot be written to.
    """
    found = compiler()
    if found is None:
        raise ScanError("no C++ compiler found (g++, clang++ or CXX); install one, for example Debian's g++")
    name = name or variant()
    instructions, lanes = VARIANTS[name]
    command = [found, *_FLAGS, *instructions.split(), f"-DLANES={lanes}"]
    folder = (cache or cache_folder()) / "scan"
    target = folder / f"{name}-{_key(command)}.so"
    if _is_whole(target):
        return target
    try:
        with Lock(target, waiting=True):
            sweep(folder, target.name)
            if not _is_whole(target):
                if target.exists():
                    _log.warning("%s is damaged, or nothing says that it is whole; compiling it again", target)
                _compile(command, target)
    except OSError as error:
        raise ScanError(
            f"cannot write compiled kernels to {folder} ({error.strerror}); "
            "point SSL_AUDIO_CACHE to a folder that can be written to"
        ) from error
    return target


def _record(target: Path) -> Path:
    """What is beside a compiled library: its size and its SHA-256."""
    return target.with_suffix(".json")


def _described(file: Path) -> dict[str, int | str]:
    content = file.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _is_whole(target: Path) -> bool:
    try:
        return bool(json.loads(_record(target).read_text(encoding="utf-8")) == _described(target))
    except (OSError, ValueError):
        return False


def _key(command: list[str]) -> str:
    """Differs with the source, the command, the compiler and what the CPU can do."""
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True).stdout
    parts = [SOURCE.read_text(encoding="utf-8"), " ".join(command), version, platform.machine(), _features()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _features() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return " ".join(sorted(line.split(":", 1)[1].split()))
    return platform.processor()


def _compile(command: list[str], target: Path) -> None:
    with aside(target) as hidden:
        words = [*command, str(SOURCE), "-o", str(hidden)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired as error:
            raise ScanError(f"{Path(command[0]).name} did not finish {SOURCE.name} in five minutes") from error
        if done.returncode:
            reason = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[-200:])
            raise ScanError(f"{Path(command[0]).name} could not compile {SOURCE.name}: {reason}")
        store(_record(target), json.dumps(_described(hidden)))
