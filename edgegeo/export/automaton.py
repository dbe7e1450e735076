"""What a well-formed answer is, byte by byte: a deterministic automaton whose every path to the end is a position.

It knows digits, not only shape: after "9" a latitude goes on with "0" and zeros only, after "18" a longitude does.
`export/grammar.py` turns it into token transitions; nothing of this runs in the field.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.models.checkpoint import AnswerForm

OPEN, CLOSE = "<answer>", "</answer>"
DIGITS = range(0x30, 0x3A)
Ends = list[int]
"""States in which a piece may be over."""

TEXT = "text"
"""A string value of `CAPTION`."""


def _texts(*keys: str) -> dict[str, Any]:
    return dict.fromkeys(keys, TEXT)


CAPTION: dict[str, Any] = {
    "image_id": TEXT,
    "thinking": {
        "25km_analysis": _texts("terrain_characteristics", "climate_features", "regional_development"),
        "1km_analysis": {
            "road_engineering": _texts("surface_materials", "line_markings", "guardrails", "lighting", "drainage"),
            "vegetation": _texts("tree_species", "herbaceous_plants", "vegetation_management"),
        },
        "buildings_infrastructure": _texts("architectural_styles", "municipal_facilities", "transportation_facilities"),
        "vehicles_traffic": _texts("vehicle_types", "traffic_patterns"),
        "terrain_soil": _texts("terrain_details", "soil_characteristics"),
        "elimination_similar_regions": [{"eliminated_region": TEXT, "reasons": (TEXT, 3, 5)}],
    },
    "answer": {
        "coordinates": {"latitude": 90, "longitude": 180, "region": TEXT},
        "final_location_confirmation": {
            "confirmed_location": TEXT,
            "decisive_features": [TEXT],
            "accuracy_assessment": TEXT,
        },
    },
}
"""Geo-caption of GeoLocSFT (arXiv 2506.01277), keys in its order. A number is the limit of a coordinate, a list has one
element or more, a tuple (element, least, most)."""

STYLES: tuple[tuple[str, str, int], ...] = ((", ", ": ", 0), (",", ":", 0), (",", ": ", 2), (",", ": ", 4))
"""Separator, colon and indent of the JSON writers met: Python's default, compact, indented by 2 and by 4."""


class Automaton:
    """Bytes to states, under construction. State 0 is dead; an accepting state has no way on."""

    def __init__(self) -> None:
        self.edges: list[dict[int, int]] = [{}]
        self.accepting: set[int] = set()

    def state(self) -> int:
        """A new state."""
        self.edges.append({})
        return len(self.edges) - 1

    def join(self, ends: Iterable[int], values: Iterable[int], target: int | None = None) -> int:
        """Let `values` lead from every one of `ends` to `target` (a new state if None)."""
        target = self.state() if target is None else target
        bytes_ = list(values)
        for end in ends:
            for value in bytes_:
                if self.edges[end].setdefault(value, target) != target:
                    raise AssertionError(f"state {end} goes two ways at byte {value}")
        return target

    def literal(self, ends: Sequence[int], text: str, target: int | None = None) -> int:
        """A fixed ASCII text; ways that exist already are walked, so that alternatives may begin alike."""
        at: Sequence[int] = ends
        codes = text.encode("ascii")
        for index, value in enumerate(codes):
            known = {self.edges[end].get(value, 0) for end in at} - {0}
            last = index == len(codes) - 1
            if known and not (last and target is not None):
                at = [self.join(at, [value], known.pop())]
            else:
                at = [self.join(at, [value], target if last else None)]
        return at[0]

    def table(self) -> NDArray[np.int32]:
        """(states, 256) int32: the next state, 0 where there is none."""
        out = np.zeros((len(self.edges), 256), np.int32)
        for state, edges in enumerate(self.edges):
            for value, target in edges.items():
                out[state, value] = target
        return out


