"""An audio encoder of ssl_audio that needs PyTorch alone: this file goes with the weights that it computes with.

    import modeling_ssl_audio
    model = modeling_ssl_audio.load(".")        # the folder with config.json and model.safetensors
    found = model(waveforms, lengths)           # (clip, sample) in [-1, 1] at model.sample_rate; valid samples of each
    found["embedding"], found["frames"], found["columns"], found.get("logits")

`embedding` is one vector a clip, `frames` one for each patch column (zeros beyond a clip's end), `columns` how many a
clip has; `logits` are before sigmoid or softmax, `frame_logits` those of frames. A clip gives the same alone and beside
longer ones.
"""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
_DTYPES |= {"I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool}


def load(folder: str | Path) -> "AudioEncoder":
    """The model of a folder, in evaluation mode."""
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    model = AudioEncoder(config)
    model.load_weights(read_safetensors(Path(folder) / "model.safetensors"))
    return model.eval()


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name; the format is 8 bytes of length, JSON, and raw little-endian numbers."""
    content = bytearray(Path(path).read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    found = {}
    for name, told in json.loads(content[8:start]).items():
        if name != "__metadata__":
            begin, end = told["data_offsets"]
            flat = torch.frombuffer(content[start + begin : start + end] or bytearray(1), dtype=torch.uint8)
            flat = flat[: end - begin].clone().view(_DTYPES[told["dtype"]])
            found[name] = flat.reshape(told["shape"])
    return found


class LogMel(nn.Module):
    """Kaldi's log-mel filter bank, as a matrix product with the Fourier transform of each frame."""

    waves: Tensor
    filters: Tensor

    def __init__(self, told: dict) -> None:
        super().__init__()
        self.told = told
        frame, size, rate = told["frame_samples"], told["n_fft"], told["sample_rate"]
        window = torch.hann_window(frame, periodic=False, dtype=torch.float64)
        # Mean off, pre-emphasis (the sample before the first equals it), window, transform: one matrix.
        steps = torch.eye(frame, dtype=torch.float64) - 1.0 / frame
        steps = steps - 0.97 * torch.cat([steps[:1], steps[:-1]])
        angle = torch.outer(torch.arange(size // 2 + 1, dtype=torch.float64), torch.arange(frame, dtype=torch.float64))
        angle = (angle % size) * (2 * math.pi / size)
        waves = torch.cat([angle.cos(), angle.sin()]) * window
        self.register_buffer("waves", (waves @ steps).float()[:, None], persistent=False)
        filters = mel_filters(told["bins"], size, rate, told["low_hz"], told["high_hz"])
        self.register_buffer("filters", filters[:, :, None], persistent=False)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel that is not normalised, and the frames of each clip; see `AudioEncoder.forward`."""
        told = self.told
        inside = torch.arange(waveforms.shape[1], device=waveforms.device)[None] < lengths[:, None]
        waveforms = torch.where(inside, waveforms, 0.0)
        count = lengths[:, None].to(waveforms.dtype)
        if told["demean"]:
            waveforms = waveforms - waveforms.sum(dim=1, keepdim=True) / count
        if told["level_db"] is not None:
            power = torch.where(inside, waveforms.square(), 0.0).sum(dim=1, keepdim=True) / count
            waveforms = waveforms * (10 ** (told["level_db"] / 20) / power.sqrt().clamp_min(1e-12)).clamp(max=100.0)
        spectrum = F.conv1d(waveforms[:, None], self.waves, stride=told["hop_samples"])
        real, imaginary = spectrum.square().chunk(2, dim=1)
        energies = F.conv1d(real + imaginary, self.filters).transpose(1, 2)
        frames = torch.div(lengths - told["frame_samples"], told["hop_samples"], rounding_mode="floor") + 1
        return energies.clamp_min(told["least_energy"]).log(), frames.clamp_min(0)


def mel_filters(bins: int, size: int, rate: int, low_hz: float, high_hz: float) -> Tensor:
    """Triangles of Kaldi on the mel scale."""
    low, high = (1127.0 * math.log(1.0 + hz / 700.0) for hz in (low_hz, high_hz))
    step = (high - low) / (bins + 1)
    index = torch.arange(bins)[:, None]
    left, centre, right = low + index * step, low + (index + 1.0) * step, low + (index + 2.0) * step
    mel = (1127.0 * (1.0 + rate / size * torch.arange(size / 2) / 700.0).log())[None]
    slopes = torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre))
    return F.pad(slopes.clamp(min=0.0), (0, 1))


class Attention(nn.Module):
    """Multi-head self-attention among the tokens of a clip."""

    def __init__(self, width: int, heads: int, scaled: bool) -> None:
        super().__init__()
        self.heads, self.scaled = heads, scaled
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        rows, count, width = x.shape
        parts = self.qkv(x).view(rows, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        scale = None if self.scaled else 1.0
        mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], inside[:, None, None], scale=scale)
        return self.out(mixed.transpose(1, 2).reshape(rows, count, width))


class FeedForward(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expand, self.contract = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        return self.contract(F.gelu(self.expand(x)))


def step(state: Tensor, token: tuple[Tensor, Tensor, Tensor, Tensor], rates: Tensor) -> tuple[Tensor, Tensor]:
    """One token of `scan`: the state after it, and what is read from it.

    Channels stand last, so that products run along them, and no array is as large as tokens times states.
    """
    dt, x, write, read = token
    state = torch.exp(dt * rates) * state + write * x
    return state, read @ state


def scan(dt: Tensor, x: Tensor, write: Tensor, read: Tensor, rates: Tensor) -> Tensor:
    """``h = exp(dt rates) h + write x`` token after token, and the sum over states of ``read h``.

    Args:
        dt: (token, way, clip, 1, channel).
        x: The same shape.
        write: (token, way, clip, state, 1).
        read: (token, way, clip, 1, state).
        rates: (way, 1, state, channel).

    Returns:
        (token, way, clip, 1, channel).
    """
    state, found = (write[0] * x[0]) * 0.0, []
    for token in zip(dt.unbind(), x.unbind(), write.unbind(), read.unbind(), strict=True):
        state, out = step(state, token, rates)
        found.append(out)
    return torch.stack(found)


class Direction(nn.Module):
    """What one direction of a Mamba mixer has for itself."""

    def __init__(self, inner: int, states: int, taps: int, rank: int) -> None:
        super().__init__()
        self.sizes = (rank, states, states)
        self.taps, self.taps_bias = nn.Parameter(torch.empty(inner, taps)), nn.Parameter(torch.empty(inner))
        self.project, self.dt = nn.Linear(inner, rank + 2 * states, bias=False), nn.Linear(rank, inner)
        self.A_log, self.D = nn.Parameter(torch.empty(inner, states)), nn.Parameter(torch.empty(inner))

    def forward(self, x: Tensor, inside: Tensor, reverse: bool) -> tuple[Tensor, ...]:
        """dt, x, write and read of the scan, token first in its own order; and what bypasses it."""
        reach = self.taps.shape[1] - 1
        weight = (self.taps.flip(1) if reverse else self.taps)[:, None]
        around = F.pad(x.transpose(1, 2), (0, reach) if reverse else (reach, 0))
        u = F.silu(F.conv1d(around, weight, self.taps_bias, groups=len(weight)).transpose(1, 2))
        dt, write, read = self.project(u).split(self.sizes, dim=-1)
        # Padding neither forgets nor adds.
        dt = F.softplus(self.dt(dt)) * inside[..., None]
        parts = (dt, dt * u, write, read)
        return *((part.flip(1) if reverse else part).transpose(0, 1) for part in parts), u * self.D


class MambaMixer(nn.Module):
    """A scan in either direction over the same projection, gated once."""

    def __init__(self, told: dict, *, turned: bool) -> None:
        super().__init__()
        width, inner = told["width"], told["expansion"] * told["width"]
        sizes = (inner, told["states"], told["taps"], math.ceil(width / 16))
        self.turned, self.scan = turned, scan
        self.into, self.out = nn.Linear(width, 2 * inner, bias=False), nn.Linear(inner, width, bias=False)
        self.ahead = Direction(*sizes)
        self.back = None if told["forward_only"] else Direction(*sizes)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        x, gate = self.into(x).chunk(2, dim=-1)
        x = x * inside[..., None]
        directions = [(self.ahead, self.turned), (self.back, not self.turned)]
        ways = [(one(x, inside, reverse), reverse) for one, reverse in directions if one is not None]
        # Both directions in one scan, side by side.
        dt, x_in, write, read = (torch.stack(parts, dim=1) for parts in zip(*(way[:4] for way, _ in ways), strict=True))
        rates = torch.stack([-one.A_log.exp().T for one, _ in directions if one is not None])[:, None]
        found = self.scan(dt[..., None, :], x_in[..., None, :], write[..., None], read[..., None, :], rates)
        mixed = torch.zeros_like(x)
        for part, (way, reverse) in zip(found[..., 0, :].unbind(1), ways, strict=True):
            part = part.transpose(0, 1)
            mixed = mixed + (part.flip(1) if reverse else part) + way[4]
        return self.out(mixed * F.silu(gate) * (1.0 / len(ways)))


class Branch(nn.Module):
    """What a block adds to its residual stream, from a norm and a transform."""

    def __init__(self, width: int, eps: float, transform: nn.Module) -> None:
        super().__init__()
        self.norm, self.transform = nn.LayerNorm(width, eps=eps), transform

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        return self.transform(self.norm(x), inside)


class Block(nn.Module):
    """One block of either encoder: branches that each add to the stream."""

    def __init__(self, told: dict, number: int) -> None:
        super().__init__()
        width = told["width"]
        if told["kind"] == "transformer":
            self.mixer = Branch(width, 1e-6, Attention(width, told["heads"], told["scaled"]))
            self.mlp: Branch | None = Branch(width, 1e-6, FeedForward(width, told["expansion"] * width))
        else:
            turned = told["paired_flips"] and number % 2 == 1
            self.mixer = Branch(width, 1e-5, MambaMixer(told, turned=turned))
            self.mlp = None

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        x = x + self.mixer(x, inside)
        return x if self.mlp is None else x + self.mlp(x, inside)


class Encoder(nn.Module):
    """The blocks and the final norm."""

    def __init__(self, told: dict) -> None:
        super().__init__()
        self.told = told
        self.blocks = nn.ModuleList(Block(told, number) for number in range(told["depth"]))
        self.norm = nn.LayerNorm(told["width"], eps=1e-6 if told["kind"] == "transformer" else 1e-5)

    def forward(self, x: Tensor, inside: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The final states, and those behind each block."""
        layers = []
        if self.told.get("paired_flips"):
            # Two blocks work on the same input, and the stream doubles.
            for first, second in zip(self.blocks[0::2], self.blocks[1::2], strict=True):
                one = first(x, inside)
                layers.append(x + one)
                x = one + second(x, inside)
                layers.append(x)
        else:
            for block in self.blocks:
                x = block(x, inside)
                layers.append(x)
        x = self.norm(x)
        return (self.norm(x) if self.told.get("second_final_norm") else x), layers


class Head(nn.Module):
    """From the states of patches on their grid to the logits of labels."""

    def __init__(self, told: dict, width: int, bands: int, depth: int) -> None:
        super().__init__()
        self.pooling, self.bands = told["pooling"], bands
        self.mixing = nn.Parameter(torch.zeros(depth)) if told["layers"] else None
        self.project = nn.Linear(width, told["projection"]) if told["projection"] else None
        width = told["projection"] or width
        if self.pooling in ("attentive", "query"):
            self.attend = {"attentive": AttentivePooling, "query": QueryPooling}[self.pooling](width)
        width *= {"moments": 2, "bands": 2 * bands}.get(self.pooling, 1)
        norms = {"layer": lambda: nn.LayerNorm(width), "batch": lambda: nn.BatchNorm1d(width, affine=False)}
        self.norm = norms.get(told["norm"], nn.Identity)()
        self.linear = nn.Linear(width, told["labels"])

    def forward(self, grid: Tensor, valid: Tensor, classes: Tensor) -> Tensor:
        """Logits.

        Args:
            grid: (clip, band, column, width).
            valid: (clip, column): which columns a clip has.
            classes: (clip, class token, width).
        """
        if self.project is not None:
            grid, classes = self.project(grid), self.project(classes)
        weight = valid[:, None, :, None].to(grid.dtype)
        if self.pooling == "class":
            pooled = classes.mean(dim=1)
        elif self.pooling == "first":
            pooled = grid[:, :, 0].mean(dim=1)
        elif self.pooling in ("attentive", "query"):
            pooled = self.attend(grid.flatten(1, 2), weight.expand(-1, grid.shape[1], -1, 1).flatten(1, 2))
        elif self.pooling == "bands":
            pooled = moments(grid, weight, (2,)).flatten(1)
        elif self.pooling == "moments":
            pooled = moments(grid, weight, (1, 2))
        else:
            pooled = mean(grid, weight, (1, 2))
        return self.linear(self.norm(pooled))


class EventHead(nn.Module):
    """From the states of patches on their grid to the logits of labels in frames and in clips."""

    def __init__(self, told: dict, width: int, bands: int, depth: int) -> None:
        super().__init__()
        self.apart = told["bands"] == "apart"
        width *= bands if self.apart else 1
        self.mixing = nn.Parameter(torch.zeros(depth)) if told["layers"] else None
        self.norm = nn.LayerNorm(width)
        self.join = nn.Linear(width, told["width"]) if told["width"] else None
        self.strong = nn.Linear(told["width"] or width, told["labels"])
        self.weigh = nn.Linear(told["width"] or width, told["labels"])

    def forward(self, grid: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of frames, and of clips: the mean of their probabilities in frames, weighted."""
        frames = grid.transpose(1, 2).flatten(2) if self.apart else grid.mean(dim=1)
        frames = self.norm(torch.where(valid[..., None], frames, 0.0))
        frames = frames if self.join is None else self.join(frames)
        strong, share = self.strong(frames), self.weigh(frames).softmax(dim=2).clamp(1e-7, 1.0)
        share = share * valid[..., None]
        scores = (strong.sigmoid() * share).sum(dim=1) / share.sum(dim=1).clamp_min(1e-7)
        return strong, scores.clamp(1e-7, 1.0 - 1e-7).logit()


def mean(grid: Tensor, weight: Tensor, over: tuple[int, ...]) -> Tensor:
    """The mean of what counts."""
    weight = weight.expand(-1, grid.shape[1], -1, 1)
    return (grid * weight).sum(dim=over) / weight.sum(dim=over).clamp_min(1e-6)


def moments(grid: Tensor, weight: Tensor, over: tuple[int, ...]) -> Tensor:
    """Mean and standard deviation of what counts."""
    first, second = mean(grid, weight, over), mean(grid.square(), weight, over)
    return torch.cat([first, (second - first.square()).clamp_min(1e-6).sqrt()], dim=-1)


class AttentivePooling(nn.Module):
    """A mean of patches with learnt weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = 4 if width % 4 == 0 else 1
        self.norm, self.score = nn.LayerNorm(width), nn.Linear(width, self.heads)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        x = self.norm(x)
        weight = self.score(x).clamp(-30, 30).exp() * weight
        spread = weight.repeat_interleave(x.shape[-1] // self.heads, dim=-1)
        return (x * spread).sum(dim=1) / spread.sum(dim=1).clamp_min(1e-12)


class QueryPooling(nn.Module):
    """One learnt query that attends to the patches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // 64)
        self.heads = self.heads if width % self.heads == 0 else 1
        self.query, self.norm = nn.Parameter(torch.zeros(width)), nn.LayerNorm(width)
        self.ask, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        query = self.ask(self.norm(self.query)).view(self.heads, -1)
        keys, values = (part(x).unflatten(-1, (self.heads, -1)) for part in (self.key, self.value))
        scores = (keys * query).sum(dim=-1) * query.shape[1] ** -0.5
        share = torch.where(weight > 0, scores, -1e30).softmax(dim=1)
        return self.out((values * share[..., None]).sum(dim=1).flatten(1))


class AudioEncoder(nn.Module):
    """From waveforms, or log-mel spectrograms, to vectors of clips and of frames, and to labels.

    Attributes:
        sample_rate: Samples per second that it expects.
        most_samples: So many samples it can take at once; longer recordings go in windows.
        least_samples: What a row of the batch must have; a shorter clip is padded and says its length.
        column_seconds: Seconds from one frame to the next.
    """

    def __init__(self, config: dict) -> None:
        super().__init__()
        self.config = config
        front, told = config["frontend"], config["encoder"]
        self.patch, self.stride = tuple(config["patch"]), tuple(config["stride"])
        self.bands, columns = config["grid"]
        self.fixed = config["fixed_frames"]
        self.sample_rate = front["sample_rate"]
        hop = front["hop_samples"]
        self.column_seconds = self.stride[1] * hop / self.sample_rate
        self.least_samples = front["frame_samples"] + (self.patch[1] - 1) * hop
        endless = config["position_rule"] == "repeat"
        self.most_samples = 1 << 60 if endless else self.least_samples + columns * self.stride[1] * hop - 1
        width, classes = told["width"], config["class_tokens"]
        self.log_mel = LogMel(front)
        self.embedding = nn.Linear(self.patch[0] * self.patch[1], width)
        self.table = nn.Parameter(torch.empty(self.bands, columns, width))
        self.class_tokens = nn.Parameter(torch.empty(classes, width))
        self.class_positions = nn.Parameter(torch.empty(classes, width))
        self.encoder = Encoder(told)
        head = config.get("head")
        kind = EventHead if head is not None and head["kind"] == "events" else Head
        self.head = None if head is None else kind(head, width, self.bands, told["depth"])

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Take the tensors of model.safetensors."""
        own = {name.removeprefix("backbone."): value for name, value in weights.items() if name.startswith("backbone.")}
        own |= {"head." + k.removeprefix("objective.head."): v for k, v in weights.items() if "objective.head." in k}
        table = own.pop("positions.table", None)
        if table is None:
            table = own.pop("positions.bands")[:, None] + own.pop("positions.columns")[None]
        mine = self.state_dict()
        own = {name: value for name, value in own.items() if name in mine}
        self.load_state_dict({**own, "table": table})

    def forward(self, waveforms: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Vectors and logits of clips.

        Args:
            waveforms: (clip, sample) in [-1, 1], one channel; each row has `least_samples` at least.
            lengths: Valid samples of each clip, as integers; what lies behind them is ignored.
        """
        if not torch.compiler.is_compiling():
            if waveforms.shape[1] > self.most_samples and self.fixed is None:
                raise ValueError(f"{waveforms.shape[1]} samples; expected {self.most_samples} at most")
            waveforms = F.pad(waveforms, (0, max(0, self.least_samples - waveforms.shape[1])))
        return self.from_log_mel(*self.log_mel(waveforms, lengths))

    def from_log_mel(self, values: Tensor, frames: Tensor) -> dict[str, Tensor]:
        """The same from Kaldi's log-mel as torchaudio.compliance.kaldi.fbank gives it (not normalised).

        Args:
            values: (clip, frame, bin).
            frames: Valid frames of each clip, as integers.
        """
        front = self.config["frontend"]
        values = (values - front["mean"]) / (2.0 * front["std"])
        inside = torch.arange(values.shape[1], device=values.device)[None] < frames[:, None]
        fill = (front["fill"] - front["mean"]) / (2.0 * front["std"])
        values = torch.where(inside[..., None], values, fill)
        if self.fixed is not None:
            values = F.pad(values, (0, 0, 0, self.fixed), value=fill)[:, : self.fixed]
            frames = torch.full_like(frames, self.fixed)
        kernel = self.embedding.weight.view(-1, 1, *self.patch)
        grid = F.conv2d(values.transpose(1, 2)[:, None], kernel, self.embedding.bias, stride=self.stride)
        grid = grid.permute(0, 2, 3, 1)  # (clip, band, column, width)
        count = grid.shape[2]
        columns = torch.div(frames - self.patch[1], self.stride[1], rounding_mode="floor") + 1
        columns = columns.clamp(min=1).clamp(max=count)
        place = Place(columns, count, self.bands, len(self.class_tokens), self.config)
        tokens = place.lay(grid + self.positions(columns, count), self.class_tokens + self.class_positions)
        last, layers = self.encoder(tokens, place.inside)
        states = place.back(last)
        kept = torch.arange(count, device=columns.device)[None] < columns[:, None]
        frames = states.mean(dim=1) * kept[..., None]
        found = {"embedding": frames.sum(dim=1) / columns[:, None], "frames": frames, "columns": columns}
        if self.head is not None:
            if self.head.mixing is not None:
                last = torch.einsum("l, l c t w -> c t w", self.head.mixing.softmax(dim=0), torch.stack(layers))
                states = place.back(last)
            if isinstance(self.head, EventHead):
                found["frame_logits"], found["logits"] = self.head(states, kept)
            else:
                found["logits"] = self.head(states, kept, place.classes(last))
        return found

    def positions(self, columns: Tensor, count: int) -> Tensor:
        """(clip or 1, band, column, width): positions of clips with so many columns, in a batch of so many."""
        rule, had = self.config["position_rule"], self.table.shape[1]
        if rule == "start":
            return self.table[None, :, :count]
        number = torch.arange(count, device=columns.device)
        if rule == "repeat":
            return self.table[None, :, number % had]
        begin = had // 2 - torch.div(columns, 2, rounding_mode="floor")
        number = (begin[:, None] + number).clamp(min=0).clamp(max=had - 1)
        return self.table[:, number].transpose(0, 1)


class Place:
    """Where the tokens of each clip stand in its row: its patches, its class tokens, padding behind them."""

    def __init__(self, columns: Tensor, count: int, bands: int, classes: int, config: dict) -> None:
        self.count, self.bands, self.width = count, bands, classes
        in_time = config["encoder"].get("forward_only", False)  # column by column, class tokens first
        device, n = columns.device, columns[:, None]
        slot = torch.arange(bands * count, device=device)[None].expand(columns.shape[0], -1)
        if in_time:
            band, column = slot % bands, torch.div(slot, bands, rounding_mode="floor")
        else:
            band, column = torch.div(slot, n, rounding_mode="floor"), slot % n
        self.from_grid = band.clamp(max=bands - 1) * count + column
        band = torch.arange(bands, device=device)[None, :, None]
        column = torch.minimum(torch.arange(count, device=device)[None, None], n[..., None] - 1)
        self.to_row = (column * bands + band if in_time else band * n[..., None] + column).flatten(1)
        middle = config["class_place"] == "middle" and not in_time
        self.before = torch.div(n * bands, 2, rounding_mode="floor") if middle else None
        if self.before is None:
            self.to_row = self.to_row + classes
        else:
            self.to_row = self.to_row + classes * (self.to_row >= self.before)
        length = torch.arange(bands * count + classes, device=device)[None]
        self.inside = length < n * bands + classes

    def lay(self, grid: Tensor, classes: Tensor) -> Tensor:
        """(clip, token, width) from states on their grid and class tokens."""
        x = _take(grid.flatten(1, 2), self.from_grid)
        if not self.width:
            return x
        x = torch.cat([classes.expand(x.shape[0], -1, -1), x], dim=1)
        if self.before is None:
            return x
        slot = torch.arange(x.shape[1], device=x.device)[None]
        own = (slot >= self.before) & (slot < self.before + self.width)
        return _take(x, torch.where(own, slot - self.before, torch.where(slot < self.before, slot + self.width, slot)))

    def back(self, x: Tensor) -> Tensor:
        """(clip, band, column, width); beyond a clip's end stands its last column."""
        return _take(x, self.to_row).unflatten(1, (self.bands, self.count))

    def classes(self, x: Tensor) -> Tensor:
        """The class tokens of each clip."""
        if self.before is None:
            return x[:, : self.width]
        return _take(x, self.before + torch.arange(self.width, device=x.device)[None])


def _take(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))
