"""A sweep over a real tiny bundle: cells, rounds, resuming, failures."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sealing import seal

from edgegeo.bench import sweep as sweeping
from edgegeo.bench.cells import Cell, Subject, expand
from edgegeo.bench.definition import Axes, Measuring, Sweep
from edgegeo.bench.rows import newest_rows
from edgegeo.bench.sweep import run_cell, run_sweep
from edgegeo.bundle import open_bundle
from edgegeo.errors import DeviceError, InputError

MEASURE = Measuring(places=3, inputs=2, rounds=1, seconds=0.01, min_repeats=2, max_repeats=3, pause_s=0.0)
QUICK = Sweep(
    cells=Axes(jobs=("embed_image", "search", "locate"), batch=(2,), threads=(1,), rerank=(2,), candidates=(2,)),
    measure=MEASURE,
)
ONE = Sweep(cells=Axes(jobs=("embed_image",), batch=(1,), threads=(1,)), measure=MEASURE)


@pytest.fixture(scope="module")
def subject(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The tiny bundle with room for whole descriptions."""
    folder = tmp_path_factory.mktemp("bench") / "tiny"
    shutil.copytree(tiny_bundle, folder)
    manifest = json.loads((folder / "edgegeo.json").read_text())
    manifest["roles"]["embed"]["max_text_tokens"] = 230
    seal(folder, manifest)
    return Subject("fp32", open_bundle(folder))


