"""Plain data to frozen dataclasses and back: strict, and all faults reported at once."""

import dataclasses
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


class SchemaFault(ValueError):
    """Data that does not fit a dataclass; the message lists every fault with its place."""


def parse(cls: type[T], data: object, where: str = "") -> T:
    """Build the dataclass `cls` from JSON or TOML data.

    Unknown keys, missing keys and wrong types are collected over the whole tree and raised as one SchemaFault.
    Lists become tuples, integers are accepted where a float is asked for, nothing else is converted.
    """
    faults: list[str] = []
    value = _parse(cls, data, where or cls.__name__, faults)
    if faults:
        raise SchemaFault("; ".join(faults))
    return typing.cast(T, value)


def to_plain(value: Any) -> Any:
    """The inverse of `parse`: dataclasses, tuples and mappings to what the json module writes; None is kept."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    return value


def _parse(kind: Any, data: object, where: str, faults: list[str]) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return data
    if origin in (typing.Union, types.UnionType):
        if data is None and type(None) in args:
            return None
        return _parse(next(a for a in args if a is not type(None)), data, where, faults)
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, data, where, faults)
    if origin is tuple:
        if not isinstance(data, (list, tuple)):
            faults.append(f"{where} must be a list")
            return ()
        return tuple(_parse(args[0], item, f"{where}[{i}]", faults) for i, item in enumerate(data))
    if origin is dict:
        if not isinstance(data, dict):
            faults.append(f"{where} must be a table")
            return {}
        return {str(k): _parse(args[1], v, f"{where}.{k}", faults) for k, v in data.items()}
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        faults.append(f"{where} must be {kind.__name__}, not {data!r:.40}")
    return data


def _parse_dataclass(kind: Any, data: object, where: str, faults: list[str]) -> Any:
    if not isinstance(data, dict):
        faults.append(f"{where} must be a table")
        return None
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    faults.extend(f"{where} has an unknown key '{key}'" for key in data if key not in fields)
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _parse(hints[name], data[name], f"{where}.{name}", faults)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            faults.append(f"{where} lacks the key '{name}'")
    if faults:
        return None
    try:
        return kind(**values)
    except ValueError as error:
        faults.append(f"{where}: {error}")
        return None
