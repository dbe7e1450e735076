"""What became slower, faster, larger or less accurate between two sets of results, told apart from noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgegeo.bench.front import score
from edgegeo.bench.machine import same_machine
from edgegeo.bench.rows import Row, describe, setting
from edgegeo.errors import InputError

SLOWER, FASTER, LARGER, SMALLER = "slower", "faster", "more memory", "less memory"
WORSE, BETTER, FAILED, UNSURE = "less accurate", "more accurate", "failed", "too noisy to tell"
BAD = (SLOWER, LARGER, WORSE, FAILED)


@dataclass(frozen=True)
class Limits:
    """From which change on a cell is named."""

    share: float = 0.05
    """Of time and of peak memory, as a share of what it was."""
    points: float = 0.01
    """Of accuracy, as a difference of shares: 0.01 is one point."""


@dataclass(frozen=True)
class Change:
    """One cell in both results."""

    cell: str
    verdicts: tuple[str, ...]
    """Any of the words above; empty where nothing changed beyond limits and noise."""
    time: float
    """Median time after over before, less 1."""
    time_low: float
    time_high: float
    """Its 95 % interval."""
    memory: float
    """Peak memory after over before, less 1."""
    accuracy: dict[str, float] | None
    """Difference of shares with its interval; None where one of them has none."""

    @property
    def bad(self) -> bool:
        """Whether it fails a comparison."""
        return any(verdict in BAD for verdict in self.verdicts)


@dataclass(frozen=True)
class Comparison:
    """Two results side by side."""

    changes: tuple[Change, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    notes: tuple[str, ...]
    """What else differs: bundles, versions, machines where that was allowed."""

    @property
    def bad(self) -> bool:
        """Whether any cell became slower, larger or less accurate, or failed."""
        return any(change.bad for change in self.changes)


def compare(before: Sequence[Row], after: Sequence[Row], limits: Limits, across: bool = False) -> Comparison:
    """Cells of the same setting, whatever their bundles, versions and code. InputError for two machines, unless
    `across`, and for results without a common cell.

    A cell is slower or faster if its median moved by more than `limits.share` and the interval of the ratio leaves out
    1; if it moved so far and noise alone could have done it, it is too noisy to tell. Accuracy moved likewise.
    """
    ours, theirs = {setting(row): row for row in before}, {setting(row): row for row in after}
    shared = [key for key in ours if key in theirs]
    if not shared:
        raise InputError(
            f"the two results have no cell in common: the first holds {describe(before[0])}, the second "
            f"{describe(after[0])}; measure the same sweep twice"
        )
    notes = _machines([(ours[key]["machine"], theirs[key]["machine"]) for key in shared], across)
    for name in ("fingerprint", "versions"):
        moved = {str(ours[key].get("label")) for key in shared if ours[key].get(name) != theirs[key].get(name)}
        if moved:
            notes.append(
                f"{'bundles' if name == 'fingerprint' else 'versions or code'} differ: {', '.join(sorted(moved))}"
            )
    return Comparison(
        tuple(_change(ours[key], theirs[key], limits) for key in shared),
        tuple(describe(row) for key, row in ours.items() if key not in theirs),
        tuple(describe(row) for key, row in theirs.items() if key not in ours),
        tuple(notes),
    )


def time_change(before: Row, after: Row) -> tuple[float, float, float]:
    """Median time after over before, less 1, and its 95 % interval: log intervals of both, added in quadrature."""
    one, two = before["latency_ms"], after["latency_ms"]
    ratio = math.log(two["p50"] / one["p50"])
    # The lowest ratio is the lowest "after" over the highest "before".
    down = math.hypot(math.log(two["p50"] / two["p50_low"]), math.log(one["p50_high"] / one["p50"]))
    up = math.hypot(math.log(two["p50_high"] / two["p50"]), math.log(one["p50"] / one["p50_low"]))
    return math.expm1(ratio), math.expm1(ratio - down), math.expm1(ratio + up)


def accuracy_change(before: Row, after: Row) -> dict[str, float] | None:
    """Accuracy after less before, with its 95 % interval; None where one of them was not measured.

    Paired by place where both results tell who was right; otherwise the two intervals are added in quadrature, which
    is wider.
    """
    one, two = score(before), score(after)
    if one is None or two is None:
        return None
    known: tuple[Any, ...] = (one.get("hits"), two.get("hits"))
    if all(known) and one["places"] == two["places"]:
        from edgegeo.bench.accuracy import unpack_hits
        from edgegeo.evaluate.bootstrap import paired

        places = int(one["places"])
        return dict(vars(paired(unpack_hits(known[1], places), unpack_hits(known[0], places))))
    value = two["value"] - one["value"]
    down = math.hypot(two["value"] - two["low"], one["high"] - one["value"])
    up = math.hypot(two["high"] - two["value"], one["value"] - one["low"])
    return {"value": value, "low": value - down, "high": value + up}


def _machines(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]], across: bool) -> list[str]:
    """What differs between the machines of each cell; InputError for two machines unless `across`."""
    faults = dict.fromkeys(fault for one, two in pairs for fault in same_machine(one, two))
    if faults and not across:
        raise InputError(
            f"the results come from two machines ({'; '.join(faults)}); compare results of one machine, or pass "
            "--across-machines"
        )
    notes = [f"machines differ: {fault}" for fault in faults]
    for name in ("governor", "power_mode", "container", "system"):
        told = dict.fromkeys(
            f"{name.replace('_', ' ')}: {one.get(name) or 'none'} before, {two.get(name) or 'none'} after"
            for one, two in pairs
            if one.get(name) != two.get(name)
        )
        notes += told
    return notes


def _change(before: Row, after: Row, limits: Limits) -> Change:
    name = describe(after)
    if "error" in before or "error" in after:
        return Change(name, (FAILED,) if "error" in after else (), 0.0, 0.0, 0.0, 0.0, None)
    verdicts: tuple[str, ...] = ()
    time, low, high = time_change(before, after)
    if abs(time) > limits.share:
        verdicts += (SLOWER,) if low > 0 else (FASTER,) if high < 0 else (UNSURE,)
    memory = after["memory_mb"]["peak"] / before["memory_mb"]["peak"] - 1
    if abs(memory) > limits.share:
        verdicts += (LARGER if memory > 0 else SMALLER,)
    accuracy = accuracy_change(before, after)
    if accuracy is not None and abs(accuracy["value"]) > limits.points:
        if accuracy["high"] < 0:
            verdicts += (WORSE,)
        elif accuracy["low"] > 0:
            verdicts += (BETTER,)
    return Change(name, verdicts, time, low, high, memory, accuracy)
