"""Tables as people write them: blanks, rows too many, one file in two parts, events of files that are not there."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from ssl_audio.data.clip import Event
from ssl_audio.data.corpora import Table
from ssl_audio.data.corpora.table import events_of
from ssl_audio.data.remarks import say_once
from ssl_audio.data.writing import FINDINGS_NAME, write_shards
from ssl_audio.errors import ShardError


def table(root: Path, text: str, events: str | None = None) -> Table:
    (root / "meta.csv").write_text(text)
    if events is not None:
        (root / "events.tsv").write_text(events)
    return Table(root)


def test_cells_are_stripped_and_rows_of_a_stretch_are_one_clip(tmp_path):
    found = table(
        tmp_path,
        "path , label,split,fold,speaker,start,end\n"
        " a.wav ,dog ; ;, train ,1.0, anna ,,\n"
        "\n"
        ",,,,,,\n"
        "./a.wav,rain;dog,train,1,,,\n"
        'b.wav," ",,,,0.5,1\n'
        "b.wav,cat,test,,,0.5,1.0\n"
        "b.wav,,test,,,1,\n",
    ).recordings()
    assert [recording.clip.source for recording in found] == ["a.wav", "b.wav", "b.wav"]
    first, second, third = [recording.clip for recording in found]
    assert (first.labels, first.split, first.fold, first.speaker) == ({"label": ["dog", "rain"]}, "train", 1, "anna")
    assert (second.labels, second.split, second.key) == ({"label": ["cat"]}, "test", "b")
    assert (third.labels, third.key) == ({}, "b~2")
    assert [(recording.start, recording.end) for recording in found] == [(0, None), (0.5, 1), (1, None)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\na.wav,dog\nb.wav,cat,rain\n", "line 3: 3 cells under a heading of 2"),
        ('path,label\n"a\n.wav",dog\nb.wav,cat,rain\n', "line 4: 3 cells under a heading of 2"),
        ("path,label,label\na.wav,dog,cat\n", "two columns `label`"),
        (
            "path,split,start\na.wav,train,\na.wav,test,1\n",
            r"lines 2 and 3: stretches of a.wav are in the splits 'train'",
        ),
        ("path,fold,start\na.wav,1,\n./a.wav,2,1\n", r"lines 2 and 3: stretches of ./a.wav are in the folds 1 and 2"),
        ("path,split\na.wav,train\na.wav,test\n", "lines 2 and 3: a.wav has the split 'train' and 'test'"),
        ("path,speaker\na.wav,x\na.wav,y\n", "has the speaker 'x' and 'y'"),
        ("path,label\n,dog\n", "line 2: no path"),
        ('path,label\na.wav,"dog\nb.wav,cat\n', "line 3: unexpected end of data; expected quotes around whole cells"),
        ('path,label\na.wav,"dog\nb.wav,"cat\n', "line 3: ',' expected after '\"'; expected quotes around whole cells"),
        ("path,fold\na.wav,one\n", "line 2: invalid literal .* 'one'; expected a whole number for fold"),
        ("path,fold\na.wav,1.5\n", "line 2: invalid literal .* '1.5'"),
        ("path,start\na.wav,nan\n", "'nan' is not finite"),
        ("path,end\na.wav,inf\n", "'inf' is not finite"),
    ],
)
def test_what_is_wrong_in_a_table_is_said_with_its_line(tmp_path, text, words):
    with pytest.raises(ShardError, match=words) as caught:
        table(tmp_path, text).recordings()
    assert "\n" not in str(caught.value)


def test_events_find_their_file_and_their_stretch(tmp_path, caplog):
    say_once.cache_clear()
    text = "path,start,end\nx/a.wav,,\ny/a.wav,,\nb.wav,1,2\nb.wav,2,\n"
    events = "filename\tonset\toffset\tevent_label\nx/a.wav\t0.5\t1\tdog\nz/b.wav\t1.5\t3\train\n"
    events += "c.wav\t0\t1\tcat\nb.wav\t\t\t\n"
    found = table(tmp_path, text, events).recordings()
    assert [recording.clip.events for recording in found] == [
        [Event(label="dog", onset=0.5, offset=1)],
        [],
        [Event(label="rain", onset=0.5, offset=1)],
        [Event(label="rain", onset=0, offset=1)],
    ]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'events.tsv'}: 1 event is of a file that is not in the table: c.wav (line 4)"
    ]
    with pytest.raises(ShardError, match=r"line 2: a.wav may be x/a.wav or y/a.wav; expected its path"):
        table(tmp_path, text, "path\tonset\toffset\tlabel\na.wav\t0\t1\tdog\n").recordings()
    (tmp_path / "events.tsv").write_text("filename\tonset\toffset\tevent_label\na.wav\t0\tnan\tdog\n")
    with pytest.raises(ShardError, match="line 2: 'nan' is not finite"):
        events_of(tmp_path / "events.tsv")
    for text, line in (
        ("filename,onset,offset,event_label\na.wav,0,1,dog\n", r"no columns? `onset`.*it has filename,onset,offset"),
        (
            "file\tonset\toffset\tlabel\na.wav\t0\t1\tdog\n",
            "no column path or filename; it has file, onset",
        ),
        ("path\tonset\toffset\tclass\na.wav\t0\t1\tdog\n", "no column event_label or label; it has path"),
        (
            "filename\tonset\toffset\tevent_label\n",
            r"no rows; expected one a clip under a heading with col.* `onset`",
        ),
    ):
        (tmp_path / "events.tsv").write_text(text)
        with pytest.raises(ShardError, match=line):
            events_of(tmp_path / "events.tsv")


def test_an_end_beyond_the_file_is_said(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 16000), 16000)
    corpus = table(tmp_path, "path,start,end\na.wav,0,0.5\na.wav,0.25,1.05\na.wav,0.5,30\n")
    manifest = write_shards(corpus, tmp_path.with_name("out"), name="t")
    assert manifest.clips == 3
    assert manifest.written["findings"] == {"end": 1}
    found = (tmp_path.with_name("out") / FINDINGS_NAME).read_text()
    assert 'a~3,a.wav,end,"was to end at 30 s, but its file ends at 1.00 s"' in found


def test_an_event_that_ends_after_its_clip_is_said(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 16000), 16000)
    for end, found in (("1.05", None), ("44", {"late": 1})):  # annotations are rounded up
        events = f"filename\tonset\toffset\tevent_label\na.wav\t0.5\t{end}\tdog\n"
        corpus = table(tmp_path, "path,split\na.wav,train\n", events)
        manifest = write_shards(corpus, tmp_path.with_name(f"late{end}"), name="t")
        assert manifest.written.get("findings") == found
    text = (tmp_path.with_name("late44") / FINDINGS_NAME).read_text()
    assert "event 'dog' from 0.5 to 44 s ends after the clip, which lasts 1 s; what lies within is used" in text