def number(a: Automaton, begin: int, limit: int, least: int, most: int, plus: bool) -> Ends:
    """A decimal number within +-`limit` (90 or 180) with `least` to `most` decimals, without leading zeros."""
    signed = a.join([begin], b"+-" if plus else b"-")
    at = [begin, signed]
    zero = a.join(at, b"0")
    if limit == 90:
        one = a.join(at, b"12345678")
        whole = [zero, one, a.join([one], DIGITS)]
        nine = a.join(at, b"9")
        whole, top = [*whole, nine], a.join([nine], b"0")
    else:
        two = a.join(at, b"23456789")
        one = a.join(at, b"1")
        tens = a.join([two], DIGITS)
        teens = a.join([one], b"01234567")
        eighteen = a.join([one], b"8")
        nineteen = a.join([one], b"9")
        whole = [zero, two, one, tens, teens, eighteen, nineteen, a.join([teens], DIGITS)]
        # 180 is the end; 18x beyond it is not.
        top = a.join([eighteen], b"0")
    return _decimals(a, whole, [top], least, most)


def fixed_number(a: Automaton, begin: int, limit: int, decimals: int) -> Ends:
    """Sign, two or three digits, exactly `decimals` decimals: every digit has its own place."""
    signed = a.join([begin], b"+-")
    if limit == 90:
        whole = a.join([a.join([signed], b"012345678")], DIGITS)
        top = a.join([a.join([signed], b"9")], b"0")
    else:
        one = a.join([signed], b"1")
        whole = a.join([a.join([a.join([signed], b"0")], DIGITS), a.join([one], b"01234567")], DIGITS)
        top = a.join([a.join([one], b"8")], b"0")
    return _decimals(a, [whole], [top], decimals, decimals)


def _decimals(a: Automaton, whole: Ends, top: Ends, least: int, most: int) -> Ends:
    """Decimals after the integer part: any digits, but zeros only where the integer part is the limit itself."""
    ends = [*whole, *top] if least == 0 else []
    for at, values in ((whole, DIGITS), (top, b"0")):
        here = a.join(at, b".") if most else 0
        for count in range(1, most + 1):
            here = a.join([here], values)
            if count >= least:
                ends.append(here)
    return ends


def add_answer(a: Automaton, form: AnswerForm) -> int:
    """`lat, lon</answer>` in the forms of `runtime/answer.py`; returns the state after the opening tag."""
    begin, accept = a.state(), a.state()
    a.accepting.add(accept)
    if form.form == "fixed":
        lat = fixed_number(a, begin, 90, form.decimals)
        a.literal(fixed_number(a, a.literal(lat, ", "), 180, form.decimals), CLOSE, accept)
        return begin
    least = min(1, form.decimals)
    blank = a.literal([begin], " ")
    for at, end in ((begin, CLOSE), (blank, " " + CLOSE)):
        lat = number(a, at, 90, least, form.decimals, plus=True)
        a.literal(number(a, a.literal(lat, ", "), 180, least, form.decimals, plus=True), end, accept)
        lat = number(a, a.literal([at], "lat: "), 90, least, form.decimals, plus=True)
        lon = a.literal(lat, " lon: ")
        a.literal(lat, ", lon: ", lon)
        a.literal(number(a, lon, 180, least, form.decimals, plus=True), end, accept)
    return begin


def add_reason(a: Automaton, answer: int) -> int:
    """Any UTF-8 text, then `<answer>` and what follows it; a closing tag before that has no way on."""
    begin = a.state()
    inside = a.state()
    _text(a, inside, barred=b"<")
    # The answer can't be the very first thing: an empty reason is the other mode.
    a.edges[begin] = dict(a.edges[inside])
    seen = a.literal([inside], "<")
    for state, rest in ((seen, OPEN[1:]), (a.literal([seen], "/"), CLOSE[2:])):
        opens = state == seen
        for index, letter in enumerate(rest):
            last = index == len(rest) - 1
            following = 0 if last and not opens else a.literal([state], letter, answer if last else None)
            for value, target in a.edges[inside].items():
                if following or value != ord(letter):
                    a.edges[state].setdefault(value, target)
            state = following
    return begin


