"""Many recordings: in several processes, in parts, through kills and with several checkpoints, to the same bytes."""

import csv
import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from noise import noise

from ssl_audio import ensemble
from ssl_audio.cli import main, rows
from ssl_audio.cli.embed import embed
from ssl_audio.cli.predict import predict
from ssl_audio.cli.predict_windows import predict_windows
from ssl_audio.data.facts import Facts
from ssl_audio.data.index import open_shards
from ssl_audio.errors import CheckpointError, RecipeError, SslAudioError
from ssl_audio.evaluation import decoders, parts
from ssl_audio.evaluation.decoders import Decoders
from ssl_audio.evaluation.ensemble import Ensemble
from ssl_audio.evaluation.journal import Journal
from ssl_audio.evaluation.parts import Share
from ssl_audio.evaluation.predictions import read_predictions
from ssl_audio.evaluation.pretrained import Pretrained
from ssl_audio.evaluation.recordings import Recordings, clips_of, recordings_of
from ssl_audio.locking import BusyError, Lock
from ssl_audio.objectives import Classification


@pytest.fixture
def folder(tmp_path) -> Path:
    """Twelve recordings of several lengths and rates, two of them damaged and one longer than a minute."""
    folder = tmp_path / "audio"
    folder.mkdir()
    for number, length in enumerate((8000, 70000, 60000, 4000, 5000, 90000, 7000, 16000 * 70, 3000, 20000, 9000, 8000)):
        rate = 44100 if number % 5 == 1 else 16000
        soundfile.write(folder / f"{number:02d}.wav", noise(length, number).numpy(), rate)
    for name in ("04.wav", "09.wav"):
        (folder / name).write_bytes(b"damaged")
    return folder


@pytest.fixture
def blocks_of_three(monkeypatch):
    """Few recordings are enough for several parts."""
    monkeypatch.setattr(parts, "BLOCK", 3)
    monkeypatch.setattr(rows, "BLOCK", 3)


def test_processes_change_nothing(model, folder, demo_shards, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in sorted(folder.iterdir())))
    clips = open_shards([demo_shards]).select(np.arange(3, 60, 9))
    files = recordings_of([folder, folder / "00.wav"], listed=tmp_path / "list.txt")
    recordings = Recordings([*clips_of(clips)._sources, *files._sources])
    assert len(recordings) == len(clips) + 25
    assert [recordings.name(number) for number in (3, 6, 7)] == [clips.where(3), clips.where(6), str(folder / "00.wav")]
    told = []
    for workers in (0, 2):
        embed(model, recordings, out=tmp_path / f"{workers}.parquet", frames=True, workers=workers)
        told.append([line for line in capsys.readouterr().err.splitlines() if not line.startswith("embedding: ")])
    assert (tmp_path / "0.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()
    assert told[0] == told[1]
    assert sum(line.startswith(f"left out: {folder}/0") for line in told[0]) == 4
    # The long recording, of which a minute at a time is read, is what it is as a whole.
    table = pq.read_table(tmp_path / "2.parquet").to_pydict()
    vector = table["embedding"][table["path"].index(str(folder / "07.wav"))]
    whole, _ = soundfile.read(folder / "07.wav", dtype="float32")
    np.testing.assert_allclose(vector, model.embed(whole, sample_rate=16000)[0].numpy(), atol=1e-5)


def test_a_process_that_dies_is_one_line(folder):
    recordings = recordings_of([folder / "00.wav"] * 20)
    with Decoders(recordings, rate=16000, workers=1) as found:
        answers = found.checked(range(20))
        next(answers)
        os.kill(found._processes[0]._process.pid, signal.SIGKILL)
        with pytest.raises(SslAudioError, match=r"^a process that decodes died \(SIGKILL\) at .*00.wav; if memory ran"):
            list(answers)


def dies_at_the_fourth(call: Callable[[], None]) -> bool:
    """Call it in a process that is killed when it opens the fourth recording; whether it came that far."""
    child = os.fork()
    if child:
        ended = os.waitpid(child, 0)[1]
        assert ended in (0, signal.SIGKILL)
        return ended == signal.SIGKILL
    opened, answer = [], decoders.reply_to

    def open_one(wanted: Any, **options: Any) -> Any:
        opened.extend([wanted] * (wanted.stretch is None))
        if len(opened) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer(wanted, **options)

    decoders.reply_to = open_one
    try:
        call()
    except BaseException:
        os._exit(1)
    os._exit(0)


def test_parts_and_kills_give_the_bytes_of_one_process(model, folder, tmp_path, blocks_of_three):
    recordings = recordings_of([folder])
    model.batch_windows = 2
    whole, cut, merged = (tmp_path / f"{name}.npz" for name in ("whole", "cut", "merged"))
    embed(model, recordings, out=whole, frames=True)
    with Lock(cut), pytest.raises(BusyError, match=r"cut.npz already"):
        embed(model, recordings, out=cut, frames=False)

    def embed_part(out: Path, share: Share) -> Callable[[], None]:
        return lambda: embed(model, recordings, out=out, frames=True, share=share)

    started = []
    for share, out in ((Share(), cut), *((Share(part, 3), merged) for part in (1, 2, 3))):
        hidden = share.file(out).with_name(f".{share.file(out).name}.rows")
        while dies_at_the_fourth(embed_part(out, share)):
            started.append(hidden.stat().st_size)
            assert len(started) < 20
            with hidden.open("ab") as file:
                file.write(b"torn")
    assert len(started) >= 4
    main(["embed", "merge", str(merged)])
    assert whole.read_bytes() == cut.read_bytes() == merged.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["audio", "x.ckpt", *(path.name for path in (whole, cut, merged))]
    )


