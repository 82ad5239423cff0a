"""Two processes with half of a batch each make the gradients of one that has it whole."""

import socket
from pathlib import Path

import torch
from killing import begin_server
from torch import multiprocessing, nn

from ssl_audio.audio.fbank import Fbank
from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import Transformer
from ssl_audio.objectives.masked_patches import MaskedPatches
from ssl_audio.objectives.masking import ClusterMasking
from ssl_audio.training.engines import end_process_group

FRAMES = 64


class Step(nn.Module):
    """Backbone and objective as DDP wants them: one module whose forward pass is the loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = Backbone(
            frontend=Fbank(), encoder=Transformer(width=32, depth=2, heads=2), patch=(16, 16), position_frames=FRAMES
        )
        self.objective = MaskedPatches(
            masking=ClusterMasking(12),
            decoder=Transformer(width=16, depth=1, heads=1),
            clip_weight=1.0,
            sketch_weight=1.0,
            targets="normalised",
            negatives="all",
        )
        self.objective.attach(self.backbone, Facts())

    def forward(self, spectrogram: Spectrogram, seeds: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        rows = Batch(spectrogram.values[:, :, 0], None, source, seeds, tuple(map(str, source.unique().tolist())))
        return self.objective(self.backbone, rows, spectrogram)["loss"]


def batch(frames: list[int]) -> tuple[Spectrogram, torch.Tensor, torch.Tensor]:
    """Two views of each of four clips."""
    draws = torch.Generator().manual_seed(1)
    values = torch.randn(8, FRAMES, 128, generator=draws)
    return Spectrogram(values, torch.tensor(frames), min(frames) == FRAMES), torch.arange(8), torch.arange(8) // 2


def gradients(step: Step) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in step.named_parameters() if p.grad is not None}


CASES = {
    "filled": [FRAMES] * 8,
    "ragged": [64, 64, 48, 40, 64, 32, 24, 64],
    "ragged on one rank": [64, 64, 64, 64, 64, 32, 24, 64],
}


def one_rank(rank: int, port: int, answer) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=2, rank=rank)
    half = slice(4 * rank, 4 * rank + 4)
    found = {}
    for name, frames in CASES.items():
        step = nn.parallel.DistributedDataParallel(Step())
        whole, seeds, source = batch(frames)
        own = Spectrogram(whole.values[half], whole.frames[half], min(frames[half]) == FRAMES)
        loss = step(own, seeds[half], source[half] - 2 * rank)
        loss.backward()
        mean = loss.detach()
        torch.distributed.all_reduce(mean)
        found[name] = {"loss": mean / 2, "gradients": gradients(step.module)}
    # As Lightning does after training.
    del step
    threads = gloo_threads()
    end_process_group()
    torch.save({"cases": found, "threads": (threads, gloo_threads())}, f"{answer}{rank}")


def gloo_threads() -> int:
    """Threads of gloo that this process has; counted in /proc, which only Linux has."""
    return sum("gloo" in path.read_text() for path in Path("/proc/self/task").glob("*/comm"))


def test_two_ranks_make_the_gradients_of_one_and_leave_no_threads(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begin_server()
    multiprocessing.start_processes(one_rank, args=(port, tmp_path / "two"), nprocs=2, start_method="forkserver")
    ranks = [torch.load(tmp_path / f"two{rank}", weights_only=True) for rank in range(2)]
    for before, after in (rank["threads"] for rank in ranks):
        assert after == 0
        assert before > 0 or not Path("/proc/self/task").is_dir()
    two = ranks[0]["cases"]
    for case, frames in CASES.items():
        alone = Step()
        loss = alone(*batch(frames))
        loss.backward()
        torch.testing.assert_close(two[case]["loss"], loss.detach(), rtol=1e-5, atol=0)
        expected = gradients(alone)
        assert two[case]["gradients"].keys() == expected.keys()
        for name, gradient in expected.items():
            error = (two[case]["gradients"][name] - gradient).abs().max()
            assert error < 1e-5 * gradient.abs().max() + 1e-7, (case, name)
