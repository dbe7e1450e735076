"""Plain data to dataclasses."""

from dataclasses import dataclass

import pytest

from edgegeo.schema import SchemaFault, parse, to_plain


@dataclass(frozen=True)
class Inner:
    size: int
    scale: float = 1.0


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    many: tuple[Inner, ...] = ()
    table: dict[str, float] | None = None


def test_round_trip() -> None:
    value = Outer("x", Inner(3, 0.5), (Inner(1), Inner(2)), {"a": 1.0})
    assert parse(Outer, to_plain(value)) == value


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(SchemaFault) as fault:
        parse(Outer, {"inner": {"size": "big", "colour": 1}, "many": 3, "extra": 0})
    message = str(fault.value)
    for part in ("'name'", "inner.size must be int", "'colour'", "many must be a list", "'extra'"):
        assert part in message


def test_a_bool_is_not_an_int() -> None:
    with pytest.raises(SchemaFault):
        parse(Inner, {"size": True})
