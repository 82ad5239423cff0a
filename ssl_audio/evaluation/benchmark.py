"""Speed as ratios: alternatives timed in turn in one run, so that whatever else the machine does hits all of them."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import nn

from ssl_audio.audio.fbank import Fbank
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.evaluation.reference_step import ReferenceStep
from ssl_audio.model.backbone import Backbone, fit_frames
from ssl_audio.model.encoders import BiMamba, Encoder, Transformer
from ssl_audio.objectives.masked_patches import MaskedPatches
from ssl_audio.objectives.masking import ClusterMasking, PublishedMasking
from ssl_audio.scan.flops import FlopCounterMode

Work = Callable[[], object]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a piece of work takes.

    Args:
        seconds: Median over the rounds.
        spread: Half the distance between the quartiles, over the median.
        cpu_seconds: Median of the time that this process spent on CPUs, which does not count what else they do.
    """

    seconds: float
    spread: float
    cpu_seconds: float


def interleaved(
    works: Mapping[str, Work], *, rounds: int, device: torch.device, most_seconds: float = math.inf
) -> dict[str, Timing]:
    """Time each piece of work once a round, in turn, after one warm-up each.

    Args:
        works: Pieces of work by name.
        rounds: How often each is timed.
        device: Where.
        most_seconds: After which no further round begins; one is always timed.
    """
    began = time.monotonic()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    spent: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        if turn > 1 and (time.monotonic() - began) * (turn + 1) / turn > most_seconds:
            break
        for name, work in works.items():
            _wait(device)
            start, start_cpu = time.perf_counter(), time.process_time()
            work()
            _wait(device)
            if turn:
                seconds[name].append(time.perf_counter() - start)
                spent[name].append(time.process_time() - start_cpu)
    return {name: _summary(values, spent[name]) for name, values in seconds.items()}


def _summary(values: list[float], spent: list[float]) -> Timing:
    median = statistics.median(values)
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (median, median, median)
    return Timing(seconds=median, spread=(high - low) / 2 / median, cpu_seconds=statistics.median(spent))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Step:
    """One training step on a fixed batch of waveforms: features, losses, gradients, update.

    Args:
        name: What it is called.
        module: What is trained.
        loss: Loss of a batch of waveforms.
        precision: Type that matrix products are computed in.
        device: Where.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        loss: Callable[[torch.Tensor], torch.Tensor],
        *,
        precision: torch.dtype,
        device: torch.device,
    ) -> None:
        self.name = name
        self.module = module
        self.loss = loss
        self.precision = precision
        self.device = device
        self.optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5, fused=True)

    def __call__(self, waveforms: torch.Tensor) -> float:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
            loss = self.loss(waveforms)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def flops(self, waveforms: torch.Tensor) -> int:
        """Floating-point operations of the matrix products of a step, forward and backward."""
        counter = FlopCounterMode(display=False)
        with counter:
            self(waveforms)
        return counter.get_total_flops()


def training_steps(
    *, kind: str, width: int, depth: int, heads: int, device: torch.device, compiled: bool = False
) -> list[Step]:
    """The reference, which computes as the published code does; ours: `published` twice, `default` and `dropped`.

    Args:
        kind: `transformer`, or `bimamba`, which has twice as many blocks and no reference.
        width: Channels.
        depth: Blocks of the Transformer.
        heads: Its heads.
        device: Where.
        compiled: Also `dropped-compiled`, whose blocks torch compiles.
    """
    torch.manual_seed(0)
    fbank = Fbank(pad_value="published").to(device)

    def encoder() -> Encoder:
        if kind == "bimamba":
            return BiMamba(width=width, depth=2 * depth)
        return Transformer(width=width, depth=depth, heads=heads)

    steps = []
    if kind == "transformer":
        reference = ReferenceStep(width=width, depth=depth, heads=heads).to(device)
        steps.append(
            Step(
                "reference",
                reference,
                lambda waveforms: reference(fit_frames(fbank(waveforms), 1024).values),
                precision=torch.float32,
                device=device,
            )
        )

    def published() -> MaskedPatches:
        return MaskedPatches(masking=PublishedMasking(400), direction="published", forwards="separate")

    def dropped() -> MaskedPatches:
        return MaskedPatches(masking=ClusterMasking(400), decoder=Transformer(width=128, depth=2, heads=2))

    ours = [
        ("published", published(), torch.float32),
        ("published-bf16", published(), torch.bfloat16),
        ("default", MaskedPatches(masking=ClusterMasking(400)), torch.bfloat16),
        ("dropped", dropped(), torch.bfloat16),
        *([("dropped-compiled", dropped(), torch.bfloat16)] if compiled else []),
    ]
    for name, objective, precision in ours:
        backbone = Backbone(frontend=fbank, encoder=encoder(), class_tokens=2, fixed_frames=1024)
        objective.attach(backbone, Facts())
        if name.endswith("compiled"):
            for each in filter(None, (backbone.encoder, objective.decoder)):
                for block in each.blocks:
                    block.compile()
        steps.append(_our_step(name, backbone, objective, precision, device))
    return steps


def _our_step(
    name: str, backbone: Backbone, objective: MaskedPatches, precision: torch.dtype, device: torch.device
) -> Step:
    module = nn.ModuleDict({"backbone": backbone, "objective": objective}).to(device)

    def loss(waveforms: torch.Tensor) -> torch.Tensor:
        clips = torch.arange(len(waveforms), device=device)
        batch = Batch(waveforms, None, clips, clips, tuple(map(str, range(len(waveforms)))))
        return objective(backbone, batch, backbone.spectrogram(waveforms))["loss"]

    return Step(name, module, loss, precision=precision, device=device)


def product_rate(precision: torch.dtype, *, width: int, tokens: int, device: torch.device, repeats: int = 30) -> float:
    """Floating-point operations a second of the model's own largest matrix product, run alone: the bound of a step."""
    a = torch.randn(tokens, width, device=device).to(precision)
    b = torch.randn(width, 4 * width, device=device).to(precision)
    best, began = float("inf"), time.perf_counter()
    for _ in range(repeats):
        if time.perf_counter() - began > 1.0:  # bf16 on a processor that has none
            break
        _wait(device)
        start = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * tokens * width * 4 * width / best