@pytest.fixture(scope="module")
def swept(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """One finished sweep and its folder."""
    folder = tmp_path_factory.mktemp("sweep")
    return folder, run_sweep([subject], QUICK, folder)


@pytest.fixture
def started(swept: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> Path:
    """A folder in which inputs and accuracy are known and nothing is measured."""
    for known in ("inputs", "accuracy"):
        shutil.copytree(swept[0] / known, tmp_path / known)
    return tmp_path


def numbers(ms: float = 1.0) -> dict[str, Any]:
    """What a worker prints."""
    return {
        "samples_ms": [ms] * 3, "stopped": "time", "load_ms": 1.0, "cold_start_ms": 2.0, "stages_ms": {"trunk": ms},
        "memory_mb": {"peak": 1.0, "proportional": 1.0}, "energy": {"why": "no"}, "temperature_c": None,
        "load_average": None,
    }  # fmt: skip


def test_every_cell_is_measured_and_complete(swept: tuple[Path, list[dict[str, Any]]], subject: Subject) -> None:
    folder, rows = swept
    assert [(row["job"], row["batch"]) for row in rows] == [
        ("embed_image", 2), ("search", 2), ("locate", 1),
    ]  # fmt: skip
    for row in rows:
        assert "error" not in row, row["error"]
        assert row["component_threads"].keys() == subject.bundle.manifest.components.keys()
        latency = row["latency_ms"]
        assert 0 < latency["p50_low"] <= latency["p50"] <= latency["p90"] <= latency["p99"]
        assert row["item_ms"] == pytest.approx(latency["p50"] / row["batch"])
        assert row["cold_start_ms"] > row["load_ms"] > 0
        memory = row["memory_mb"]
        assert 10 < memory["first_result"] <= memory["peak"]
        assert 1 < memory["proportional"] <= memory["peak"]
        assert 2 <= row["repeats"] <= 3
        assert row["fingerprint"] == subject.bundle.fingerprint
        assert row["size_bytes"] == subject.bundle.bytes
        assert row["machine"]["cores"] >= 1
        assert row["versions"]["onnxruntime"]
        assert row["energy"].keys() & {"joules_per_item", "why"}
        assert {"text_to_tile_recall_at_1", "photo_to_tile_recall_at_1", "gps_within_750_km"} <= set(row["accuracy"])
    assert rows[1]["gallery"] == 3
    assert "located_within_750_km" in rows[2]["accuracy"]
    written = newest_rows([json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()])
    assert sorted(row["key"] for row in written) == sorted(row["key"] for row in rows)


def test_stages_add_up_to_the_call(swept: tuple[Path, list[dict[str, Any]]]) -> None:
    """Within a factor, as the machine may be busy; what each job goes through is exact."""
    _, rows = swept
    image, search, locate = (row["stages_ms"] for row in rows)
    assert list(image) == ["decode", "preprocess", "vision", "trunk", "other"]
    assert list(search) == ["trunk", "search", "other"]
    assert list(locate) == ["decode", "preprocess", "vision", "trunk", "search", "rerank", "generate", "other"]
    assert min(min(image.values()), min(search.values())) >= 0
    assert 0.05 < sum(image.values()) / rows[0]["latency_ms"]["p50"] < 20


def test_a_finished_sweep_measures_nothing_again(
    swept: tuple[Path, list[dict[str, Any]]], subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rows = swept
    monkeypatch.setattr(sweeping, "run_cell", lambda cell, timeout_s: pytest.fail("measured again"))
    before = (folder / "results.jsonl").read_text()
    assert run_sweep([subject], QUICK, folder) == rows
    assert (folder / "results.jsonl").read_text() == before


def test_rounds_come_one_after_the_other_each_in_an_order_of_its_own(
    subject: Subject, started: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = replace(ONE, cells=replace(ONE.cells, batch=(1, 2), threads=(1, 2, 3)), measure=replace(MEASURE, rounds=3))
    order: list[tuple[int, int]] = []
    monkeypatch.setattr(
        sweeping, "run_cell", lambda cell, timeout_s: order.append((cell.batch, cell.threads)) or numbers()
    )
    rows = run_sweep([subject], sweep, started)
    rounds = [order[at : at + 6] for at in (0, 6, 12)]
    assert all(sorted(one) == [(batch, threads) for batch in (1, 2) for threads in (1, 2, 3)] for one in rounds)
    assert len({tuple(one) for one in rounds}) == 3
    assert {row["rounds"] for row in rows} == {3}


def test_an_interrupted_sweep_goes_on(subject: Subject, started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = replace(ONE, cells=replace(ONE.cells, threads=(1, 2, 3)))
    measured = []

    def measure(cell: Cell, timeout_s: float) -> dict[str, Any]:
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(cell.threads)
        return numbers()

    monkeypatch.setattr(sweeping, "run_cell", measure)
    with pytest.raises(KeyboardInterrupt):
        run_sweep([subject], sweep, started)
    with (started / "results.jsonl").open("a") as stream:
        stream.write('{"key": "cut off')  # and the machine went down while writing
    monkeypatch.setattr(sweeping, "run_cell", lambda cell, timeout_s: measured.append(cell.threads) or numbers())
    rows = run_sweep([subject], sweep, started)
    assert sorted(measured) == [1, 2, 3]
    assert [row["threads"] for row in rows] == [1, 2, 3]


def test_a_failed_cell_is_kept_and_tried_again(
    subject: Subject, started: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "run_cell", lambda cell, timeout_s: {"error": "no luck"})
        [row] = run_sweep([subject], ONE, started)
    assert row["error"] == "no luck"
    monkeypatch.setattr(sweeping, "run_cell", lambda cell, timeout_s: numbers(4.0))
    [row] = run_sweep([subject], ONE, started)
    assert ("error" not in row, row["item_ms"]) == (True, 4.0)


def test_what_kills_a_worker_is_named(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [cell] = expand([subject], ONE, tmp_path)
    assert "inputs" in run_cell(cell, 60)["error"]  # nobody wrote them: the last line of the traceback
    assert "within" in run_cell(cell, 0.01)["error"]
    folder = tmp_path / "broken"
    shutil.copytree(subject.bundle.path, folder)
    file = max(folder.rglob("*.onnx"), key=lambda f: f.stat().st_size)
    file.write_bytes(file.read_bytes()[:-5])
    sweeping.write_inputs(tmp_path / "inputs", 2)
    assert file.name in run_cell(replace(cell, bundle=str(folder)), 60)["error"]
    monkeypatch.setattr(
        subprocess, "run", lambda *args, **kwargs: subprocess.CompletedProcess(args, -9, stdout="", stderr="")
    )
    assert "signal 9" in run_cell(cell, 60)["error"]


def test_a_full_disk_loses_nothing(subject: Subject, started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "run_cell", lambda cell, timeout_s: numbers())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"No space left.*goes on where it stopped"):
            run_sweep([subject], ONE, started)
    assert len(run_sweep([subject], ONE, started)) == 1


@pytest.mark.parametrize(
    ("axes", "said"), [({"provider": ("cuda",)}, "cuda"), ({"power_mode": (0,)}, "no power modes")]
)
def test_a_device_that_is_not_there_ends_the_sweep_before_it_begins(
    subject: Subject, tmp_path: Path, axes: dict[str, Any], said: str
) -> None:
    with pytest.raises(DeviceError, match=said):
        run_sweep([subject], replace(ONE, cells=replace(ONE.cells, **axes)), tmp_path)
    assert not (tmp_path / "results.jsonl").exists()
