"""The contract of every adapter on every encoder, alone and in pairs."""

import copy
import inspect
import io
import itertools
import re
import socket
from pathlib import Path

import pytest
import torch
import yaml
from killing import begin_server
from torch import multiprocessing, nn

from ssl_audio.audio.fbank import Fbank
from ssl_audio.errors import CheckpointError, LayoutError, RecipeError
from ssl_audio.model import patterns
from ssl_audio.model.adapters import (
    Adapter,
    Bottleneck,
    Conformer,
    ConvPass,
    DenseMixture,
    LowRank,
    Prefix,
    Prompts,
    SoftMixture,
    StateOffset,
)
from ssl_audio.model.backbone import Backbone
from ssl_audio.model.encoders import BiMamba, Encoder, Transformer
from ssl_audio.model.linear import Linear
from ssl_audio.model.patterns import FrequencyTime, SameTime, Window
from ssl_audio.tokens import Tokens

WIDTH, BANDS = 16, 2
ENCODERS = {
    Transformer: {"width": WIDTH, "depth": 2, "heads": 2},
    BiMamba: {"width": WIDTH, "depth": 2, "states": 4},
}
CASES = {
    "beside": (Bottleneck, {"hidden": 3, "branch": "last"}),
    "after": (Bottleneck, {"hidden": 3, "branch": "mixer", "place": "after"}),
    "before": (Bottleneck, {"reduction": 5.0, "branch": "last", "place": "before"}),
    "lora": (LowRank, {"rank": 2, "targets": ["*"]}),
    "dora": (LowRank, {"rank": 2, "targets": ["*"], "magnitude": True, "scaling": "root"}),
    "shallow": (Prompts, {"count": 3}),
    "deep": (Prompts, {"count": 2, "deep": True}),
    "prefix": (Prefix, {"count": 3}),
    "offset": (StateOffset, {}),
    "conformer": (Conformer, {"hidden": 4, "kernel": 5, "branch": "last"}),
    "dense": (DenseMixture, {"experts": 3, "hidden": 2}),
    "soft": (SoftMixture, {"experts": 3, "slots": 2, "hidden": 2}),
    "conv": (ConvPass, {"hidden": 4, "branch": "last"}),
}
HOMELESS = {(Prompts, BiMamba), (Prefix, BiMamba), (StateOffset, Transformer)}
HOMES = [(kind, name) for kind in ENCODERS for name, (adapter, _) in CASES.items() if (adapter, kind) not in HOMELESS]
each = pytest.mark.parametrize(("kind", "name"), HOMES, ids=lambda value: getattr(value, "__name__", value))
PATTERNS = [FrequencyTime(), FrequencyTime(published=True), SameTime(), Window(columns=1)]
COLUMNS = {0: 3, 1: 5, 2: 1, 3: 4}
PADDING = -1
ARRANGEMENTS = {"padded": [[PADDING, 1, PADDING], [0]], "packed": [[0, 1, 2, PADDING], [PADDING, 3]]}


def concrete(base: type) -> set[type]:
    """The subclasses that can be built, from this package."""
    found, waiting = set(), [base]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if kind.__module__.startswith("ssl_audio.") and not inspect.isabstract(kind):
                found.add(kind)
    return found


def test_the_suite_covers_every_adapter_and_encoder():
    assert {adapter for adapter, _ in CASES.values()} == concrete(Adapter)
    assert set(ENCODERS) == concrete(Encoder)


def build(kind: type[Encoder], *names: str, fresh: bool = False, seed: int = 0) -> Backbone:
    """A backbone in evaluation mode; unless fresh, nothing in its adapters is as it begins."""
    torch.manual_seed(seed)
    adapters = [CASES[name][0](**CASES[name][1]) for name in names]
    backbone = Backbone(
        frontend=FRONTEND, encoder=kind(**ENCODERS[kind]), position_frames=64, class_tokens=1, adapters=adapters
    )
    if not fresh:
        for parameter in backbone.adapters.parameters():
            nn.init.normal_(parameter, std=0.3)
        for buffer in backbone.adapters.buffers():
            buffer.add_(1)
    return backbone.eval()


FRONTEND = Fbank()


