"""`ssl-audio bench data`: reading and writing shards, beside what else one could do."""

import tempfile
from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from ssl_audio.cli.results import add_figures
from ssl_audio.evaluation.benchmark import interleaved
from ssl_audio.evaluation.report import ReportTable


def data(
    clips: PositiveInt = 128,
    seconds: PositiveFloat = 10.0,
    rounds: PositiveInt = 7,
    workers: NonNegativeInt = 0,
    index_clips: NonNegativeInt = 2_000_000,
    out: Path | None = None,
) -> None:
    """Reading shards beside bare decoding of the same clips, webdataset's own pipeline and a file a clip, in one run.

    All but bare decoding end with batches of 32 waveforms. `flac` and `pcm` are our loader on shards of either
    encoding, `crops` cuts a fifth of each clip out of PCM. One core each, unless there are workers. Then: writing
    beside encoding alone, and start and resume in the index of a synthetic set.

    Args:
        clips: How many of noise-like sound are made.
        seconds: Length of a clip.
        rounds: How often each way of reading is timed.
        workers: Processes that read for our loader, for webdataset's and for torch's; 0 reads in this one.
        index_clips: Size of the synthetic set; 0 leaves it out.
        out: Also write the figures to this JSON file.
    """
    from ssl_audio.evaluation import loader_benchmark  # webdataset takes seconds to import

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        corpus = loader_benchmark.make(Path(scratch), clips=clips, seconds=seconds)
        ways = loader_benchmark.ways(corpus, workers=workers)
        times = interleaved(ways, rounds=rounds, device=torch.device("cpu"))
        writing = loader_benchmark.write_beside_encoding(corpus)
    bare = times["bare decoding"].seconds
    figures: dict[str, dict[str, float]] = {
        name: {"clips_per_second": clips / t.seconds, "times_bare": bare / t.seconds, "spread": t.spread}
        for name, t in times.items()
    }
    rows = [
        [name, f"{f['clips_per_second']:.0f}", f"{f['spread']:.0%}", f"{f['times_bare']:.2f}"]
        for name, f in figures.items()
    ]
    caption = f"{clips} clips of {seconds:g} s, {workers} workers, {rounds} rounds"
    print(ReportTable(caption, ["reading", "clips/s", "±", "times bare decoding"], rows).text())
    figures["writing"] = writing
    print(
        ReportTable(
            "one process", ["writing", "clips/s"], [[name, f"{rate:.0f}"] for name, rate in writing.items()]
        ).text()
    )
    if index_clips:
        found = loader_benchmark.start_and_resume(index_clips)
        figures["index"] = found
        print(
            ReportTable(
                f"{index_clips} clips", ["index", ""], [[n, f"{value:.3g}"] for n, value in found.items()]
            ).text()
        )
    add_figures(figures, out)
