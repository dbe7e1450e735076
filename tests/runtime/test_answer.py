import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgegeo.geo import Position
from edgegeo.runtime.answer import parse_answer


def caption(lat: object, lon: object) -> str:
    return json.dumps({"image_id": "x", "answer": {"coordinates": {"latitude": lat, "longitude": lon, "region": "?"}}})


@pytest.mark.parametrize(
    "text",
    [
        "<answer>-12.34567, 45.6789</answer>",
        "<answer> -12.34567 ,45.6789 </answer>",
        "<answer> lat: -12.34567 lon: 45.67890 </answer>",
        "<answer>lat:-12.34567, lon:45.67890</answer>",
        "I think it is here: <answer>-12.34567, 45.6789</answer>.",
        caption(-12.34567, 45.6789),
        caption("-12.34567", "45.6789"),
        f"```json\n{caption(-12.34567, 45.6789)}\n```",
    ],
)
def test_both_forms_of_the_paper(text: str) -> None:
    assert parse_answer(text) == Position(-12.34567, 45.6789)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "somewhere in the hills",
        "12.3, 45.6",
        "<answer></answer>",
        "<answer>north of the river</answer>",
        "<answer>12.3, 45.6",
        "12.3, 45.6</answer>",
        "</answer>12.3, 45.6<answer>",
        "<answer>1, 2</answer><answer>3, 4</answer>",
        "<answer>1, 2</answer> <answer>1, 2</answer>",
        "<answer>nan, nan</answer>",
        "<answer>inf, 0</answer>",
        "<answer>91, 0</answer>",
        "<answer>-90.01, 0</answer>",
        "<answer>0, 180.5</answer>",
        "<answer>1234, 5</answer>",
        "<answer>1e1, 5</answer>",
        "<answer>1.2.3, 5</answer>",
        "<answer>1., 5</answer>",
        "<answer>12.3 45.6</answer>",
        "<answer>12,3, 45,6</answer>",
        "<answer>١٢.٣, ٤٥.٦</answer>",
        "<answer>１２.３, ４５.６</answer>",
        "<answer>−12.3, 45.6</answer>",
        "<answer>12.3,\u00a045.6</answer>",
        "<answer>lon: 45.6 lat: 12.3</answer>",
        "<ANSWER>12.3, 45.6</ANSWER>",
        caption(float("nan"), 1.0),
        caption(91, 0),
        caption(True, False),
        caption(None, 0),
        caption([1], 2),
        caption("١٢", "4"),
        caption(10**400, 0),
        caption(1, 2)[:-8],
        caption(1, 2) + caption(1, 2),
        '{"answer": {"coordinates": {"latitude": 1, "latitude": 2, "longitude": 3}}}',
        '{"answer": [1, 2]}',
        "<answer>12.3, 4٥.6</answer>",
        "<answer>१२.३, ४५.६</answer>",
        "<answer>²3, 4</answer>",
        "<answer>1_0, 5</answer>",
        "<answer>0x10, 5</answer>",
        "<answer>+-1, 5</answer>",
        "<answer>12.3e-1, 5</answer>",
        "<answer>99999999999999999999, 5</answer>",
        "<answer>90.00000000000001, 5</answer>",
        "<answer>5, -180.0000000000001</answer>",
        "<answer><answer>1, 2</answer></answer>",
        "<answer>1, 2</answer></answer>",
        "<answer>1, 2 <answer>",
        "<answer>1, 2</ answer>",
        "<answer>1, 2\x00</answer>",
        "<answer>1,\u20092</answer>",
        "<answer>12.3N, 45.6E</answer>",
        "<answer>12°30', 45°</answer>",
        "<answer>-nan, 1</answer>",
        "<answer>Infinity, 1</answer>",
        caption(float("inf"), 0),
        caption(-91, 0),
        caption(0, 1e300),
        caption("1e1", 0),
        caption("12°", 0),
        caption("", ""),
        caption({"deg": 1}, 2),
        caption(1, 2).replace("latitude", "lat"),
        caption(1, 2).replace('"answer"', '"Answer"'),
        caption(1, 2) + " <answer>",
        '{"answer": {"coordinates": {"latitude": 1, "longitude": 3}}, "answer": 4}',
        '{"answer": {"coordinates": {"latitude": 1, "longitude": 2}, "coordinates": {"latitude": 3, "longitude": 4}}}',
        '{"answer": {"coordinates": {"latitude": 1e400, "longitude": 2}}}',
        "{'answer': {'coordinates': {'latitude': 1, 'longitude': 2}}}",
        "[" * 5000 + "{" * 5000,
        '{"a":' * 5000,
    ],
)
def test_anything_else_is_no_answer(text: str) -> None:
    assert parse_answer(text) is None


