import json
import math

import pytest
from hypothesis import given
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
        "<answer>",
        "</answer>",
        "lat:",
        "lon:",
        "12.3",
        "-4",
        ",",
        " ",
        "{",
        "}",
        '"answer":',
        '"coordinates":',
        "٣",
        "nan",
    ]
)


@given(st.lists(PIECES | st.text(max_size=4), max_size=14).map("".join))
def test_never_raises_and_never_leaves_the_sphere(text: str) -> None:
    found = parse_answer(text)
    assert found is None or (abs(found.lat) <= 90 and abs(found.lon) <= 180)


@given(st.text(max_size=200))
def test_free_text_is_no_answer(text: str) -> None:
    if "answer" not in text:
        assert parse_answer(text) is None
