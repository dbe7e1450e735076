"""A sweep over a real tiny bundle: cells, resuming, failures, reports."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgegeo.bench import Subject, SweepSettings, run_sweep, sweep, write_reports
from edgegeo.bench.cells import Cell
from edgegeo.bench.sweep import expand, run_cell
from edgegeo.bundle import open_bundle
from edgegeo.errors import InputError

QUICK = SweepSettings(
    batches=(1, 2), threads=(1,), jobs=("embed_image", "search"), places=3, seconds=0.01, min_repeats=2, max_repeats=3
)


@pytest.fixture(scope="module")
def subject(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The tiny bundle with room for whole descriptions."""
    folder = tmp_path_factory.mktemp("bench") / "tiny"
    shutil.copytree(tiny_bundle, folder)
    manifest = json.loads((folder / "edgegeo.json").read_text())
    manifest["roles"]["embed"]["max_text_tokens"] = 230
    (folder / "edgegeo.json").write_text(json.dumps(manifest))
    return Subject("fp32", open_bundle(folder))


@pytest.fixture(scope="module")
def swept(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """One finished sweep and its folder."""
    folder = tmp_path_factory.mktemp("sweep")
    return folder, run_sweep([subject], QUICK, folder)


def test_every_cell_is_measured_and_complete(swept: tuple[Path, list[dict[str, Any]]], subject: Subject) -> None:
    _, rows = swept
    assert [(row["job"], row["batch"]) for row in rows] == [
        ("embed_image", 1), ("embed_image", 2), ("search", 1), ("search", 2),
    ]  # fmt: skip
    for row in rows:
        assert "error" not in row
        assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p90"] <= row["latency_ms"]["p99"]
        assert row["item_ms"] == pytest.approx(row["latency_ms"]["p50"] / row["batch"])
        assert row["cold_start_ms"] > row["load_ms"] > 0
        assert 10 < row["memory_mb"]["first_result"] <= row["memory_mb"]["peak"]
        assert 2 <= row["repeats"] <= 3
        assert row["fingerprint"] == subject.bundle.fingerprint
        assert row["size_bytes"] == subject.bundle.bytes
        assert row["machine"]["cores"] >= 1
        assert row["versions"]["onnxruntime"]
        assert set(row["accuracy"]) == {
            "text_to_tile_recall_at_1", "photo_to_tile_recall_at_1", "gps_within_750_km",
        }  # fmt: skip
    assert rows[2]["gallery"] == 3


def test_a_finished_sweep_measures_nothing_again(
    swept: tuple[Path, list[dict[str, Any]]], subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rows = swept
    monkeypatch.setattr(sweep, "run_cell", lambda cell, timeout_s: pytest.fail("measured again"))
    before = (folder / "results.jsonl").read_text()
    assert run_sweep([subject], QUICK, folder) == rows
    assert (folder / "results.jsonl").read_text() == before


def test_an_interrupted_sweep_goes_on(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(QUICK, jobs=("embed_image",), batches=(1, 2, 3))
    measured = []

    def measure(cell: Cell, timeout_s: float) -> dict[str, Any]:
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(cell.batch)
        return {"item_ms": 1.0}

    monkeypatch.setattr(sweep, "run_cell", measure)
    with pytest.raises(KeyboardInterrupt):
        run_sweep([subject], settings, tmp_path)
    with (tmp_path / "results.jsonl").open("a") as stream:
        stream.write('{"key": "cut off')  # and the machine went down while writing
    monkeypatch.setattr(sweep, "run_cell", lambda cell, timeout_s: measured.append(cell.batch) or {"item_ms": 1.0})
    rows = run_sweep([subject], settings, tmp_path)
    assert sorted(measured) == [1, 2, 3]
    assert [row["batch"] for row in rows] == [1, 2, 3]


def test_another_bundle_or_setting_is_another_cell(subject: Subject, tmp_path: Path) -> None:
    [cell] = expand([subject], replace(QUICK, jobs=("embed_image",), batches=(1,)), tmp_path)
    assert cell.key() == replace(cell, bundle="elsewhere", inputs="elsewhere", gallery="elsewhere").key()
    others = [
        replace(cell, fingerprint="0"), replace(cell, batch=2), replace(cell, threads=2), replace(cell, places=4),
    ]  # fmt: skip
    assert len({cell.key(), *(other.key() for other in others)}) == 5


def test_a_failed_cell_is_kept_and_tried_again(subject: Subject, tmp_path: Path) -> None:
    settings = replace(QUICK, jobs=("embed_image",), batches=(1,))
    [cell] = expand([subject], settings, tmp_path)
    folder = tmp_path / "broken"
    shutil.copytree(subject.bundle.path, folder)
    broken = Subject("fp32", open_bundle(folder))
    [row] = run_sweep([broken], settings, tmp_path)
    assert "error" not in row
    file = max(folder.rglob("*.onnx"), key=lambda f: f.stat().st_size)
    file.write_bytes(file.read_bytes()[:-5])
    again = replace(cell, bundle=str(folder), min_repeats=1)
    assert file.name in run_cell(again, 60)["error"]


def test_what_kills_a_worker_is_named(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [cell] = expand([subject], replace(QUICK, jobs=("embed_image",), batches=(1,)), tmp_path)
    assert "inputs" in run_cell(cell, 60)["error"]  # nobody wrote them: the last line of the traceback
    assert "within" in run_cell(cell, 0.01)["error"]
    monkeypatch.setattr(
        subprocess, "run", lambda *args, **kwargs: subprocess.CompletedProcess(args, -9, stdout="", stderr="")
    )
    assert "signal 9" in run_cell(cell, 60)["error"]


def test_a_full_disk_loses_nothing(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(QUICK, jobs=("embed_image",), batches=(1,))
    monkeypatch.setattr(sweep, "run_cell", lambda cell, timeout_s: {"item_ms": 1.0})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"No space left.*goes on where it stopped"):
            run_sweep([subject], settings, tmp_path)
    assert len(run_sweep([subject], settings, tmp_path)) == 1


@pytest.mark.parametrize(
    "wrong", [{"batches": ()}, {"batches": (0,)}, {"jobs": ("dance",)}, {"jobs": ()}, {"threads": (0,)}, {"places": 0},
              {"seconds": 0.0}, {"min_repeats": 5, "max_repeats": 4}],
)  # fmt: skip
def test_impossible_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        SweepSettings(**wrong)


def test_reports_are_self_contained(swept: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, rows = swept
    failed = {**rows[0], "key": "x", "batch": 64, "error": "killed <script>alert(1)</script> | by signal 9"}
    files = write_reports([*rows, failed], folder)
    page = files["html"].read_text()
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "killed" in page
    text = files["markdown"].read_text()
    lines = [line for line in text.splitlines() if line.startswith("| fp32")]
    assert len(lines) == 5
    assert {line.count("|") for line in lines} == {16}
    assert not list(folder.glob("*.part"))
