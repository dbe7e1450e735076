"""edgegeo bench from the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest


def test_named_bundles(cli: Any, roomy_bundle: Path, tmp_path: Path) -> None:
    words = ("bench", roomy_bundle, "--batch", "1", "--threads", "1", "--jobs", "embed_image", "--places", 3)
    done = cli(*words, "--seconds", 0.01, "-o", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    [row] = done.json["rows"]
    assert (row["precision"], row["job"], row["batch"]) == ("fp32", "embed_image", 1)
    assert {Path(file).name for file in done.json["files"].values()} == {"results.jsonl", "results.md", "results.html"}
    told = cli(*words, "--seconds", 0.01, "-o", tmp_path / "out")
    assert "1 cells" in told.out
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 1  # nothing measured again


def test_a_failed_cell_is_an_error_at_the_end(
    cli: Any, roomy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgegeo.bench.sweep.run_cell", lambda cell, timeout_s: {"error": "no luck"})
    words = ("bench", roomy_bundle, "--batch", "1", "--jobs", "embed_image", "--places", 3, "-o", tmp_path / "out")
    done = cli(*words)
    assert done.code == 2
    assert "1 of 1 cells failed" in done.err
    assert "no luck" in done.err
    assert json.loads((tmp_path / "out" / "results.jsonl").read_text())["error"] == "no luck"
    assert (tmp_path / "out" / "results.html").is_file()


def test_missing_bundles_and_no_export_extra(cli: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "edgegeo.export", None)
    assert "edgegeo[export]" in cli("bench", "--precision", "int8").refused()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--precision", "int3"), "--precision"),
        (("--batch", "one"), "--batch"),
        (("--batch", "0"), "batch"),
        (("--threads", "0"), "threads"),
        (("--jobs", "dance"), "--jobs"),
        (("nowhere",), "nowhere"),
    ],
)
def test_refusals(cli: Any, words: tuple[str, ...], part: str) -> None:
    assert part in cli("bench", *words).refused()


def test_the_same_bundle_twice(cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "copy")
    assert "twice" in cli("bench", tiny_bundle, tmp_path / "copy", "-o", tmp_path / "out").refused()
