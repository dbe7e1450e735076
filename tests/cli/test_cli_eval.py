"""edgegeo eval --data: a bundle and a checkpoint on data sets in their true forms."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sealing import seal
from tiny_grammar import add_grammar


def noise(path: Path, seed: int) -> Path:
    """A picture that looks like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def cvg(tmp_path: Path) -> Path:
    """Eight places of CVG-Text, a kilometre apart."""
    told = {}
    for number in range(8):
        name = f"{40 + 0.009 * number:.4f},-74.0_x.png"
        noise(tmp_path / "cvg" / "NewYork-satellite" / name, number)
        told[name] = f"houses with red roofs, {number} of them"
    (tmp_path / "cvg" / "NewYork").mkdir()
    (tmp_path / "cvg" / "NewYork" / "test.json").write_text(json.dumps(told))
    return tmp_path / "cvg"


@pytest.fixture
def im2gps(tmp_path: Path) -> Path:
    rows = [f"{i}.png,author,{10 * i - 30},{20 * i}" for i in range(5)]
    for number in range(5):
        noise(tmp_path / "gps" / "images" / f"{number}.png", number)
    (tmp_path / "gps" / "im2gps3k_places365.csv").write_text("\n".join(["IMG_ID,AUTHOR,LAT,LON", *rows]))
    return tmp_path / "gps"


