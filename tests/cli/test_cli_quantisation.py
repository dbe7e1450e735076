"""edgegeo export --max-drop: flags, refusals, and what is printed of the report."""

from typing import Any

import pytest

from edgegeo.cli.quantisation import print_quantisation


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--proven",), "--proven only works with --max-drop"),
        (("--agreement",), "--agreement only works with --max-drop"),
        (("--max-drop", "-1"), "percentage points"),
        (("--max-drop", "1", "--fp32"), "rounds nothing"),
        (("--max-drop", "1", "--target", "tensorrt"), "--target cpu"),
    ],
)
def test_refusals(cli: Any, words: tuple[str, ...], part: str, tmp_path: Any) -> None:
    pytest.importorskip("transformers")
    done = cli("export", *words, "-o", tmp_path / "out")
    assert part in done.refused()
    assert done.out == ""  # before anything is loaded
    assert not (tmp_path / "out").exists()


def test_the_report_in_short(capsys: pytest.CaptureFixture[str]) -> None:
    def change(value: float) -> dict[str, Any]:
        return {"metric": "text_to_tile_recall_at_1", "drop_points": {"value": value, "low": -0.01, "high": 1.2}}

    def mix(name: str, chosen: bool) -> dict[str, Any]:
        return {"name": name, "chosen": chosen, "kept": 3, "bytes": 3 << 20, "changes": [change(0.4)], "places": 1000,
                "latency_ms": {"embed a text": {"p50": 1.25, "p90": 2.0}}}  # fmt: skip

    print_quantisation({
        "curve": [mix("as the recipe", False), mix("2 of 9 steps", True)], "max_drop_points": 0.5,
        "judged_by": "Recall@1", "proven": False, "confirmed": {"places": 1000, "changes": [change(0.4)]},
        "sensitivity": [{"group": "trunk.layers.0.o", "precision": "int4", "sqnr_db": 30.5, "cosine": 0.9991,
                         "stored": "int8"}],
    })  # fmt: skip
    said = capsys.readouterr().out
    for part in (
        "2 of 9 steps <- chosen",
        "3.00 MB",
        "+0.4 [+0.0, +1.2]",
        "1.25 ms",
        "30.5 dB",
        "0.999100",
        "at most 0.5 points of Recall@1",
        "1,000 other places, which the 95 % interval does not prove yet",
    ):
        assert part in said  # fmt: skip
