"""What an evaluation on a data set gives: outcomes a query, the metrics made of them, and the change between two."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import InputError
from edgegeo.evaluate.bootstrap import Metric, clustered, interval, median, paired, paired_clustered
from edgegeo.evaluate.card import plain

Values = NDArray[np.float64]
Unit = Literal["share", "km", "points"]
_NAMED = 100
"""Unusable items that a report names one by one."""


@dataclass(frozen=True)
class Outcome:
    """One number a query."""

    name: str
    unit: Unit
    values: Values
    """(N,); NaN for queries it does not apply to, infinite km for no answer."""
    middle: bool = False
    """Summarised by the median rather than the mean."""

    @property
    def applies(self) -> NDArray[np.bool_]:
        """(N,) the queries it applies to."""
        return ~np.isnan(self.values)


@dataclass(frozen=True)
class Section:
    """One protocol in one direction: numbers of different sections are never to be compared."""

    protocol: str
    direction: str
    """Such as "text to image", or "image to position"."""
    source: str
    queries: int
    gallery: int | None
    outcomes: tuple[Outcome, ...]
    groups: tuple[str, ...]
    """Of each query. Queries of one place stand or fall together, so whole groups are resampled."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What has no interval."""
    columns: dict[str, Sequence[Any]] = field(default_factory=dict, repr=False)
    """What became of each query, by name (N each): for a researcher who looks at failures."""

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Every outcome that applies to a query at all, with its 95 % interval."""
        return {o.name: self._metric(o) for o in self.outcomes if o.applies.any()}

    def change(self, before: "Section") -> dict[str, Metric]:
        """This minus another run over the same queries, paired; InputError for other queries."""
        if (self.protocol, self.direction, self.groups) != (before.protocol, before.direction, before.groups):
            raise InputError("the two runs were scored on different queries; compare runs over the same data")
        known = {o.name: o for o in before.outcomes}
        found = {}
        for one in self.outcomes:
            other = known[one.name]
            both = one.applies & other.applies
            if not both.any():
                continue
            if one.middle:
                found[one.name] = paired(one.values[both], other.values[both], median)
            else:
                found[one.name] = paired_clustered(one.values[both], other.values[both], self._numbers[both])
        return found

    def details(self) -> Iterator[dict[str, Any]]:
        """One row a query."""
        for values in zip(*self.columns.values(), strict=True):
            yield {"protocol": self.protocol, "direction": self.direction} | dict(
                zip(self.columns, values, strict=True)
            )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "protocol": self.protocol,
            "direction": self.direction,
            "source": self.source,
            "queries": self.queries,
            "gallery": self.gallery,
            "groups": len(set(self.groups)),
            "metrics": {
                o.name: {"unit": o.unit, "queries": int(o.applies.sum()), **plain(self.metrics[o.name])}
                for o in self.outcomes
                if o.name in self.metrics
            },
            **self.facts,
        }

    def _metric(self, outcome: Outcome) -> Metric:
        values = outcome.values[outcome.applies]
        return interval(values, median) if outcome.middle else clustered(values, self._numbers[outcome.applies])

    @cached_property
    def _numbers(self) -> NDArray[np.int64]:
        """Groups as numbers, in the order they come."""
        known: dict[str, int] = {}
        return np.array([known.setdefault(group, len(known)) for group in self.groups], np.int64)


@dataclass(frozen=True)
class Unusable:
    """An item the model could not take: it counts as a miss."""

    id: str
    side: str
    """query, gallery or picture."""
    why: str


@dataclass(frozen=True)
class Result:
    """One subject on one data set."""

    subject: str
    kind: str
    about: dict[str, Any]
    """What exactly was scored."""
    sections: tuple[Section, ...]
    unusable: tuple[Unusable, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON; unusable items are all counted, and the first hundred named."""
        return {
            "name": self.subject,
            "kind": self.kind,
            **self.about,
            "sections": [section.to_dict() for section in self.sections],
            "unusable": len(self.unusable),
            "unusable_items": [vars(one) for one in self.unusable[:_NAMED]],
        }
