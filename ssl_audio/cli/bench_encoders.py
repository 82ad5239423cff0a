"""`ssl-audio bench encoders`: time and memory of the encoders at growing length."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any, Literal

from jsonargparse.typing import NonNegativeInt, PositiveInt

from ssl_audio.cli.bench import SIZES, device_named
from ssl_audio.cli.results import add_figures
from ssl_audio.errors import RecipeError
from ssl_audio.evaluation.encoder_benchmark import CONTENDERS, Measurement, Setting, crossover, measure_setting
from ssl_audio.evaluation.report import ReportTable
from ssl_audio.experiments.output_files import write_bytes
from ssl_audio.experiments.progress import bar

LENGTHS = [512, 1024, 2048, 4096, 8192, 16384, 32768]
Costs = dict[str, dict[int, Measurement]]


def encoders(
    size: Literal["mini", "tiny", "small", "base"] = "tiny",
    tokens: list[PositiveInt] = LENGTHS,
    clips: PositiveInt = 1,
    contenders: list[str] = ["transformer", "bimamba"],  # noqa: B006
    modes: list[Literal["inference", "training"]] = ["inference", "training"],  # noqa: B006
    precision: Literal["fp32", "bf16"] = "fp32",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    merge: NonNegativeInt = 0,
    out: Path | None = None,
    picture: Path | None = None,
) -> None:
    """Time and peak memory of encoders of one width as clips grow longer, each measured in a process of its own.

    Args:
        size: Width: mini 64, tiny 192, small 384, base 768; depth as published, 12 blocks of a Transformer and 24 of
            a Mamba.
        tokens: Lengths.
        clips: Clips of the batch.
        contenders: Among transformer, bimamba, naive (attention scores written out), frequency_time (the attention
            pattern on 8 bands) and frequency_time_table (the same with a table of all pairs).
        modes: Among inference and training (a forward and a backward pass).
        precision: fp32, or bf16 for matrix products.
        device: auto, cpu or cuda.
        merge: Tokens that each clip loses in a block that merges; `naive` merges none.
        out: Also write the figures to this JSON file.
        picture: Also draw them into this PNG file.
    """
    unknown = [name for name in contenders if name not in CONTENDERS]
    if unknown:
        raise RecipeError(f"--contenders: no encoder {unknown[0]!r}; expected some of {', '.join(CONTENDERS)}")
    where = device_named(device)
    width = SIZES[size][0]
    figures: dict[str, Any] = {}
    pictured: dict[str, dict[str, dict[int, tuple[float, float]]]] = {}
    for mode in modes:
        found = _measure(
            Setting(
                contender="",
                width=width,
                tokens=0,
                clips=clips,
                training=mode == "training",
                precision=precision,
                device=where.type,
                merge=merge,
            ),
            contenders,
            sorted(tokens),
        )
        merged = f", {merge} tokens merged in a block" if merge else ""
        caption = f"{mode}, width {width}, batch {clips}, {precision}, {where}{merged}"
        print("\n" + _table(caption, found).text())
        for line in _crossovers(found):
            print(line, flush=True)
        figures[mode] = {
            name: {n: dataclasses.asdict(cost) for n, cost in costs.items()} for name, costs in found.items()
        }
        pictured[mode] = _series(found)
        # After each mode, for the longest lengths take minutes.
        if picture is not None:
            from ssl_audio.evaluation.pictures import costs_picture  # matplotlib takes half a second

            write_bytes(picture, costs_picture(pictured))
        add_figures(figures, out)


def _measure(setting: Setting, contenders: list[str], lengths: list[int]) -> Costs:
    """The cost of every contender at every length."""
    costs: Costs = {name: {} for name in contenders}
    with bar("training" if setting.training else "inference") as progress:
        for done, length in enumerate(lengths, start=1):
            for name in contenders:
                costs[name][length] = measure_setting(dataclasses.replace(setting, contender=name, tokens=length))
            progress(done, len(lengths))
    return costs


def _table(caption: str, found: Costs) -> ReportTable:
    head = ["tokens"]
    for name in found:
        head += [f"{name} ms", "MiB"]
    rows: list[list[str | float]] = []
    for length in next(iter(found.values())):
        row: list[str | float] = [str(length)]
        for costs in found.values():
            cost = costs[length]
            row += [cost.failure, ""] if cost.failure else [f"{cost.seconds * 1e3:.0f}", f"{cost.mebibytes:.0f}"]
        rows.append(row)
    return ReportTable(caption, head, rows)


def _crossovers(found: Costs) -> list[str]:
    """Where the Mamba and frequency-time attention become cheaper than each of the others."""
    lines = []
    cheaper = [name for name in ("bimamba", "frequency_time") if name in found]
    for cheap, name in itertools.product(cheaper, [name for name in found if name not in cheaper]):
        for kind, unit in (("seconds", "faster"), ("mebibytes", "smaller")):
            lengths = [n for n in found[name] if not found[name][n].failure and not found[cheap][n].failure]
            pair = [[max(getattr(found[who][n], kind), 1e-9) for n in lengths] for who in (name, cheap)]
            at = crossover(lengths, *pair)
            where = "at no length measured" if at is None else f"from about {at:.0f} tokens on"
            lines.append(f"{cheap} is {unit} than {name} {where}")
    return lines


def _series(found: Costs) -> dict[str, dict[int, tuple[float, float]]]:
    return {
        name: {length: (cost.seconds, cost.mebibytes) for length, cost in costs.items() if not cost.failure}
        for name, costs in found.items()
    }
