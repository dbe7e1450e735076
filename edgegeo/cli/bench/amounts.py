"""Amounts with their units, as people write limits: 200ms, 2GB, 80%."""

import re

from edgegeo.errors import InputError

_MS = {"ms": 1.0, "s": 1e3, "us": 1e-3, "": 1.0}
_MB = {"": 1.0, "mb": 1.0, "mib": 1.0, "gb": 1024.0, "gib": 1024.0, "kb": 1 / 1024, "kib": 1 / 1024}
_J = {"": 1.0, "j": 1.0, "mj": 1e-3}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z%]*)\s*")


def milliseconds(text: str, name: str) -> float:
    """A time; without a unit milliseconds."""
    return _amount(text, name, _MS, "a time such as 200ms or 1.5s")


def megabytes(text: str, name: str) -> float:
    """Memory in MB of 2**20 bytes, as the reports count; without a unit MB."""
    return _amount(text, name, _MB, "an amount of memory such as 2GB or 900MB")


def joules(text: str, name: str) -> float:
    """Energy; without a unit joules."""
    return _amount(text, name, _J, "an energy such as 2J or 150mJ")


def share(text: str, name: str) -> float:
    """A share between 0 and 1: 80%, or 0.8."""
    value = _amount(text, name, {"%": 0.01, "": 1.0}, "a share such as 5% or 0.05")
    if value > 1:
        raise InputError(f"{name} takes a share up to 100 %, not {text}; write 5% or 0.05")
    return value


def _amount(text: str, name: str, units: dict[str, float], what: str) -> float:
    found = _AMOUNT.fullmatch(text)
    if not found or found[2].lower() not in units:
        raise InputError(f"{name} takes {what}, not {text!r:.40}")
    return float(found[1]) * units[found[2].lower()]