def tokens_of(rows: list[list[int]], *, dropped: bool = False) -> Tokens:
    """Rows of clips by number, each a class token and patches on its grid, and of padding by twos."""
    numbers = sorted({clip for row in rows for clip in row if clip != PADDING})
    columns = []
    for row in rows:
        parts = [_clip(clip, numbers.index(clip), dropped) if clip != PADDING else _padding(2) for clip in row]
        columns.append([torch.cat(part) for part in zip(*parts, strict=True)])
    longest = max(len(row[0]) for row in columns)
    filled = [[torch.cat(pair) for pair in zip(row, _padding(longest - len(row[0])), strict=True)] for row in columns]
    states, clip, time, band = (torch.stack(part) for part in zip(*filled, strict=True))
    whole = bool((clip >= 0).all()) and all(len(row) == 1 for row in rows)
    grid = None if dropped else (BANDS, max(COLUMNS[number] for number in numbers))
    return Tokens(states, clip, time, band, torch.ones_like(clip).float(), whole, len(numbers), grid)


def _clip(clip: int, number: int, dropped: bool) -> list[torch.Tensor]:
    count = COLUMNS[clip]
    band = torch.cat([torch.tensor([-1]), torch.arange(BANDS).repeat_interleave(count)])
    time = torch.cat([torch.tensor([-1]), torch.arange(count).repeat(BANDS)])
    states = torch.randn(len(band), WIDTH, generator=torch.Generator().manual_seed(clip))
    kept = torch.arange(len(band)) % 3 != 1 if dropped else slice(None)
    return [part[kept] for part in (states, torch.full_like(band, number), time, band)]


def _padding(count: int) -> list[torch.Tensor]:
    nowhere = torch.full((count,), -1)
    return [torch.full((count, WIDTH), 1e3), nowhere, nowhere, nowhere]


def own(tokens: Tokens, rows: list[list[int]], clip: int) -> torch.Tensor:
    """Which tokens are those of a clip."""
    numbers = sorted({clip for row in rows for clip in row if clip != PADDING})
    return tokens.clip == numbers.index(clip)


def one_line(error: pytest.ExceptionInfo, *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, (word, message)


@pytest.mark.usefixtures("unchecked")
@each
@pytest.mark.parametrize("dropped", [False, True], ids=["all", "dropped"])
def test_a_clip_is_the_same_alone_padded_and_packed(kind, name, dropped):
    encoder = build(kind, name).encoder
    if dropped and CASES[name][0] is ConvPass:
        with pytest.raises(LayoutError) as error:
            encoder(tokens_of([[1]], dropped=True))
        one_line(error, "ConvPass", "grid")
        return
    alone = encoder(tokens_of([[1]], dropped=dropped)).states[0]
    for arrangement, rows in ARRANGEMENTS.items():
        given = tokens_of(rows, dropped=dropped)
        states = given.states.clone().requires_grad_()
        out = encoder(given.with_states(states))
        for field in ("clip", "time", "band", "size"):
            assert torch.equal(getattr(out, field), getattr(given, field)), field
        assert (out.whole, out.clips, out.grid) == (given.whole, given.clips, given.grid)
        mine = own(given, rows, 1)
        torch.testing.assert_close(out.states[mine], alone, atol=1e-5, rtol=0, msg=lambda m: f"{arrangement}: {m}")  # noqa: B023
        out.states[mine].square().sum().backward()
        assert states.grad[mine].abs().amax(dim=1).min() > 0
        assert states.grad[~mine].abs().max() == 0
    for layer in encoder.layers(given):
        assert torch.equal(layer.clip, given.clip)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: type(pattern).__name__)
