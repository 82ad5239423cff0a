"""Which backend computes the scan: the fastest that runs here and gives the right numbers."""

import dataclasses
import functools
import logging
import os

import torch
from torch import Tensor

from ssl_audio.errors import ScanError
from ssl_audio.scan.backend import Backend, Gradients, Scan
from ssl_audio.scan.cpu import Cpu
from ssl_audio.scan.cuda import Cuda
from ssl_audio.scan.eager import Eager
from ssl_audio.scan.reference import Reference, reference_scan
from ssl_audio.scan.triton import Triton

log = logging.getLogger("ssl_audio.scan")

BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (Reference(), Eager(), Cpu(), Cuda(), Triton())}
"""By name. The hardware chooses among them, so this is a registry."""

PREFERENCE = {"cpu": ("cpu", "torch"), "cuda": ("cuda", "triton", "torch")}
"""Backends by type of device, the fastest first."""

VARIABLE = "SSL_AUDIO_SCAN"
NO_STATE = "its kernels take no state to go on from, which a stream needs"
TOLERANCE = {torch.float32: 2e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}
"""Largest error over the largest value that the self-test puts up with, by type."""


def choose(wanted: str, device_type: str, dtype: torch.dtype, *, proceeding: bool = False) -> str:
    """The name of the backend for such tensors; found out once and logged with its reason.

    Args:
        wanted: A backend's name, or `auto`. `SSL_AUDIO_SCAN` overrides `auto`.
        device_type: As `torch.device.type`.
        dtype: Of u.
        proceeding: It must be able to go on from a state.

    Raises:
        ScanError: if a backend was asked for by name and cannot be used, or there is none of that name.
    """
    asked = wanted if wanted != "auto" else os.environ.get(VARIABLE, "auto") or "auto"
    return _choose(asked, device_type, dtype, proceeding)


# What torch.compiler.assume_constant_result does, without torch._dynamo, which takes longer to import than torch.
choose._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def _choose(asked: str, device_type: str, dtype: torch.dtype, proceeding: bool = False) -> str:
    device = torch.device(device_type)
    if asked != "auto":
        if asked not in BACKENDS:
            raise ScanError(f"no scan backend {asked!r}; expected auto, {', '.join(BACKENDS)}")
        reason = refusal(asked, device_type, dtype)
        if reason is None and proceeding and not BACKENDS[asked].proceeds:
            reason = NO_STATE
        if reason is not None:
            raise ScanError(f"scan backend {asked}: {reason}; choose another with {VARIABLE}, or auto")
        log.info("selective scan on %s in %s: %s, as asked", device_type, dtype, asked)
        return asked
    passed_over: list[str] = []
    for name in PREFERENCE.get(device_type, ("torch",)):
        reason = refusal(name, device_type, dtype)
        if reason is None and proceeding and not BACKENDS[name].proceeds:
            passed_over.append(f"{name}: {NO_STATE}")
            continue
        if reason is None:
            log.info("selective scan on %s in %s: %s%s", device_type, dtype, name, _because(passed_over))
            return name
        passed_over.append(f"{name}: {reason}")
        if dtype != torch.float64:  # which only the plain ones compute, and only for oracles
            log.warning("selective scan on %s: not by %s", device, passed_over[-1])
    return "torch"


def _because(passed_over: list[str]) -> str:
    return f" (not {'; not '.join(passed_over)})" if passed_over else ""


@functools.cache
def refusal(name: str, device_type: str, dtype: torch.dtype) -> str | None:
    """Why a backend may not be used for such tensors, its self-test included; None if it may."""
    backend, device = BACKENDS[name], torch.device(device_type)
    reason = backend.unfit(device, dtype)
    if reason is not None or not backend.compiled:
        return reason
    try:
        # The first use may lie in inference mode or under autocast; the oracle needs neither. Within a block whose
        # activations are recomputed, what the test keeps must not be counted as the block's.
        apart = torch.autograd.graph.saved_tensors_hooks(lambda kept: kept, lambda kept: kept)
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device_type, enabled=False), apart:
            error = self_test(backend, device, dtype)
    except Exception as failure:
        return f"its self-test failed ({type(failure).__name__}: {str(failure)[:200]})"
    if not error < TOLERANCE[dtype]:
        return f"REFUSED: its self-test is off by {error:.1e} of the largest value, not {TOLERANCE[dtype]:.0e}"
    return None


def self_test(backend: Backend, device: torch.device, dtype: torch.dtype) -> float:
    """Largest error of outputs and gradients over the largest value, against the reference in float64.

    Both directions, two groups, a border, odd sizes, more than one chunk; and in two stretches, if it can go on.
    """
    worst = 0.0
    for forward_groups, border in ((1, True), (2, False)):
        scan, dy = _example(device, dtype, forward_groups=forward_groups, border=border)
        oracle = _in_float64(scan)
        y, saved = backend.forward(scan, save=True)
        pairs = [(y, reference_scan(oracle))]
        gradients = backend.backward(scan, saved, dy)
        expected = BACKENDS["reference"].backward(oracle, saved, dy.double())
        pairs += [(a, b) for a, b in zip(gradients, expected, strict=True) if a is not None and b is not None]
        if backend.proceeds and forward_groups == scan.groups:
            pairs.append((_in_two_stretches(backend, scan), pairs[0][1]))
        for ours, theirs in pairs:
            worst = max(worst, float((ours.double() - theirs).abs().max() / theirs.abs().max()))
    return worst


def _in_two_stretches(backend: Backend, scan: Scan) -> Tensor:
    state = scan.u.new_zeros((len(scan.u), *scan.A.shape), dtype=scan.wide)
    outputs = []
    for stretch in (slice(0, 20), slice(20, None)):
        part = {name: getattr(scan, name)[:, stretch] for name in ("u", "dt", "B", "C")}
        y, state = backend.proceed(dataclasses.replace(scan, **part), state)
        outputs.append(y)
    return torch.cat(outputs, dim=1)


def _example(device: torch.device, dtype: torch.dtype, *, forward_groups: int, border: bool) -> tuple[Scan, Tensor]:
    rows, length, channels, groups, states = 1, 45, 24, 2, 16
    draws = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draws).to(device)

    scan = Scan(
        u=normal(rows, length, channels).to(dtype),
        dt=(0.5 * normal(rows, length, channels)).to(dtype),
        A=-torch.exp(normal(channels, states)),
        B=normal(rows, length, groups, states).to(dtype),
        C=normal(rows, length, groups, states).to(dtype),
        D=normal(channels),
        bias=normal(channels) - 3.0,
        border=(normal(rows, length) > 1.7) if border else None,
        softplus=True,
        forward_groups=forward_groups,
    )
    return scan, normal(rows, length, channels).to(dtype)


def _in_float64(scan: Scan) -> Scan:
    fields = {name: getattr(scan, name) for name in Scan.__slots__}
    fields |= {name: fields[name].double() for name in Gradients._fields if fields[name] is not None}
    return Scan(**fields)
