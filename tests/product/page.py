"""What the trials of pairs found: whether each refusal says what it must, and all of it as tables in Markdown."""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence

from product.matrix import Matrix
from product.parts import Part
from product.trial import Outcome

_TO_DO = re.compile(r"\b(expected|set|use|take|leave|let|choose|keep|train|do not)\b")
_FIRST_SECTION = "## Parts\n"
_TRIPLES = re.compile(r"^## Three parts together\n.*?\n(?=## Parts$)", re.MULTILINE | re.DOTALL)
_INTRODUCTION = """# Which parts combine

Every pair of parts is built on a minute model, trained for one step, saved, read back and asked; clips must not
change each other, padded or packed. A pair works, or one of the project's errors refuses it in one line that names
both parts and says what to do.

This page is written by `python tests/soak/combinations.py --out docs/product.md`, which finds the parts (subclasses,
and variants that recipes have) and ends with 1 where anything else happens. Every part is tried on every encoder;
between other axes one part stands for those of its group. A variant stands in brackets behind its class. Pairs with a
use (the last axis) are trained, saved and put to that use; FILE is their checkpoint. Methods of continual learning
choose adapters and objectives themselves: `python tests/soak/methods.py` tries each with every part of the other axes,
merging among them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What became of a pair."""

    one: Part
    other: Part
    outcome: Outcome

    @property
    def line(self) -> str:
        """Why it was refused, without the path of a trial's file."""
        return line_of(self.outcome.reason)

    @property
    def lacks(self) -> str | None:
        """What its refusal does not say; None if nothing is missing."""
        line = self.line
        if not line or "\n" in line:
            return "one line"
        for part in (self.one, self.other):
            if not any(re.search(rf"\b{re.escape(word)}", line, re.IGNORECASE) for word in part.words):
                return f"the name of {part.axis} {part.name}"
        return None if _TO_DO.search(line) else "what to do"


def line_of(reason: str) -> str:
    """A reason without the path of a trial's file."""
    return re.sub(r"\S*/\S+?\.ckpt: ", "FILE: ", reason)


def names(parts: Sequence[Part]) -> str:
    """Of the parts of an axis, as the page has them."""
    return "; ".join(part.name for part in parts if part.name != "none")


def run(matrix: Matrix, *axes: str) -> list[Found]:
    """Try all pairs, or those of some axes."""
    return [Found(one, other, matrix.pair(one, other)) for one, other in matrix.pairs(*axes)]


def text(found: Sequence[Found], parts: dict[str, list[Part]]) -> str:
    """Tables of the parts, of the counts and of every refusal with its reason, in Markdown."""
    works, refused = [[one for one in found if one.outcome.works is kind] for kind in (True, False)]
    axes = list(parts)
    lines = [*_INTRODUCTION.splitlines(), ""]
    lines += [f"{len(found)} pairs: **{len(works)} work, {len(refused)} are refused.**", "", "## Parts", ""]
    lines += ["| axis | parts |", "|---|---|"]
    lines += [f"| {axis} | {names(parts[axis])} |" for axis in axes]
    counts = Counter((one.one.axis, one.other.axis) for one in found)
    good = Counter((one.one.axis, one.other.axis) for one in works)
    lines += [
        "",
        "## How many pairs work",
        "",
        f"| works of tried | {' | '.join(axes[1:])} |",
        f"|---|{'---|' * len(axes[1:])}",
    ]
    for axis in axes[:-1]:
        cells = [f"{good[axis, other]}/{counts[axis, other]}" if counts[axis, other] else "" for other in axes[1:]]
        lines.append(f"| {axis} | {' | '.join(cells)} |")
    reasons: dict[str, list[str]] = {}
    for one in refused:
        reasons.setdefault(one.line, []).append(f"{one.one.name} with {one.other.name}")
    lines += ["", "## What is refused, and what the user reads", "", "| refused | message |", "|---|---|"]
    for reason, which in reasons.items():
        lines.append(f"| {'; '.join(which)} | {reason.replace('|', '/')} |")
    return "\n".join(lines)


def with_triples(text: str, before: str) -> str:
    """The page with the section of triples that it had before, if it had one."""
    found = _TRIPLES.search(before)
    return text if found is None else text.replace(_FIRST_SECTION, f"{found[0]}{_FIRST_SECTION}", 1)


def told_of_triples(page: str, told: str) -> str:
    """The page with what a run of triples found, in place of what one before found."""
    plain = _TRIPLES.sub("", page)
    return plain.replace(_FIRST_SECTION, f"## Three parts together\n\n{told}\n\n{_FIRST_SECTION}", 1)