def test_zero_zero_only_when_it_is_said() -> None:
    assert parse_answer("<answer>0, 0</answer>") == Position(0.0, 0.0)


@given(st.floats(-90, 90), st.floats(-180, 180), st.integers(0, 12))
def test_what_is_written_is_read(lat: float, lon: float, digits: int) -> None:
    found = parse_answer(f"<answer>{lat:.{digits}f}, {lon:.{digits}f}</answer>")
    assert found is not None
    assert math.isclose(found.lat, lat, abs_tol=10.0**-digits)
    assert math.isclose(found.lon, lon, abs_tol=10.0**-digits)


PIECES = st.sampled_from(
    [
        "<answer>", "</answer>", "<answer", "answer>", "lat:", "lon:", "12.3", "-4", "91", "180.0", "181", "-0",
        "+90.0",
        "nan", "inf", "1e5", "9" * 400, ".", ",", " ", "\n", "\u00a0", "{", "}", '"answer":', '"coordinates":',
        '"latitude":', '"longitude":', '"', "٣", "１２", "²", "\ud800",
    ]
)  # fmt: skip
TAGGED = re.compile(r"<answer>[^<]*?([+-]?[0-9.]+)[^<0-9]*?([+-]?[0-9.]+)\s*</answer>")


@settings(max_examples=500)
@given(st.lists(PIECES | st.text(max_size=4), max_size=18).map("".join))
def test_what_is_found_is_what_the_digits_say(text: str) -> None:
    found = parse_answer(text)
    if found is None:
        return
    assert abs(found.lat) <= 90
    assert abs(found.lon) <= 180
    if "<answer>" in text:
        assert text.count("<answer>") == text.count("</answer>") == 1
        match = TAGGED.search(text)
        assert match is not None
        assert (found.lat, found.lon) == (float(match.group(1)), float(match.group(2)))


NUMBERS = st.one_of(
    st.floats().map(repr),
    st.integers(-(10**30), 10**30).map(str),
    st.text(st.characters(categories=["Nd", "No", "Nl"]), min_size=1, max_size=3),
    st.sampled_from(
        ["nan", "-inf", "1e1", "1E2", "0x1", "1_0", "", ".5", "5.", "--1", "+1.5", "007", "١", "90.0", "180"]
    ),
)


@settings(max_examples=500)
@given(NUMBERS, NUMBERS, st.sampled_from([", ", ",", " ", " , ", ";", ",,"]))
def test_only_plain_numbers_within_range_are_positions(lat: str, lon: str, between: str) -> None:
    plain = re.compile(r"[+-]?[0-9]{1,3}(\.[0-9]{1,17})?")
    good = bool(plain.fullmatch(lat) and plain.fullmatch(lon) and "," in between and ",," not in between)
    good = good and abs(float(lat)) <= 90 and abs(float(lon)) <= 180
    found = parse_answer(f"<answer>{lat}{between}{lon}</answer>")
    assert (found is not None) == good
    if found is not None:
        assert (found.lat, found.lon) == (float(lat), float(lon))


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["answer", "coordinates", "latitude", "longitude", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON, JSON, JSON)
def test_any_json_is_none_or_within_range(lat: object, lon: object, whole: object) -> None:
    for text in (caption(lat, lon), json.dumps(whole), json.dumps({"answer": {"coordinates": whole}})):
        found = parse_answer(text)
        assert found is None or (abs(found.lat) <= 90 and abs(found.lon) <= 180)


@given(st.text(max_size=200))
def test_free_text_is_no_answer(text: str) -> None:
    if "answer" not in text:
        assert parse_answer(text) is None
