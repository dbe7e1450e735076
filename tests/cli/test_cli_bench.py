"""edgegeo bench from the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from measured import MACHINE, line, share
from sealing import seal

from edgegeo.bundle import sha256_of
from edgegeo.errors import InputError
from edgegeo.recipe import TokenBudget, load_recipe, preset
from edgegeo.schema import to_plain


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    """A sweep that measures next to nothing."""
    file = tmp_path / "quick.toml"
    file.write_text(
        'about = "Mine."\n[cells]\njobs = ["embed_text", "embed_image"]\nbatch = [1, 2]\nthreads = [1]\n'
        "[measure]\nplaces = 2\ninputs = 2\nrounds = 1\nseconds = 0.01\nmin_repeats = 2\n"
    )
    return file


def test_named_bundles(cli: Any, roomy_bundle: Path, tmp_path: Path, quick: Path) -> None:
    """What flags say stands in the place of what the sweep's file says."""
    words = ("bench", roomy_bundle, "--sweep", quick, "--batch", "1", "--jobs", "embed_image")
    done = cli(*words, "-o", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    [row] = done.json["rows"]
    assert (row["label"], row["job"], row["batch"]) == ("fp32", "embed_image", 1)
    assert {Path(file).name for file in done.json["files"].values()} == {"results.jsonl", "results.md", "results.html"}
    assert "Mine." in (tmp_path / "out" / "results.md").read_text()
    told = cli(*words, "-o", tmp_path / "out")
    assert "1 cells" in told.out
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 1  # nothing measured again


def test_a_failed_cell_is_an_error_at_the_end(
    cli: Any, roomy_bundle: Path, tmp_path: Path, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgegeo.bench.sweep.run_cell", lambda cell, timeout_s: {"error": "no luck"})
    words = ("bench", roomy_bundle, "--sweep", quick, "--batch", "1", "--jobs", "embed_image", "-o", tmp_path / "out")
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
        (("--precision", "int9"), "--precision"),
        (("--batch", "one"), "--batch"),
        (("--batch", "0"), "batch"),
        (("--threads", "0"), "threads"),
        (("--jobs", "dance"), "--jobs"),
        (("--image-size", "big"), "--image-size"),
        (("--tiles", "0"), "max_tiles"),
        (("--provider", "tpu"), "--provider"),
        (("--sweep", "none.toml"), "none.toml"),
        (("--candidates", "99"), "candidates"),
        (("--target", "2"), "target"),
        (("report", "nowhere"), "no results at nowhere"),
        (("report", "nowhere", "--format", "pdf"), "--format"),
        (("compare", "nowhere", "nowhere"), "no results at nowhere"),
        (("compare", "a", "b", "--fail-on", "much"), "--fail-on"),
        (("best", "nowhere"), "no results at nowhere"),
        (("best", "nowhere", "--max-latency", "soon"), "--max-latency"),
        (("best", "nowhere", "--job", "dance"), "--job"),
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


def test_a_checkpoint_whose_weights_changed(
    cli: Any, home: Path, tiny_bundle: Path, tmp_path: Path, quick: Path
) -> None:
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
    seal(bundle, manifest)
    words = ("bench", "--sweep", quick, "--checkpoint", folder, "--precision", "fp32", "--image-size", 32, "--batch", 1)
    done = cli(*words, "--jobs", "embed_image", "-o", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    [row] = done.json["rows"]
    assert (row["label"], row["picture"]["tokens"]) == ("fp32 32px", 4)
    (folder / "adapters" / "lora" / "adapter_model.safetensors").write_bytes(b"trained on")
    assert "other weights" in cli(*words, "-o", tmp_path / "out").refused()


def test_a_bundle_and_what_to_export_contradict(cli: Any, tiny_bundle: Path) -> None:
    assert "leave them out" in cli("bench", tiny_bundle, "--tiles", "4").refused()
    assert "leave it out" in cli("bench", tiny_bundle, "--precision", "fp32").refused()


def results(folder: Path, *lines: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_report_of_every_format(cli: Any, tmp_path: Path) -> None:
    folder = results(tmp_path / "a", line(accuracy=share(0.6)))
    done = cli("bench", "report", folder, "--format", "md,csv,html,tex", "--json")
    assert done.code == 0, done.err
    assert {Path(file).name for file in done.json["files"].values()} == {
        "results.md", "results.csv", "results.html", "results.tex",
    }  # fmt: skip
    assert cli("bench", "report", folder / "results.jsonl", "-o", tmp_path / "b").out.count("\n") == 3
    assert "--jobs takes some of generate" in cli("bench", "report", folder, "--jobs", "search").refused()


def test_a_comparison_fails_on_what_became_slower(cli: Any, tmp_path: Path) -> None:
    before, after = results(tmp_path / "a", line()), results(tmp_path / "b", line(ms=11.0))
    worse = cli("bench", "compare", before, after)
    assert worse.code == 1
    assert "slower" in worse.out
    assert "1 cells compared: 1 worse" in worse.out
    assert cli("bench", "compare", before, after, "--fail-on", "20%").code == 0
    better = cli("bench", "compare", after, before, "--json")
    assert (better.code, better.json["bad"]) == (0, False)
    assert better.json["changes"][0]["verdicts"] == ["faster"]


def test_a_comparison_across_machines(cli: Any, tmp_path: Path) -> None:
    other = results(tmp_path / "b", line(machine={**MACHINE, "cpu": "another"}))
    words = ("bench", "compare", results(tmp_path / "a", line()), other)
    assert "--across-machines" in cli(*words).refused()
    assert cli(*words, "--across-machines").code == 0


def test_the_best_setting_and_its_recipe(cli: Any, tmp_path: Path) -> None:
    recipe = to_plain(preset("int8"))
    folder = results(
        tmp_path / "a",
        line("fp32", ms=30.0, accuracy=share(0.6), recipe=to_plain(preset("fp32"))),
        line("int8", accuracy=share(0.6), recipe=recipe, threads=2),
    )
    done = cli("bench", "best", folder, "--max-latency", "200ms", "--max-memory", "2GB", "--min-recall", "50%")
    assert done.code == 0, done.err
    assert done.out.startswith("int8 generate batch 1 2 threads\n")
    assert "edgegeo export --recipe" in done.out
    assert "edgegeo locate photo.jpg --bundle best --threads 2" in done.out
    assert load_recipe(folder / "best.toml") == preset("int8")
    told = cli("bench", "best", folder, "--max-latency", "50ms", "-o", tmp_path / "mine.toml", "--json")
    assert told.json["recipe"] == str(tmp_path / "mine.toml")
    assert "keeps all limits" in cli("bench", "best", folder, "--max-memory", "10MB").refused()


def test_the_best_of_bundles_that_were_named_has_no_recipe(cli: Any, tmp_path: Path) -> None:
    done = cli("bench", "best", results(tmp_path / "a", line(accuracy=share(0.6))))
    assert done.code == 0, done.err
    assert "no recipe is known" in done.err
    assert not (tmp_path / "a" / "best.toml").exists()
