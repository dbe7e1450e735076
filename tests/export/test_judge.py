"""What a budget is counted in, on the tiny model's own switched graphs."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgegeo.errors import InputError
from edgegeo.export import budget
from edgegeo.export.budget import Budget
from edgegeo.export.judge import judge_of
from edgegeo.export.pipeline import export_source
from edgegeo.export.source import Source
from edgegeo.recipe import preset

RECIPE = replace(preset("int4"), block_size=16, calibration_samples=8)


def test_a_model_that_only_answers_is_judged_by_its_positions(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "LEAST_SCORE", 0.0)  # an untrained model answers nothing near
    alone = replace(source, roles={"generate": source.roles["generate"]})
    said = export_source(alone, RECIPE, tmp_path / "out", places=0, budget=Budget(1.0, 4)).quantisation
    assert said is not None
    assert said["judged_by"] == "GPS@750 km"
    assert {part.partition("_")[0] for part in said["judged_components"]} == {"vision", "trunk", "head"}
    assert [one["metric"] for one in said["curve"][0]["changes"]] == ["gps_within_750_km"]
    assert set(said["curve"][0]["latency_ms"]) == {"answer a photo"}
    assert any(one["group"] == "head.logits" and one["error"] > 0 for one in said["sensitivity"])
    with pytest.raises(InputError, match="embeds nothing"):
        judge_of(("generate",), agreement=True)


def test_agreement_counts_changed_first_tiles(source: Source, tmp_path: Path) -> None:
    asked = Budget(99.0, 12, agreement=True)
    said = export_source(source, RECIPE, tmp_path / "out", places=0, budget=asked).quantisation
    assert said is not None
    assert said["judged_by"] == "agreement with fp32"
    curve = {one["name"]: one["changes"] for one in said["curve"]}
    for change in curve["as the recipe"]:
        assert change["metric"].endswith("_same_first")
        assert change["fp32"]["value"] == 1.0
        assert change["now"]["value"] == 1 - change["only_fp32_right"] / 12
    assert all(change["now"]["value"] == 1.0 for change in curve["fp16 or finer throughout"])
