"""What a terminal of 80 columns shows: tables, progress, and no colours where NO_COLOR is set."""

import io
import re
import sys

from ssl_audio.evaluation.report import ReportTable
from ssl_audio.experiments.progress import bar

WORDS = "dog -20.3 dB, rain -35.1 dB, clock tick -41.0 dB, a door that is slammed -12.1 dB"
TABLES = (
    ReportTable(
        "how well the label is told, by what should not tell it: 300 clips, no recording on both sides",
        ["shortcut", "verdict", "balanced accuracy", "95 % interval", "p", "labels furthest apart"],
        [["level", "gives some of it away", 0.431, "0.361 to 0.502", "0.001", WORDS], ["noise", "no", 0.1, "", "", ""]],
    ),
    ReportTable(
        "transformer tiny, 8 clips of 10 s",
        ["step", "precision", "ms", "clips/s", "times reference", "GFLOP", "of product bound", "MiB", "of data sheet"],
        [["published", "bfloat16", "3012 ± 129", "2.7", "1.00", "1510", "33%", "1203", ""]],
    ),
)


def test_tables_fit_and_keep_every_word(monkeypatch):
    for table in TABLES:
        monkeypatch.setenv("COLUMNS", "80")
        narrow = table.text()
        assert max(map(len, narrow.split("\n"))) <= 80
        monkeypatch.setenv("COLUMNS", "1000")
        wide = table.text()
        assert wide.count("\n") == len(table.rows) + 1
        assert sorted(narrow.split()) == sorted(wide.split())


def test_a_bar_fits_and_has_no_colours(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with bar("writing shards/a_folder_with_a_long_name") as progress:
        for done in (1, 500, 3980):
            progress(done, 3980)
    written = terminal.getvalue()
    assert "3980/3980" in written
    assert not re.search(r"\x1b\[(3|4|9|10)[0-7][;m]|\x1b\[[34]8;", written)
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written))
    assert max(map(len, lines)) <= 80