def test_all_adapters_keep_clips_apart_with_a_pattern(pattern, monkeypatch):
    monkeypatch.setattr(patterns, "FEWEST_PATCHES", 0)
    encoder = build(Transformer, *together(Transformer)).encoder
    encoder.pattern = pattern
    alone = encoder(tokens_of([[1]])).states[0]
    for rows in ARRANGEMENTS.values():
        given = tokens_of(rows)
        torch.testing.assert_close(encoder(given).states[own(given, rows, 1)], alone, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("unchecked")
@each
def test_identity_names_saving_alone_and_copies(kind, name):
    base, row = build(kind), tokens_of([[1], [1]])
    fresh = build(kind, name, fresh=True)
    same = torch.allclose(fresh.encoder(row).states, base.encoder(row).states, atol=1e-6, rtol=0)
    assert same == next(iter(fresh.adapters)).identity

    trained = build(kind, name)
    state = trained.state_dict()
    assert [key for key in state if not key.startswith("adapters.")] == list(base.state_dict())
    saved = io.BytesIO()
    torch.save({key: value for key, value in state.items() if key.startswith("adapters.")}, saved)
    saved.seek(0)
    again = build(kind, name, fresh=True, seed=5)
    again.load_state_dict(base.state_dict() | torch.load(saved, weights_only=True))
    expected = trained.encoder(row).states
    assert torch.equal(again.encoder(row).states, expected)
    copied = copy.deepcopy(trained)
    for parameter in trained.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(copied.encoder(row).states, expected)


@pytest.mark.usefixtures("unchecked")
@each
def test_only_the_adapter_changes_when_it_trains(kind, name):
    backbone = build(kind, name, fresh=True)
    for part, parameter in backbone.named_parameters():
        parameter.requires_grad_(part.startswith("adapters."))
    backbone.adapters.train()
    optimizer = torch.optim.AdamW(backbone.adapters.parameters(), lr=0.01, weight_decay=0.0)
    before = {part: tensor.clone() for part, tensor in backbone.state_dict().items()}
    rows = ARRANGEMENTS["packed"]
    for _ in range(2):  # in the first step only what begins at zero learns
        optimizer.zero_grad()
        given = tokens_of(rows)
        backbone.encoder(given).states[own(given, rows, 1)][:, 0].sum().backward()
        optimizer.step()
    for part, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[part]) != part.startswith("adapters."), part


@each
def test_merging_gives_the_same_or_says_why_not(kind, name):
    backbone, row = build(kind, name), tokens_of([[1], [1]])
    adapter = next(iter(backbone.adapters))
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter *= 0.2
    before = backbone.encoder(row).states
    if not isinstance(adapter, LowRank):
        with pytest.raises(RecipeError) as error:
            adapter.merge()
        one_line(error, type(adapter).__name__, "merged", "LowRank")
        return
    adapter.merge()
    torch.testing.assert_close(backbone.encoder(row).states, before, atol=1e-6, rtol=0)
    assert not any(module.deltas for module in backbone.modules() if isinstance(module, Linear))


def together(kind: type[Encoder]) -> list[str]:
    """All that can be attached at once."""
    return [name for home, name in HOMES if home is kind and name != "dora"]


@pytest.mark.parametrize("kind", ENCODERS)
def test_recomputed_activations_give_the_same_gradients_and_statistics(kind):
    from ssl_audio.training.engines import recompute_activations

    found = []
    for recomputed in (False, True):
        backbone = build(kind, *together(kind))
        backbone.adapters.train()
        if recomputed:
            recompute_activations(backbone.encoder)
        torch.manual_seed(2)
        backbone.encoder(tokens_of(ARRANGEMENTS["packed"])).states.square().mean().backward()
        gradients = {part: p.grad for part, p in backbone.named_parameters() if p.grad is not None}
        assert {part for part, _ in backbone.named_parameters() if part.startswith("adapters.")} <= gradients.keys()
        found.append(gradients | dict(backbone.named_buffers()))
    for part, tensor in found[0].items():
        torch.testing.assert_close(found[1][part], tensor, msg=lambda m: f"{part}: {m}")  # noqa: B023


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", ENCODERS)
def test_any_two_go_together(kind):
    names = [name for home, name in HOMES if home is kind]
    for pair in itertools.combinations_with_replacement(names, 2):
        if set(pair) <= {"lora", "dora"}:
            with pytest.raises(RecipeError) as error:
                build(kind, *pair)
            one_line(error, "LowRank", "adapted twice", "qkv" if kind is Transformer else "into")
            continue
        backbone = build(kind, *pair)
        rows = ARRANGEMENTS["packed"]
        given = tokens_of(rows)
        out = backbone.encoder(given)
        assert torch.equal(out.clip, given.clip)
        alone = backbone.encoder(tokens_of([[1]])).states[0]
        torch.testing.assert_close(
            out.states[own(given, rows, 1)],
            alone,
            atol=2e-5,
            rtol=0,
            msg=lambda m: f"{pair}: {m}",  # noqa: B023
        )
        gradients = torch.autograd.grad(alone[:, 0].sum(), list(backbone.adapters.parameters()))
        assert all(gradient.abs().max() > 0 for gradient in gradients), pair