@pytest.fixture(scope="module")
def answering(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with a grammar, so that it answers with a position, if a random one."""
    return add_grammar(tiny_bundle, tmp_path_factory.mktemp("answering") / "tiny").path


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_bundle_on_cvg_text(cli: Any, tiny_bundle: Path, cvg: Path, tmp_path: Path) -> None:
    words = ("eval", "--data", "cvg-text", "--data-root", cvg, "--bundle", tiny_bundle)
    target, details = tmp_path / "o.json", tmp_path / "d.csv"
    done = cli(*words, "-o", target, "--details", details)
    assert done.code == 0, done.err
    for said in (
        "oracle gallery of the 100 nearest, text to image: 8 queries against 8",
        "full gallery, text to image",
        "Recall@1",
        "L@50 (top 1 within, m)",
        "mean deviation",
        "these are no open-world numbers",
        "each query ranked among 8 items",
    ):
        assert said in done.out
    document = json.loads(target.read_text())
    assert document["data"]["kept"] == 8
    oracle = document["subjects"][0]["sections"][0]
    assert oracle["metrics"]["recall_at_10"] == {"unit": "share", "queries": 8, "value": 1, "low": 1, "high": 1}
    assert len(document["subjects"][0]["fingerprint"]) == 64
    told = rows(details)
    assert len(told) == 16
    share = np.mean([int(row["rank_of_first_hit"]) == 1 for row in told if row["protocol"] == "full gallery"])
    assert share == document["subjects"][0]["sections"][1]["metrics"]["recall_at_1"]["value"]
    assert told[0]["text"] == "houses with red roofs, 0 of them"
    limited = cli(*words, "--limit", 3)
    assert "3 of 8 queries, drawn with seed 0" in limited.out
    assert "3 queries against 8" in limited.out


def test_a_bundle_on_im2gps(cli: Any, answering: Path, im2gps: Path, tmp_path: Path) -> None:
    (im2gps / "images" / "3.png").write_bytes(b"junk")
    details = tmp_path / "d.csv"
    words = ("eval", "--data", "im2gps3k", "--data-root", im2gps, "--bundle", answering, "--details", details)
    done = cli(*words)
    assert done.code == 0, done.err
    for said in ("within 2500 km", "median error", "mean GeoScore", "distinct answers", "1 items could not be read"):
        assert said in done.out
    assert "picture 3.png: " in done.out
    told = rows(details)
    assert [row["unusable"] != "" for row in told] == [False, False, False, True, False]
    assert told[0]["answer"].startswith("<answer>")
    document = cli(*words, "--json").json
    metrics = document["subjects"][0]["sections"][0]["metrics"]
    assert metrics["answered"]["value"] == 0.8
    assert document["subjects"][0]["unusable"] == 1


def test_two_bundles_are_compared_pairwise(cli: Any, tiny_bundle: Path, other_tiny_bundle: Path, cvg: Path) -> None:
    words = ("eval", "--data", "auto", "--data-root", cvg, "--bundle", tiny_bundle, "--against", other_tiny_bundle)
    document = cli(*words, "--json").json
    assert [one["name"] for one in document["subjects"]] == ["other", "tiny"]
    before, after = (one["sections"][1]["metrics"]["mean_km"]["value"] for one in document["subjects"])
    change = document["change"]["subjects"][0]["sections"][1]["metrics"]["mean_km"]
    assert change["value"] == pytest.approx(after - before)
    assert change["low"] < change["value"] < change["high"]
    assert "change" in cli(*words).out


def test_a_checkpoint_and_its_bundle_agree(cli: Any, cvg: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from dual import write_clip

    from edgegeo.export import export
    from edgegeo.recipe import preset

    folder = write_clip(tmp_path / "clip")
    export(folder, preset("fp32"), tmp_path / "bundle", places=0)
    words = ("eval", "--data", "cvg-text", "--data-root", cvg, "--checkpoint", folder)
    details = tmp_path / "d.csv"
    both = cli(*words, "--bundle", tmp_path / "bundle", "--details", details, "--json")
    assert both.code == 0, both.err
    assert [one["kind"] for one in both.json["subjects"]] == ["checkpoint", "bundle"]
    for section in both.json["change"]["subjects"][0]["sections"]:
        assert all(metric["value"] == metric["high"] == 0 for metric in section["metrics"].values())
    told = rows(details)
    ranks = [[row["rank_of_first_hit"] for row in told if kind in row["subject"]] for kind in ("checkpoint", "bundle")]
    assert ranks[0] == ranks[1]
    assert len(set(ranks[0])) > 2
    alone = cli(*words, "--json").json
    assert [one["kind"] for one in alone["subjects"]] == ["checkpoint"]
    assert "change" not in alone
    gps = ("eval", "--data", "planet", "--option", "form=gps", "--option", "places=2", "--checkpoint", folder)
    assert "only embeds" in cli(*gps).refused()
    assert "no adapter folder" in cli(*words, "--adapter", tmp_path / "gone").refused()
    assert "merge" in cli(*words, "--adapter", tmp_path).refused()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["retrieval", "gps"])
def test_the_packaged_model_and_its_bundle_agree(
    cli: Any, form: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pytest.importorskip("torch")
    bundle = tmp_path / "pocket"
    assert cli("export", "--fp32", "--places", 0, "-o", bundle).code == 0
    words = ("eval", "--data", "planet", "--option", f"form={form}", "--option", "places=60")
    done = cli(*words, "--checkpoint", "pocket", "--bundle", bundle, "--json")
    assert done.code == 0, done.err
    first = done.json["subjects"][0]["sections"][0]["metrics"]
    assert first["recall_at_1" if form == "retrieval" else "within_2500_km"]["value"] > 0.8
    for section in done.json["change"]["subjects"][0]["sections"]:
        for name, metric in section["metrics"].items():
            assert abs(metric["value"]) <= (1 if name == "median_km" else 0.02 if name != "geoscore" else 5), name


def test_an_adapter_that_changes_nothing(cli: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from safetensors.numpy import load_file, save_file

    from edgegeo.models.checkpoint import packaged_checkpoint

    folder = tmp_path / "untrained"
    shutil.copytree(packaged_checkpoint() / "adapters" / "retriever-lora", folder)
    weights = load_file(folder / "adapter_model.safetensors")
    part = {name: value * ("lora_B" not in name) for name, value in weights.items() if "magnitude" not in name}
    save_file(part, folder / "adapter_model.safetensors")
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"use_dora": False}))
    words = ("eval", "--data", "planet", "--option", "places=2", "--checkpoint", "pocket")
    assert "changes nothing" in cli(*words, "--adapter", folder).refused()


def test_a_text_that_is_too_long_is_named(cli: Any, tiny_bundle: Path, cvg: Path) -> None:
    told = json.loads((cvg / "NewYork" / "test.json").read_text())
    first = next(iter(told))
    told[first] = "beside a river " * 60
    (cvg / "NewYork" / "test.json").write_text(json.dumps(told))
    words = ("eval", "--data", "cvg-text", "--data-root", cvg, "--bundle", tiny_bundle)
    document = cli(*words, "--json").json
    unusable = document["subjects"][0]["unusable_items"]
    assert [(one["id"], one["side"]) for one in unusable] == [(f"{first}#text", "query")]
    assert "this model reads up to 64" in unusable[0]["why"]
    assert document["subjects"][0]["sections"][1]["metrics"]["recall_at_10"]["value"] == 7 / 8
    assert document["subjects"][0]["sections"][1]["metrics"]["mean_km"]["queries"] == 7


def test_refusals(cli: Any, tiny_bundle: Path, cvg: Path, im2gps: Path, tmp_path: Path) -> None:
    words = ("eval", "--data", "cvg-text", "--data-root", cvg, "--bundle", tiny_bundle)
    folder = tmp_path / "embeds"
    shutil.copytree(tiny_bundle, folder)
    manifest = json.loads((folder / "edgegeo.json").read_text())
    manifest["roles"]["generate"] = None
    seal(folder, manifest)
    gps = ("eval", "--data", "im2gps3k", "--data-root", im2gps, "--bundle", folder)
    assert "offers no GPS generation" in cli(*gps).refused()
    assert "--places only works without --data" in cli(*words, "--places", 3).refused()
    assert "--limit only works with --data" in cli("eval", "--bundle", tiny_bundle, "--limit", 3).refused()
    assert "--joint only works with --data" in cli("eval", "--bundle", tiny_bundle, "--joint", "mean").refused()
    assert "--joint takes one of" in cli(*words, "--joint", "sum").refused()
    assert "--adapter goes with --checkpoint" in cli(*words, "--adapter", "none").refused()
    assert "can't write" in cli(*words, "--details", tmp_path).refused()
    assert "NAME=VALUE" in cli(*words, "--option", "view").refused()
    assert "no data set 'cvg'" in cli("eval", "--data", "cvg", "--bundle", tiny_bundle).refused()
