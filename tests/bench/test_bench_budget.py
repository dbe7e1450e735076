"""The token budget as one table: which rows it joins, and its place in the reports."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import measured
import pytest
from PIL import Image
from sealing import seal

from edgegeo.bench import budget
from edgegeo.bench.budget import budget_rows, budget_table, compares_budgets, picture_facts
from edgegeo.bench.report import write_reports
from edgegeo.bundle import Bundle, open_bundle


def row(job: str, tokens: int, ms: float, peak: float, **more: Any) -> dict[str, Any]:
    share = {"value": 0.5, "low": 0.25, "high": 0.75}
    return {
        "job": job, "label": f"int8 {tokens}", "threads": 1, "batch": 1, "dims": 0, "candidates": 1,
        "latency_ms": {"p50": ms}, "memory_mb": {"peak": peak}, "accuracy": {"photo_to_tile_recall_at_1": share},
        "picture": {"width": 64, "height": 32, "tiles": 1, "tokens": tokens, "positions": tokens + 3}, **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def roomy(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle with room for whole descriptions."""
    folder = tmp_path_factory.mktemp("bench") / "tiny"
    shutil.copytree(tiny_bundle, folder)
    manifest = json.loads((folder / "edgegeo.json").read_text())
    manifest["roles"]["embed"]["max_text_tokens"] = 230
    seal(folder, manifest)
    return open_bundle(folder)


def test_both_jobs_of_a_setting_are_one_line() -> None:
    rows = [row("embed_image", 4, 1.5, 80), row("generate", 4, 3.25, 90), row("embed_image", 16, 5, 81)]
    rows += [row("embed_image", 4, 99, 300, batch=8), row("generate", 16, 1, 1, error="killed")]
    assert compares_budgets(rows)
    one, two = budget_table(rows)
    share = "50.0 [25.0, 75.0]"
    assert one == ("int8 4", "64 x 32 px", "4", "7", "1", "1.50", "3.25", "90", share, "-")
    assert two == ("int8 16", "64 x 32 px", "16", "19", "1", "5.00", "-", "81", share, "-")
    assert [found["batch"] for found in budget_rows(rows, "embed_image")] == [1, 1]


def test_one_setting_is_no_comparison() -> None:
    rows = [row("embed_image", 4, 1.5, 80), row("generate", 4, 3.25, 90)]
    assert not compares_budgets(rows)
    old = {name: value for name, value in rows[0].items() if name != "picture"}
    assert not compares_budgets([*rows, old])
    assert budget_table([old]) == []


def test_facts_are_those_of_the_runtime(roomy: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    Image.new("RGB", (90, 40), (40, 90, 20)).save(file)
    tokens = roomy.manifest.image.tokens
    known = {"width": 32, "height": 32, "tiles": 1, "tokens": tokens, "positions": tokens}
    assert picture_facts(roomy, file.read_bytes()) == known
    split = {"row_1_col_1": (1, 2), "row_1_col_2": (1, 2)}
    spec = replace(roomy.manifest.image, longest_edge=64, max_tiles=4, marks={**split, "whole": (3,), "after": (1,)})
    tiled = replace(roomy, manifest=replace(roomy.manifest, image=spec))
    more = {"tiles": 3, "tokens": 3 * tokens, "positions": 3 * tokens + 6}
    assert picture_facts(tiled, file.read_bytes()) == known | more


def test_several_budgets_are_a_table_in_both_reports(tmp_path: Path) -> None:
    rows = [measured.row("fp32 32px", job) for job in ("embed_image", "generate")]
    assert "Token budget" not in write_reports(rows, tmp_path)["md"].read_text()
    rows += [measured.row("fp32 64px", one["job"], picture={**one["picture"], "tokens": 64}) for one in rows]
    files = write_reports(rows, tmp_path)
    text, page = files["md"].read_text(), files["html"].read_text()
    assert text.index("## Token budget") < text.index("## embed_image")
    lines = [line for line in text.split("## embed_image")[0].splitlines() if line.startswith("| fp32")]
    assert len(lines) == 2
    assert {line.count("|") for line in lines} == {len(budget.HEADERS) + 1}
    assert "image tokens" in page.split("Token budget")[1]