@pytest.mark.parametrize(
    ("adapter", "kind", "instead"),
    [(Prompts, BiMamba, "StateOffset"), (Prefix, BiMamba, "StateOffset"), (StateOffset, Transformer, "Prefix")],
)
def test_an_adapter_without_a_place_says_what_has_one(adapter, kind, instead):
    name = next(name for name, (kind_of, _) in CASES.items() if kind_of is adapter)
    with pytest.raises(RecipeError) as error:
        build(kind, name)
    one_line(error, adapter.__name__, kind.__name__, instead)


def test_wrong_names_sizes_and_widths_are_one_line_each():
    def attached(kind, adapter):
        return Backbone(frontend=FRONTEND, encoder=kind(**ENCODERS[kind]), position_frames=64, adapters=[adapter])

    mistakes = [
        (BiMamba, lambda: Bottleneck(hidden=3), ("Bottleneck", "BiMamba", "'mlp'", "mixer")),
        (Transformer, lambda: LowRank(rank=2, targets=["qvk"]), ("Transformer", "'qvk'", "qkv[query]")),
        (BiMamba, lambda: LowRank(rank=2, targets=["qkv[query]"]), ("BiMamba", "'qkv[query]'", "into[x]")),
        (Transformer, lambda: LowRank(rank=2, targets=["qkv[q]"]), ("qkv[q]", "'q'", "query, key, value")),
        (Transformer, lambda: LowRank(rank=2, targets=["qkv", "qkv[key]"]), ("qkv", "adapted twice")),
        (Transformer, lambda: LowRank(rank=2, targets=["qkv["]), ("'qkv['", "not closed", "qkv[PART]")),
        (Transformer, lambda: LowRank(rank=2, targets=[]), ("LowRank", "targets is empty", "qkv[query]")),
        (Transformer, lambda: LowRank(targets=["qkv"]), ("LowRank", "rank or reduction", "neither")),
        (Transformer, lambda: LowRank(rank=2, targets=["qkv"], scaling="reduction"), ("LowRank", "reduction")),
        (Transformer, lambda: Conformer(hidden=3, kernel=4), ("Conformer", "kernel", "odd")),
        (Transformer, lambda: SoftMixture(hidden=3, reduction=2.0), ("SoftMixture", "hidden 3 and reduction 2")),
        (Transformer, lambda: ConvPass(reduction=99.0), ("ConvPass", "99", "no channel")),
    ]  # fmt: skip
    for kind, make, words in mistakes:
        with pytest.raises(RecipeError) as error:
            attached(kind, make())
        one_line(error, *words)


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        (Bottleneck(hidden=5, branch="last"), ("adapters.0.parts.0.down.weight", "(3, 16)", "(5, 16)")),
        (LowRank(rank=2, targets=["out"]), ("adapters.0", "down", "lacks", "has")),
    ],
)
def test_an_adapter_of_another_width_or_kind_is_one_line(adapter, words):
    from ssl_audio.checkpoints.adaptation import load_backbone
    from ssl_audio.checkpoints.checkpoint import Checkpoint

    weights = {f"backbone.{name}": tensor for name, tensor in build(Transformer, "beside").state_dict().items()}
    other = Backbone(
        frontend=FRONTEND,
        encoder=Transformer(**ENCODERS[Transformer]),
        position_frames=64,
        class_tokens=1,
        adapters=[adapter],
    )
    parts = {"frontend": "ssl_audio.audio.fbank.Fbank", "encoder": "ssl_audio.model.encoders.Transformer"}
    options = {name: {"class_path": path, "init_args": {}} for name, path in parts.items()}
    recipe = {"model": {"backbone": {"class_path": "ssl_audio.model.backbone.Backbone", "init_args": options}}}
    with pytest.raises(CheckpointError) as error:
        load_backbone(other, Checkpoint(Path("adapted.ckpt"), recipe, weights, 0, ""))
    one_line(error, "adapted.ckpt", *words)


