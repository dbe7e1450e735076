"""Positions in a model's own words. No answer is None, never 0,0."""

import json
import re
from typing import Any

from edgegeo.errors import InputError
from edgegeo.geo import Position

_NUMBER = r"([+-]?\d{1,3}(?:\.\d{1,17})?)"
# re.ASCII: digits of other scripts and unusual blanks are no answer.
_PAIR = re.compile(rf"\s*{_NUMBER}\s*,\s*{_NUMBER}\s*", re.ASCII)
_NAMED = re.compile(rf"\s*lat:\s*{_NUMBER}\s*,?\s*lon:\s*{_NUMBER}\s*", re.ASCII)
_DECIMAL = re.compile(_NUMBER, re.ASCII)
_OPEN, _CLOSE = "<answer>", "</answer>"


def parse_answer(text: str) -> Position | None:
    """The position a model answered, in the forms of GeoLocSFT (arXiv 2506.01277) and of edgegeo's own training.

    `<answer>lat, lon</answer>`, `<answer> lat: -12.34567 lon: 45.67890 </answer>`, or a geo-caption JSON with
    `answer.coordinates.latitude` and `.longitude`. Anything else is None: no tag, two tags, an unclosed tag, NaN, 91
    degrees, digits of other scripts, cut-off JSON.
    """
    if _OPEN in text or _CLOSE in text:
        if text.count(_OPEN) != 1 or text.count(_CLOSE) != 1:
            return None
        inner = text.partition(_OPEN)[2].partition(_CLOSE)[0]
        match = _PAIR.fullmatch(inner) or _NAMED.fullmatch(inner)
        return _position(match.group(1), match.group(2)) if match and text.index(_OPEN) < text.index(_CLOSE) else None
    return _from_caption(text)


def _from_caption(text: str) -> Position | None:
    start = text.find("{")
    if start < 0:
        return None
    try:
        caption, end = json.JSONDecoder(object_pairs_hook=_no_twins).raw_decode(text, start)
        if "{" in text[end:]:
            return None  # a second object: which one is meant can't be told
        coordinates = caption["answer"]["coordinates"]
        return _position(coordinates["latitude"], coordinates["longitude"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _position(lat: Any, lon: Any) -> Position | None:
    if not all(_is_number(value) for value in (lat, lon)):
        return None
    try:
        return Position(float(lat), float(lon))
    except (InputError, OverflowError):
        return None


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return _DECIMAL.fullmatch(value) is not None
    return isinstance(value, (int, float)) and not isinstance(value, bool)
