"""One self-contained HTML page about a run."""

import base64
import dataclasses
import html
from collections.abc import Mapping, Sequence

from ssl_audio.evaluation.terminal_tables import laid_out, terminal_columns
from ssl_audio.names import printable

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.6rem; margin-bottom: 0.2rem; }
h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: 0.8rem 0; }
caption { text-align: left; color: #666; padding-bottom: 0.3rem; }
th, td { padding: 0.25rem 0.9rem 0.25rem 0; text-align: right; border-bottom: 1px solid #ddd;
  font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
td.best { font-weight: 600; }
img { max-width: 100%; }
pre { background: #f5f5f5; padding: 0.8rem; overflow-x: auto; }
details { margin-top: 1.5rem; }
.lead { color: #555; margin-top: 0; }
"""


@dataclasses.dataclass(frozen=True, slots=True)
class ReportTable:
    """Rows under headings; the first column names the row.

    Args:
        caption: What it shows.
        head: Headings.
        rows: Cells; numbers in [0, 1] are shown with three decimals.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str | float]]

    def html(self) -> str:
        """As an HTML table, the best number of each row in bold."""
        head = "".join(f"<th>{html.escape(title)}</th>" for title in self.head)
        body = "".join(f"<tr>{self._row(row)}</tr>" for row in self.rows)
        return f"<table><caption>{html.escape(self.caption)}</caption><tr>{head}</tr>{body}</table>"

    def _row(self, row: Sequence[str | float]) -> str:
        numbers = [cell for cell in row if isinstance(cell, float)]
        best = max(numbers) if len(numbers) > 1 else None
        return "".join(
            f'<td class="best">{shown(cell)}</td>' if cell == best else f"<td>{html.escape(shown(cell))}</td>"
            for cell in row
        )

    def markdown(self) -> str:
        """As a Markdown table under its caption."""
        lines = [self.head, ["---"] * len(self.head), *([shown(cell) for cell in row] for row in self.rows)]
        return "\n".join([f"**{self.caption}**", "", *("| " + " | ".join(line) + " |" for line in lines)])

    def text(self) -> str:
        """As columns for a terminal."""
        cells = [list(map(printable, self.head)), *([shown(cell) for cell in row] for row in self.rows)]
        return laid_out(self.caption, cells, terminal_columns())


def shown(cell: str | float) -> str:
    """A cell as text."""
    return printable(cell) if isinstance(cell, str) else f"{cell:.3f}"


def page(
    title: str,
    lead: str,
    *,
    tables: Sequence[ReportTable],
    pictures: Mapping[str, bytes],
    details: Mapping[str, str],
    command: str,
) -> str:
    """The page; pictures are inside it, so it can be mailed.

    Args:
        title: Heading.
        lead: One sentence below it.
        tables: Shown first.
        pictures: PNG bytes by heading.
        details: Long texts that fold away, by heading.
        command: What to type next.
    """
    parts = [f"<h1>{html.escape(title)}</h1><p class=lead>{html.escape(lead)}</p>"]
    parts += [table.html() for table in tables]
    for heading, png in pictures.items():
        data = base64.b64encode(png).decode()
        parts.append(
            f'<h2>{html.escape(heading)}</h2><img alt="{html.escape(heading)}" src="data:image/png;base64,{data}">'
        )
    parts.append(f"<h2>Next</h2><pre>{html.escape(command)}</pre>")
    parts += [
        f"<details><summary>{html.escape(heading)}</summary><pre>{html.escape(text)}</pre></details>"
        for heading, text in details.items()
    ]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f"<body>{''.join(parts)}</body></html>\n"
    )
