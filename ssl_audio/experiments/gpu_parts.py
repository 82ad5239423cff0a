"""What is measured on a GPU, in order of value: each part is one command line that anybody could type."""

import dataclasses
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import ssl_audio

GPU_TESTS = Path(ssl_audio.__file__).parents[1] / "tests" / "gpu"

_SIZES: dict[str, tuple[list[str], list[str]]] = {
    "scan": (
        ["--shapes=[8x512,64x512,1x4096,1x32768]", "--channels=1536"],
        ["--shapes=[1x32]", "--channels=32", "--rounds=1"],
    ),
    "encoders": (
        ["--tokens=[512,1024,2048,4096,8192,16384,22000,32768]", "--precision=bf16"],
        ["--size=mini", "--tokens=[64]", "--modes=[inference]"],
    ),
    "step": (
        ["--size=base", "--clips=64", "--compiled=true"],
        ["--size=mini", "--clips=1", "--rounds=1"],
    ),
    "fbank": (["--clips=128"], ["--clips=2", "--seconds=1", "--rounds=1"]),
    "packing": (
        ["--size=base", "--clips=256", "--batch_clips=64", "--room=8192"],
        ["--size=mini", "--clips=2", "--batch_clips=2", "--room=256", "--rounds=1", "--modes=[inference]"],
    ),
    "merging": (["--merge=40", "--modes=[inference]"], ["--merge=4"]),
}
"""Options of the benchmarks: in earnest, and to try the code."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One measurement in a process of its own.

    Args:
        name: Of its files, and in the page.
        title: What it shows.
        weight: Its share of the time beside those of the others.
        words: Of the command line; `{json}`, `{runs}`, `{minutes}`, `{time}` and `{demo}` are filled in.
        missing: Why it cannot run here, or None.
    """

    name: str
    title: str
    weight: float
    words: tuple[str, ...]
    missing: str | None = None


def parts(*, device: str, shards: Sequence[Path], rehearsal: bool) -> list[Part]:
    """The parts, the most valuable first.

    Args:
        device: `cuda` or `cpu`.
        shards: Folders to pretrain from; the demo corpus where there are none.
        rehearsal: The smallest sizes of everything, to try the code.
    """
    found = f"[{','.join(map(str, shards))}]" if shards else "[{demo}]"
    trainer = {"trainer.accelerator": "gpu" if device == "cuda" else "cpu", "trainer.devices": "1"}

    def ours(*words: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "ssl_audio", *words)

    def bench(name: str, *more: str, sizes: Sequence[str] = ()) -> tuple[str, ...]:
        chosen = [word for size in (name, *sizes) for word in _SIZES[size][int(rehearsal)]]
        return ours("bench", name, *chosen, *more, f"--device={device}", "--out={json}")

    def slice_of(*recipes: str, small: str) -> tuple[str, ...]:
        given = {**trainer, "data.workers": "0" if rehearsal else "2"}
        if rehearsal:
            given["model.backbone.encoder"] = f"recipes/encoders/{small}.yaml"
        options = ", ".join(f"{name}: {value}" for name, value in given.items())
        return ours(
            "bench", "pretraining", f"--config=[{','.join(recipes)}]", f"--shards={found}",
            "--minutes={minutes}", f"--batch_clips={8 if rehearsal else 128}", f"--options={{{{{options}}}}}",
            "--runs={runs}", f"--name={recipes[0]}", "--out={json}",
        )  # fmt: skip

    pytest = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs", "--tb=short", str(GPU_TESTS))
    small = ["--probe=[]", "--data.batch_clips=8", "--data.workers=0"]
    checkpoint = ours(
        "pretrain", "--config=demo", f"--data.shards={found}", "--trainer.max_steps=-1", "--trainer.max_time={time}",
        *(f"--{name}={value}" for name, value in trainer.items()), "--runs={runs}", "--name=checkpoint",
        *(small if rehearsal else [] if shards else ["--probe.shards={demo}"]),
    )  # fmt: skip
    described: list[tuple[str, str, float, tuple[str, ...]]] = [
        ("tests", "scans, encoders, packing, precision, compiling and resuming on this device", 4.0, pytest),
        ("scan", "the selective scan's backends; both directions in one launch and in two", 2.0, bench("scan")),
        (
            "encoders",
            "encoders by length, beside attention with scores written out",
            4.0,
            bench("encoders", "--contenders=[transformer,bimamba,naive]"),
        ),
        ("step", "a training step of the Transformer, switch by switch", 1.5, bench("step")),
        ("step_mamba", "a training step of the Mamba, switch by switch", 1.5, bench("step", "--encoder=bimamba")),
        (
            "pretraining",
            "a slice of SSAST's pretraining, repaired",
            2.5,
            slice_of("ssast_base_patch", "repaired", small="transformer_demo"),
        ),
        (
            "pretraining_mamba",
            "a slice of SSAMBA's pretraining, repaired",
            2.5,
            slice_of("ssamba_base", "repaired", "repaired_mamba", small="bimamba_demo"),
        ),
        ("fbank", "log-mel spectrograms beside torchaudio's", 0.5, bench("fbank")),
        ("packing", "packed rows beside padded ones", 1.0, bench("packing")),
        (
            "merging",
            "encoders that merge 40 tokens in a block",
            1.0,
            bench("encoders", f"--contenders=[{'bimamba' if rehearsal else 'transformer,bimamba'}]", sizes=["merging"]),
        ),
        (
            "patterns",
            "frequency-time attention beside all pairs",
            1.0,
            bench("encoders", f"--contenders=[{'' if rehearsal else 'transformer,'}frequency_time]"),
        ),
        ("checkpoint", "a small checkpoint in the time that is left, and its probe", 2.0, checkpoint),
    ]
    found_parts = [Part(name=name, title=title, weight=weight, words=words) for name, title, weight, words in described]
    if not GPU_TESTS.is_dir() or importlib.util.find_spec("pytest") is None:
        reason = "pytest is not installed" if GPU_TESTS.is_dir() else "the tests are in the checkout, not in the wheel"
        found_parts[0] = dataclasses.replace(found_parts[0], missing=reason)
    return found_parts
