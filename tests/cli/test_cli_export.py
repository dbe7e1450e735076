"""edgegeo export: flags, refusals, and the table it ends with."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgegeo.cli.export import _line, _settings, _value, adapters_of
from edgegeo.errors import InputError
from edgegeo.recipe import TokenBudget, preset


def test_flags_choose_the_recipe(tmp_path: Path) -> None:
    none = dict.fromkeys(("fp32", "fp16", "int8", "int4"), False)
    assert _settings(none, None, None) == preset("int8")
    assert _settings(none | {"int4": True}, None, None) == preset("int4")
    for flags, recipe in ((none | {"int4": True, "int8": True}, None), (none | {"int4": True}, tmp_path / "r.toml")):
        with pytest.raises(InputError, match="name one of"):
            _settings(flags, recipe, None)


def test_adapters_are_named_by_role() -> None:
    assert adapters_of(["embed=a", "generate=b=c"]) == {"embed": Path("a"), "generate": Path("b=c")}
    for words in (["a"], ["draw=a"], ["embed="], ["embed=a", "embed=b"]):
        with pytest.raises(InputError, match="--adapter"):
            adapters_of(words)


def test_refusals(cli: Any, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    target = tmp_path / "bundle"
    assert "nowhere" in cli("export", tmp_path / "nowhere", "-o", target).refused()
    (tmp_path / "empty").mkdir()
    assert "config.json" in cli("export", tmp_path / "empty", "-o", target).refused()
    other = tmp_path / "other"
    other.mkdir()
    for name in ("tokenizer.json", "preprocessor_config.json", "model.safetensors"):
        (other / name).write_text("{}")
    (other / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    assert "mamba" in cli("export", other, "-o", target).refused()
    assert "recipe" in cli("export", "--recipe", tmp_path / "none.toml").refused()
    assert not target.exists()


def test_a_folder_of_something_else_is_told_before_the_libraries_load(
    cli: Any, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    monkeypatch.setitem(sys.modules, "edgegeo.export.source", None)  # importing it fails
    assert "is not a bundle" in cli("export", "--int8", "-o", tmp_path / "mine").refused()


def test_table_lines() -> None:
    report = pytest.importorskip("edgegeo.export.report")
    from edgegeo.evaluate.bootstrap import Metric

    row = report.ReportRow(
        "accuracy", "text_to_tile_recall_at_1", 0.3, 0.31, "share", 0.2, 0.4, Metric(-0.01, -0.02, 0.0)
    )
    assert _line(row) == (
        "text to tile, Recall@1",
        "30.0 % [20.0 %, 40.0 %]",
        "31.0 %",
        "-1.0 pt [-2.0 pt, +0.0 pt]",
    )
    assert _line(report.ReportRow("latency", "embed", 2.0, 4.0, "ms"))[3] == "0.50 x"
    assert _line(report.ReportRow("size", "bundle", 2.0, None, "MB"))[2:] == ("-", "-")
    assert _line(report.ReportRow("parity", "pixels", 0.0, None, "grey levels", high=1.0))[3] == "at most 1"
    assert _value(float("inf"), "km") == "none"
    assert _value(float("nan"), "km", signed=True) == "-"


def test_the_token_budget_reaches_export(cli: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    asked: list[tuple[Any, Path]] = []

    def stop(checkpoint: Any, recipe: Any, out: Path, **settings: Any) -> None:
        asked.append((recipe, out))
        raise InputError("enough")

    monkeypatch.setattr("edgegeo.export.export", stop)
    cli("export", "--int4", "--image-size", 64, "--tiles", 4).refused()
    recipe, out = asked.pop()
    assert recipe == replace(preset("int4"), name="int4-64px-4tiles", image=TokenBudget(64, 4))
    assert out == home / "bundles" / "pocket-int4-64px-4tiles"
    cli("export", "--max-pixels", 50_176).refused()
    assert asked.pop()[0].image == TokenBudget(max_pixels=50_176)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--image-size", 0), "between 1 and 4,096"),
        (("--image-size", 100), "choose 96 or 128"),
        (("--tiles", 5), "4, 9, 16"),
        (("--tiles", 16), "positions"),
        (("--max-pixels", 1000), "not max_pixels"),
    ],
)
def test_budgets_the_packaged_model_cannot_keep(cli: Any, words: tuple[object, ...], part: str) -> None:
    pytest.importorskip("transformers")
    assert part in cli("export", *words).refused()