def test_parts_that_do_not_belong_together_are_told(model, folder, tmp_path, blocks_of_three):
    recordings = recordings_of([folder])
    out = tmp_path / "x.npz"

    def write(part: int, parts: int = 3, *, of: Recordings = recordings, **options: Any) -> None:
        embed(model, of, out=out, **{"frames": False, **options}, share=Share(part, parts))

    def expect(pattern: str) -> None:
        with pytest.raises(RecipeError, match=pattern):
            parts.ResultParts(out, verb="embed")

    expect("nothing to merge; write its parts first with `ssl-audio embed --part i/n")
    write(2)
    with Journal(Share(3, 3).file(out), job={}, schema=pa.schema({})) as journal:
        journal.rows  # noqa: B018
        expect(r"2 of 3 parts are not written yet: 1, 3 \(started\); give the same command with --part 1/3")
    write(1)
    write(3, frames=True)
    expect("part 3 has other options than part 1: frames True, not False")
    write(3, of=recordings_of([folder, folder / "00.wav"]))
    expect(r"part 3 is of another list of recordings \(13, sha256 \w{12}\) than part 1 \(12, ")
    with torch.no_grad():
        name = next(iter(model.checkpoint.weights))
        model.checkpoint.weights[name] = model.checkpoint.weights[name] + 1
    write(3)
    expect(r"part 3 is of another checkpoint \(sha256 \w{12}\) than part 1")
    write(4, 4)
    expect("parts of 3 and of 4 lie beside it")
    Share(4, 4).file(out).unlink()
    Share(3, 3).file(out).write_bytes(b"other")
    with pytest.raises(SslAudioError, match=r"x.npz.part-3-of-3: cannot be read as rows of a part"):
        parts.ResultParts(out, verb="embed")


@pytest.mark.parametrize("total", [0, 1, 63, 64, 65, 1000])
@pytest.mark.parametrize("count", [1, 3, 20])
def test_every_recording_is_in_one_part(total, count):
    shares = [Share(part, count) for part in range(1, count + 1)]
    numbers = [list(share.numbers(total)) for share in shares]
    assert sorted(number for some in numbers for number in some) == list(range(total))
    for share, mine in zip(shares, numbers, strict=True):
        assert share.count(total) == len(mine)
        for start in (0, 10, 64, 130):
            assert list(share.numbers(total, start=start)) == [number for number in mine if number >= start]


@pytest.fixture
def labelling(model) -> Callable[[int, list[str]], Pretrained]:
    """Models with heads of their own."""

    def make(seed: int, labels: list[str]) -> Pretrained:
        made = Pretrained(model.checkpoint)
        torch.manual_seed(seed)
        objective = Classification()
        objective.attach(made.backbone, Facts(labels=tuple(labels)))
        made._modules.labels, made._modules.objective = labels, objective.eval()
        return made

    return make


def test_an_ensemble_is_the_mean_of_its_members(labelling, folder, tmp_path):
    clips = [noise(9000, 1), noise(50000, 2)]
    members = [labelling(1, ["a", "b", "c"]), labelling(2, ["a", "b", "c"]), labelling(3, ["c", "a", "b"])]
    single = [member.predict(clips, sample_rate=16000).numpy() for member in members]
    single[2] = single[2][:, [1, 2, 0]]
    together = ensemble(members)
    np.testing.assert_array_equal(together.predict(clips, sample_rate=16000).numpy(), np.mean(single, axis=0))
    recordings = recordings_of([folder])
    predict(together, recordings, out=tmp_path / "x.json", top=3)
    predict(ensemble(members[:1]), recordings, out=tmp_path / "y.json", top=3)
    assert (tmp_path / "x.json").read_bytes() != (tmp_path / "y.json").read_bytes()
    for other, line in (
        (
            labelling(1, ["a", "b", "d"]),
            "has 3 labels, .* has 3: it lacks c and has d; expected checkpoints of one task",
        ),
        (labelling(1, ["a", "b"]), "has 2 labels, .* has 3: it lacks c; expected"),
        (Pretrained(members[0].checkpoint), "has no head, so it labels nothing"),
    ):
        with pytest.raises(CheckpointError, match=line):
            ensemble([members[0], other])