class Step(nn.Module):
    """Encoders with all adapters at once, as DDP wants them: one module whose forward pass is the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.backbones = nn.ModuleList(build(kind, *names) for kind in ENCODERS for names in (together(kind), ["dora"]))
        for part, parameter in self.named_parameters():
            parameter.requires_grad_(".adapters." in part)

    def forward(self, rows: list[list[int]]) -> torch.Tensor:
        return sum(backbone.encoder(tokens_of(rows)).states.square().mean() for backbone in self.backbones)


def gradients(step: Step) -> dict[str, torch.Tensor]:
    return {part: parameter.grad for part, parameter in step.named_parameters() if parameter.requires_grad}


def compiled_and_eager(kind: type[Encoder]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of a block with all adapters at once; compiling fails where it would have to break the graph."""
    encoder = build(kind, *together(kind)).encoder
    patterns.FEWEST_PATCHES = 0  # in this process alone
    found = []
    cases = [(rows, None) for rows in ([[1], [1]], ARRANGEMENTS["padded"])]
    cases += [(ARRANGEMENTS["packed"], pattern) for pattern in PATTERNS[:1] if kind is Transformer]
    for rows, encoder.pattern in cases:
        given = tokens_of(rows)
        torch._dynamo.reset()
        compiled = torch.compile(encoder.blocks[0], backend="eager", fullgraph=True)
        context = encoder.context(given)
        found.append((compiled(given, context).states.detach(), encoder.blocks[0](given, context).states.detach()))
    return found


def one_rank(rank: int, port: int, answer) -> None:
    torch.set_num_threads(1)
    compiled = compiled_and_eager(list(ENCODERS)[rank])
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=2, rank=rank)
    step = nn.parallel.DistributedDataParallel(Step(), find_unused_parameters=False)
    for _ in range(2):  # the second says so where a parameter took no part in the first
        step.zero_grad()
        step([[[1], [1]], [[0], [0]]][rank]).backward()
    torch.save((compiled, gradients(step.module)), f"{answer}{rank}")
    del step
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[tuple]:
    """What two processes found; without pytest's checks of shapes, through which nothing compiles."""
    answer = tmp_path_factory.mktemp("ranks") / "rank"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begin_server()
    multiprocessing.start_processes(one_rank, args=(port, answer), nprocs=2, start_method="forkserver")
    return [torch.load(f"{answer}{rank}", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("rank", range(2), ids=[kind.__name__ for kind in ENCODERS])
def test_all_at_once_compile_without_a_break(ranks, rank):
    for compiled, eager in ranks[rank][0]:
        torch.testing.assert_close(compiled, eager)


def test_two_processes_give_the_mean_of_their_gradients(ranks):
    step = Step()
    ((step([[1], [1]]) + step([[0], [0]])) / 2).backward()
    for part, gradient in gradients(step).items():
        error = (ranks[0][1][part] - gradient).abs().max()
        assert error < 1e-4 * gradient.abs().max() + 1e-7, part


def test_the_adapter_in_contributing_keeps_the_contract(tmp_path, monkeypatch, unchecked):
    page = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    code = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1]
    recipe = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1])
    (tmp_path / "factors.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    from factors import Factors

    assert recipe["adapters"] == [{"class_path": "ssl_audio.model.adapters.Factors"}]
    monkeypatch.setitem(CASES, "factors", (Factors, {}))
    for kind in ENCODERS:
        test_a_clip_is_the_same_alone_padded_and_packed(kind, "factors", False)
        test_a_clip_is_the_same_alone_padded_and_packed(kind, "factors", True)
        test_identity_names_saving_alone_and_copies(kind, "factors")
        test_only_the_adapter_changes_when_it_trains(kind, "factors")
        test_merging_gives_the_same_or_says_why_not(kind, "factors")
