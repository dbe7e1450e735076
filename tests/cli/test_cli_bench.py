"""edgegeo bench from the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgegeo.bundle import sha256_of
from edgegeo.errors import InputError
from edgegeo.recipe import TokenBudget


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
        (("--image-size", "big"), "--image-size"),
        (("--tiles", "0"), "max_tiles"),
        (("nowhere",), "nowhere"),
    ],
)
def test_refusals(cli: Any, words: tuple[str, ...], part: str) -> None:
    assert part in cli("bench", *words).refused()


def test_the_same_bundle_twice(cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "copy")
    assert "twice" in cli("bench", tiny_bundle, tmp_path / "copy", "-o", tmp_path / "out").refused()


def test_budgets_and_precisions_are_exported(cli: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every combination is asked for by its own name; what lies there already is not exported again."""
    pytest.importorskip("transformers")
    asked: list[Any] = []
    (home / "bundles" / "pocket-int8-64px").mkdir(parents=True)

    def note(checkpoint: Any, recipe: Any, out: Path, **settings: Any) -> None:
        asked.append((recipe.name, recipe.image))
        raise InputError("enough")

    monkeypatch.setattr("edgegeo.export.export", note)
    monkeypatch.setattr("edgegeo.bundle.open_bundle", lambda path: path)
    words = ("bench", "--precision", "int8", "--image-size", "64,96", "--tiles", "4")
    assert "enough" in cli(*words).refused()
    assert asked == [("int8-64px-4tiles", TokenBudget(64, 4))]
    assert "enough" in cli("bench", "--precision", "int8", "--image-size", "64,96").refused()
    assert asked[1:] == [("int8-96px", TokenBudget(96))]


def test_a_checkpoint_whose_weights_changed(cli: Any, home: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """A bundle under the data home is measured for a checkpoint only if it was made from it."""
    folder = tmp_path / "mine"
    (folder / "adapters" / "lora").mkdir(parents=True)
    files = {"model.safetensors": folder, "adapter_model.safetensors": folder / "adapters" / "lora"}
    for name, place in files.items():
        (place / name).write_bytes(name.encode())
    hashes = {name: sha256_of(place / name) for name, place in files.items()}
    bundle = home / "bundles" / "mine-fp32-32px"
    shutil.copytree(tiny_bundle, bundle)
    manifest = json.loads((bundle / "edgegeo.json").read_text())
    [base, adapter] = [{name: known} for name, known in hashes.items()]
    manifest["source"] = {"files": base, "adapters": {"embed": {"name": "lora", "files": adapter}, "rerank": None}}
    manifest["roles"]["embed"]["max_text_tokens"] = 230
    (bundle / "edgegeo.json").write_text(json.dumps(manifest))
    words = ("bench", "--checkpoint", folder, "--precision", "fp32", "--image-size", 32, "--batch", 1, "--places", 2)
    done = cli(*words, "--jobs", "embed_image", "--seconds", 0.01, "-o", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    [row] = done.json["rows"]
    assert (row["precision"], row["picture"]["tokens"]) == ("fp32 32px", 4)
    (folder / "adapters" / "lora" / "adapter_model.safetensors").write_bytes(b"trained on")
    assert "other weights" in cli(*words, "-o", tmp_path / "out").refused()


def test_a_budget_and_a_bundle_contradict(cli: Any, tiny_bundle: Path) -> None:
    assert "leave them out" in cli("bench", tiny_bundle, "--tiles", "4").refused()