def test_evaluating_several_in_parts(labelling, demo_shards, tmp_path, monkeypatch, capsys):
    labels = ["alarm", "bell", "bird", "clicks", "engine", "footsteps", "rain", "siren", "waves", "wind"]
    members = [labelling(seed, labels) for seed in (1, 2)]
    for member in members:
        member._modules.checkpoint = dataclasses.replace(member.checkpoint, task={"target": "event"})
    monkeypatch.setattr("ssl_audio.cli.evaluate.ensemble", lambda paths, **options: Ensemble(members[: len(paths)]))
    monkeypatch.setattr(parts, "BLOCK", 4)
    monkeypatch.setattr(rows, "BLOCK", 4)
    words = ["evaluate", "--shards", f"[{demo_shards}]", "--split", "test"]
    both = [*words, "--checkpoint", "a.ckpt", "--checkpoint=b.ckpt"]
    main([*both, "--out", str(tmp_path / "whole")])
    told = capsys.readouterr().out.splitlines()
    assert [line.split(": accuracy ")[0] for line in told[:3]] == ["a.ckpt", "b.ckpt", "mean of 2, 10 clips"]
    for part in (2, 1):
        main([*both, "--out", str(tmp_path / "parts"), "--part", f"{part}/2"])
    main(["evaluate", "merge", str(tmp_path / "parts")])
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["metrics.json", "predictions.parquet"]
    for name in ("metrics.json", "predictions.parquet"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    # Each member has the scores that it has alone.
    main([*words, "--checkpoint", "a.ckpt", "--out", str(tmp_path / "alone")])
    alone, among = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("alone", "whole"))
    assert among["members"][0] == {key: alone[key] for key in among["members"][0]}
    single, mean = (read_predictions(tmp_path / name / "predictions.parquet").scores for name in ("alone", "whole"))
    assert not np.array_equal(single, mean)


def test_labels_of_windows_in_every_format(labelling, folder, tmp_path, capsys):
    model = labelling(0, ["a", "=b", "c"])
    recordings = recordings_of([folder])
    single = Ensemble([model])
    grid = model.grid
    for ending in (".csv", ".parquet", ".tsv", ".json", ".txt"):
        predict_windows(single, recordings, out=tmp_path / f"w{ending}", top=2, overlap_seconds=0.4)
    flat = pq.read_table(tmp_path / "w.parquet").to_pylist()
    with (tmp_path / "w.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(row["path"], f"{row['start']:.3f}") for row in flat] == [(row["path"], row["start"]) for row in lines]
    assert {row["label"] for row in lines} <= {"a", "'=b", "c"}
    assert len(json.loads((tmp_path / "w.json").read_text())) == len(list((tmp_path / "w").glob("*.txt")))
    # The windows of a long recording follow one another, cover all of it, and each says what its sound alone says.
    sound = torch.randn(3 * grid.window) * 0.1
    (windows,) = single.windows(model.sounds(sound, 16000), overlap_seconds=0.4)
    ends = [end for _, end, _ in windows]
    hop = grid.columns - round(0.4 * grid.rate / grid.step)
    assert [start for start, _, _ in windows[:-1]] == [n * hop * grid.step / grid.rate for n in range(len(windows) - 1)]
    assert 0 <= 3 * grid.window / grid.rate - ends[-1] < grid.step / grid.rate
    start, end, scores = windows[1]
    alone = model.predict(sound[round(start * 16000) : round(end * 16000)], sample_rate=16000)[0]
    torch.testing.assert_close(scores, alone)
    with pytest.raises(RecipeError, match=r"overlap_seconds 9: windows last 1\.29 s"):
        list(single.windows(model.sounds(sound, 16000), overlap_seconds=9.0))
    with pytest.raises(RecipeError, match=r"expected a name that ends in \.csv, \.parquet"):
        predict_windows(single, recordings, out=tmp_path / "w.xls", top=1)


def test_windows_in_parts_and_through_kills(labelling, folder, tmp_path, blocks_of_three, monkeypatch):
    member = labelling(1, ["a", "b", "c"])
    member.batch_windows = 2
    monkeypatch.setattr("ssl_audio.cli.predict.models_in", lambda chosen: [member])

    def words(out: str, *more: str) -> list[str]:
        return ["predict", "--checkpoint", "a.ckpt", "--out", str(tmp_path / out), *more, "--windows", str(folder)]

    main(words("whole.csv", "--top", "2"))
    kills = 0
    while dies_at_the_fourth(lambda: main(words("cut.csv", "--top", "2"))):
        kills += 1
        assert kills < 10
    assert kills
    for part in (3, 1, 2):
        main(words("parts.csv", "--top", "2", "--part", f"{part}/3"))
    main(["predict", "merge", str(tmp_path / "parts.csv")])
    assert (tmp_path / "whole.csv").read_bytes() == (tmp_path / "cut.csv").read_bytes()
    assert (tmp_path / "whole.csv").read_bytes() == (tmp_path / "parts.csv").read_bytes()
    assert len((tmp_path / "whole.csv").read_text().splitlines()) > 100
