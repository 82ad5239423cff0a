"""All pairs of parts, tried on the smallest model that has a place for both.

A part is first tried alone: its *host* is what must be exchanged in the base model so that it works. A pair is tried on
the base, on the hosts of both, and on every encoder that has a place for each; it works if it works on one of them.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

from product.parts import Part, meet
from product.trial import Outcome, attempt, base

Host = dict[str, Part]
Name = tuple[str, str]
"""Axis and name of a part."""
_HOSTS = ("positions", "places", "objective", "adapters")
"""Axes in which a part may need something else than the base has."""
_NEEDY = ("objective", "use")
"""Axes of parts that may need it."""


@dataclasses.dataclass
class Matrix:
    """The product.

    Args:
        parts: By axis.
        files: A folder for checkpoints; see `trial.workplace`.
        hosted: On what each pair works, or is refused; see `pair`.
    """

    parts: dict[str, list[Part]]
    files: Path
    hosts: dict[Name, list[Host]] = dataclasses.field(default_factory=dict)
    refusals: dict[tuple[Name, str], str] = dataclasses.field(default_factory=dict)
    broken: dict[tuple[Name, Name], str] = dataclasses.field(default_factory=dict)
    hosted: dict[frozenset[Name], Host] = dataclasses.field(default_factory=dict)
    tried: int = 0

    def __post_init__(self) -> None:
        self.base = base(self.parts)

    def attempt(self, *parts: Part, host: Host) -> Outcome:
        """Try parts on a host; they count more than what it says."""
        self.tried += 1
        return attempt({**self.base, **host, **{part.axis: part for part in parts}}, self.files)

    def encoders_of(self, part: Part) -> list[Host]:
        """A host of a part for every encoder that has a place for it; the base's encoder first."""
        if (part.axis, part.name) not in self.hosts:
            self.hosts[part.axis, part.name] = list(self._hosts(part))
        return self.hosts[part.axis, part.name]

    def stands_for(self, part: Part) -> Part:
        """The part of its group that most encoders have a place for, and the plainest of those."""
        group = [one for one in self.parts[part.axis] if one.group == part.group]
        if len(group) == 1:
            return part
        return min(group, key=lambda one: (-len(self.encoders_of(one)), len(str(one.value))))

    def _hosts(self, part: Part) -> Iterator[Host]:
        known: list[Host] = []
        for encoder in sorted(self.parts["encoder"], key=lambda one: (one != self.base["encoder"], "(" in one.name)):
            for host in known or itertools.chain([{}], self._wider(part, two=encoder == self.base["encoder"])):
                outcome = self.attempt(part, encoder, host=host)
                if outcome.reason and (not host or host in known):
                    self.refusals[(part.axis, part.name), encoder.name] = outcome.reason
                if outcome.broken:
                    self.broken[(part.axis, part.name), ("encoder", encoder.name)] = outcome.broken
                if outcome.works:
                    known = known or [host]
                    yield {**host, "encoder": encoder}
                if outcome.works or outcome.broken:
                    break

    def _wider(self, part: Part, *, two: bool) -> Iterator[Host]:
        """One thing exchanged in the base, then two, in case the part needs it."""
        if part.axis not in _NEEDY:
            return
        chosen = [[{axis: one} for one in self.parts[axis]] for axis in _HOSTS if axis != part.axis]
        yield from itertools.chain.from_iterable(chosen)
        for some, others in itertools.combinations(chosen, 2) if two else ():
            yield from ({**one, **other} for one, other in itertools.product(some, others))

    def pair(self, one: Part, other: Part) -> Outcome:
        """What becomes of two parts."""
        if other.axis == "encoder":
            one, other = other, one
        names = frozenset({(one.axis, one.name), (other.axis, other.name)})
        first, second = self.encoders_of(one), self.encoders_of(other)
        if one.axis == "encoder":
            found = [host for host in second if host["encoder"] == one]
            self.hosted[names] = found[0] if found else {"encoder": one}
            if found:
                return Outcome(True)
            broken = self.broken.get(((other.axis, other.name), ("encoder", one.name)), "")
            return Outcome(False, reason=self.refusals.get(((other.axis, other.name), one.name), ""), broken=broken)
        common = [{**a, **b} for a in first for b in second if a["encoder"] == b["encoder"]]
        if not common:
            return Outcome(False, reason=f"no encoder takes both: {self._why(one, second)}; {self._why(other, first)}")
        refused: Outcome | None = None
        for host in common:
            outcome = self.attempt(one, other, host=host)
            if outcome.works or outcome.broken:
                self.hosted[names] = host
                return outcome
            self.hosted.setdefault(names, host)
            refused = refused or outcome
        assert refused is not None
        return refused

    def _why(self, part: Part, hosts: list[Host]) -> str:
        names = [host["encoder"].name for host in hosts]
        found = (self.refusals.get(((part.axis, part.name), name)) for name in names)
        return next((reason for reason in found if reason), "")

    def pairs(self, *axes: str) -> Iterator[tuple[Part, Part]]:
        """All pairs that are tried: every part on every encoder, and of other axes one part for each group.

        Args:
            axes: Of these alone; without any, of all.
        """
        for one, other in itertools.combinations([axis for axis in self.parts if not axes or axis in axes], 2):
            if not meet(one, other):
                continue
            for a, b in itertools.product(self.parts[one], self.parts[other]):
                if self.base[other] == b or (one != "encoder" and self.base[one] == a):
                    continue
                if one == "encoder" or (self.stands_for(a) == a and self.stands_for(b) == b):
                    yield a, b