def _text(a: Automaton, inside: int, barred: bytes, quoted: bool = False) -> None:
    """Loop over valid UTF-8 at `inside`. States are made in one order, so that all texts look alike from within."""
    one, two, three, e0, ed, f0, f4 = (a.state() for _ in range(7))
    rest = range(0x80, 0xC0)
    a.join([one], rest, inside)
    a.join([two], rest, one)
    a.join([three], rest, two)
    a.join([e0], range(0xA0, 0xC0), one)
    a.join([ed], range(0x80, 0xA0), one)
    a.join([f0], range(0x90, 0xC0), two)
    a.join([f4], range(0x80, 0x90), two)
    plain = [v for v in range(0x20, 0x7F) if v not in barred]
    a.join([inside], plain if quoted else [*plain, 9, 10], inside)
    for values, target in (
        (range(0xC2, 0xE0), one), ([0xE0], e0), ([*range(0xE1, 0xED), 0xEE, 0xEF], two), ([0xED], ed),
        ([0xF0], f0), (range(0xF1, 0xF4), three), ([0xF4], f4),
    ):  # fmt: skip
        a.join([inside], values, target)


def _string(a: Automaton, begin: int) -> int:
    """A JSON string from its opening quote on; returns the state after the closing one.

    No raw "<" inside: a tag in a caption would make it two answers. Surrogates are escaped in pairs only.
    """
    inside = a.join([begin], b'"')
    _text(a, inside, barred=b'"\\<', quoted=True)
    escape, u, d, x1, x2, x3, high1, high2 = (a.state() for _ in range(8))
    hex_ = b"0123456789abcdefABCDEF"
    a.join([inside], b"\\", escape)
    a.join([escape], b'"\\/bfnrt', inside)
    a.join([escape], b"u", u)
    a.join([u], [v for v in hex_ if v not in b"dD"], x3)
    a.join([u], b"dD", d)
    a.join([d], b"01234567", x2)
    a.join([d], b"89abAB", high2)
    low = a.literal([a.join([a.join([high2], hex_, high1)], hex_)], "\\u")
    a.join([a.join([low], b"dD")], b"cdefCDEF", x2)
    a.join([x3], hex_, x2)
    a.join([x2], hex_, x1)
    a.join([x1], hex_, inside)
    return a.join([inside], b'"')


def add_caption(a: Automaton, decimals: int) -> int:
    """The geo-caption JSON in each of `STYLES`; returns its first state."""
    begin, accept = a.state(), a.state()
    a.accepting.add(accept)
    for style in STYLES:
        _Writer(a, style, decimals).write(CAPTION, [begin], 0, accept)
    return begin


class _Writer:
    """Adds one style of JSON."""

    def __init__(self, a: Automaton, style: tuple[str, str, int], decimals: int) -> None:
        self.a = a
        self.comma, self.colon, self.indent = style
        self.decimals = decimals

    def write(self, value: Any, ends: Ends, depth: int, target: int | None = None) -> Ends:
        """A value that begins in `ends`; returns where it may be over."""
        a = self.a
        if isinstance(value, dict):
            text = "{" + self._line(depth + 1)
            for index, (key, inner) in enumerate(value.items()):
                text = text if index == 0 else self.comma + self._line(depth + 1)
                ends = self.write(inner, [a.literal(ends, f'{text}"{key}"{self.colon}')], depth + 1)
            return [a.literal(ends, self._line(depth) + "}", target)]
        if isinstance(value, (list, tuple)):
            return self._list(value, ends, depth)
        (begin,) = ends
        if value == TEXT:
            return [_string(a, begin)]
        return number(a, begin, value, min(1, self.decimals), self.decimals, plus=False)

    def _list(self, value: Sequence[Any], ends: Ends, depth: int) -> Ends:
        a, again = self.a, self.comma + self._line(depth + 1)
        item, least, most = (value[0], 1, 0) if isinstance(value, list) else value
        begin = a.literal(ends, "[" + self._line(depth + 1))
        over: Ends = []
        for count in range(1, max(most, 1) + 1):
            ends = self.write(item, [begin], depth + 1)
            if count >= least:
                over += ends
            if count < most:
                begin = a.literal(ends, again)
        if most == 0:
            a.literal(ends, again, begin)
        return [a.literal(over, self._line(depth) + "]")]

    def _line(self, depth: int) -> str:
        return "\n" + " " * (self.indent * depth) if self.indent else ""
