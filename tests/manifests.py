"""Manifests as hypothesis draws them: as they should be, and with something in them that should not."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from ssl_audio.data.manifest import FILE_NAME, Manifest, Shard
from ssl_audio.errors import ShardError

names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)


@st.composite
def whole(draw: st.DrawFn) -> Manifest:
    """A manifest that may be."""
    clips = draw(st.lists(st.integers(0, 1000), min_size=1, max_size=4))
    total = sum(clips)
    counts = st.dictionaries(names, st.integers(0, total), max_size=3)
    return Manifest(
        corpus=draw(names),
        licence=draw(names),
        clips=total,
        seconds=draw(st.floats(0, 1e9)),
        splits=dict.fromkeys(draw(st.sets(names, max_size=4)), total // 4),
        labels=draw(st.dictionaries(names, counts, max_size=3)),
        speakers=draw(st.integers(0, total)),
        log_mel={"mean": draw(numbers), "std": abs(draw(numbers))},
        shards=[
            Shard(name=f"shard-{number:06d}.tar", clips=some, bytes=draw(st.integers(0, 2**40)), sha256="ab" * 32)
            for number, some in enumerate(clips)
        ],
        rejected=draw(st.integers(0, 100)),
        sample_rate=draw(st.integers(8000, 96000)),
        written=draw(st.dictionaries(names.filter("findings".__ne__), st.none() | numbers | names, max_size=3)),
    )


odd = st.one_of(
    st.sampled_from(
        [
            None,
            True,
            -1,
            0,
            0.5,
            float("nan"),
            float("inf"),
            10**400,
            2**53,
            "",
            [],
            {},
            [[]],
            "\ud800",
            "\n",
            "x" * 9999,
        ]
    ),
    st.sampled_from(
        ["../a.tar", "/etc/passwd", "a/b.tar", "..tar", ".tar", "a.tar\0", "a.tar/", "C:\\a.tar", "pipe:cat.tar"]
    ),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=5
    ),
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, one in inner for place in _places(one, (*path, key))]


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """The text of a manifest of which one to three places were put, taken away, doubled or added; or which is cut."""
    found: Any = json.loads(json.dumps(_plain(draw(whole()))))
    for _ in range(draw(st.integers(1, 3))):
        places = _places(found)
        if not places:
            break
        *path, last = draw(st.sampled_from(places))
        holder = found
        for key in path:
            holder = holder[key]
        kind = draw(st.sampled_from(["put", "take", "add"]))
        if kind == "put":
            holder[last] = draw(odd)
        elif kind == "take":
            del holder[last]
        elif isinstance(holder, dict):
            holder[draw(names)] = draw(odd)
        else:
            holder.append(holder[last] if draw(st.booleans()) else draw(odd))
    text = json.dumps(found).encode()
    cut = draw(st.sampled_from(["", "", "", "end", "byte", "deep"]))
    if cut == "end":
        return text[: draw(st.integers(0, len(text)))]
    if cut == "byte":
        at = draw(st.integers(0, len(text) - 1))
        return text[:at] + bytes([draw(st.integers(0, 255))]) + text[at + 1 :]
    return b'{"written":' + b"[" * 100_000 if cut == "deep" else text


def _plain(manifest: Manifest) -> dict[str, Any]:
    return dataclasses.asdict(manifest)


def check(folder: Path, text: bytes) -> bool:
    """Read what may be a manifest: it is one whose numbers hold together, or one line says why not.

    Returns:
        Whether it is one.
    """
    (folder / FILE_NAME).write_bytes(text)
    try:
        found = Manifest.load(folder)
    except ShardError as error:
        line = str(error)
    else:
        line = ""
    assert "\n" not in line
    assert len(line) < 400 + len(str(folder))
    if line:
        return False
    assert found.clips == sum(shard.clips for shard in found.shards) >= max([0, found.speakers])
    assert found.shards
    for shard in found.shards:
        assert (folder / shard.name).resolve().parent == folder.resolve()
    numbers = [found.seconds, *found.log_mel.values()]
    assert all(type(number) is float and number - number == 0 for number in numbers)
    found.save(folder)
    assert Manifest.load(folder) == found
    return True
