"""Comparing two results: what moved, what is noise, what may not be compared."""

from typing import Any

import numpy as np
import pytest
from measured import MACHINE, row, share

from edgegeo.bench.accuracy import card_of, unpack_hits
from edgegeo.bench.changes import (
    BETTER,
    FAILED,
    FASTER,
    LARGER,
    SLOWER,
    UNSURE,
    WORSE,
    Limits,
    accuracy_change,
    compare,
)
from edgegeo.errors import InputError

NOISY = [6.0, 14.0, 7.0, 16.0, 9.0, 11.0, 5.0, 15.0, 12.0]


def verdicts(before: dict[str, Any], after: dict[str, Any], limits: Limits | None = None) -> tuple[str, ...]:
    [change] = compare([before], [after], limits or Limits()).changes
    return change.verdicts


@pytest.mark.parametrize(("ms", "said"), [(10.0, ()), (10.3, ()), (11.0, (SLOWER,)), (9.0, (FASTER,))])
def test_times_beyond_the_limit(ms: float, said: tuple[str, ...]) -> None:
    assert verdicts(row(), row(ms=ms)) == said


def test_what_noise_alone_could_have_done_does_not_fail() -> None:
    told = compare([row()], [row(samples_ms=NOISY)], Limits())
    assert told.changes[0].verdicts == (UNSURE,)
    assert not told.bad
    assert told.changes[0].time_low < 0 < told.changes[0].time_high


def test_the_interval_of_a_ratio() -> None:
    [change] = compare([row()], [row(ms=20.0)], Limits()).changes
    assert change.time == pytest.approx(1.0)
    assert 0.9 < change.time_low < 1.0 < change.time_high < 1.1


def test_memory_beyond_the_limit() -> None:
    memory = {"first_result": 70.0, "peak": 90.0, "proportional": 50.0}
    assert verdicts(row(), row(memory_mb=memory)) == (LARGER,)
    assert verdicts(row(), row(memory_mb=memory), Limits(share=0.2)) == ()


def test_accuracy_is_paired_place_by_place() -> None:
    chance = np.random.default_rng(0)
    right = (chance.random(400) < 0.6).astype(float)
    lower = right.copy()
    lower[np.flatnonzero(right)[:12]] = 0  # three points less, and never the other way round
    before, after = ({**card_of({"gps_within_750_km": hits})} for hits in (right, lower))
    assert (unpack_hits(before["gps_within_750_km"]["hits"], 400) == right).all()
    one, two = row(accuracy=before), row(accuracy=after)
    assert verdicts(one, two) == (WORSE,)
    assert verdicts(two, one) == (BETTER,)
    # The intervals alone overlap, so that without the places nothing could be said.
    for card in (before, after):
        del card["gps_within_750_km"]["hits"]
    assert verdicts(row(accuracy=before), row(accuracy=after)) == ()
    unpaired = accuracy_change(row(accuracy=before), row(accuracy=after))
    assert unpaired is not None
    assert unpaired["low"] < unpaired["value"] < 0 < unpaired["high"]


def test_a_drop_within_the_points_allowed() -> None:
    one, two = row(accuracy=share(0.8, half=0.001)), row(accuracy=share(0.795, half=0.001))
    assert verdicts(one, two) == ()
    assert verdicts(one, two, Limits(points=0.001)) == (WORSE,)


def test_a_cell_that_fails_now() -> None:
    assert verdicts(row(), row(error="killed")) == (FAILED,)
    assert verdicts(row(error="killed"), row()) == ()


def test_two_machines_are_refused_unless_asked_for() -> None:
    other = row(machine={**MACHINE, "cores": 8})
    with pytest.raises(InputError, match=r"cores: 2 and 8.*--across-machines"):
        compare([row()], [other], Limits())
    told = compare([row()], [other], Limits(), across=True)
    assert "machines differ: cores: 2 and 8" in told.notes


def test_other_bundles_code_and_governors_are_named() -> None:
    other = row(fingerprint="0" * 64, versions={"code": "def"}, machine={**MACHINE, "governor": "powersave"})
    assert compare([row()], [other], Limits()).notes == (
        "governor: none before, powersave after", "bundles differ: int8", "versions or code differ: int8",
    )  # fmt: skip


def test_cells_of_one_result_only() -> None:
    told = compare([row(), row("fp32")], [row(), row("int4")], Limits())
    assert (told.only_before, told.only_after) == (("fp32 generate batch 1",), ("int4 generate batch 1",))
    with pytest.raises(InputError, match="no cell in common"):
        compare([row()], [row("int4")], Limits())
