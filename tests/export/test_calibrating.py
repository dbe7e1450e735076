"""Recorded activations in an export: both ways of recording, windows, files, and what bundles make of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgegeo.bundle import open_bundle
from edgegeo.calibration import Calibration, describe_samples
from edgegeo.errors import InputError
from edgegeo.evaluate import Scene, planet_scenes
from edgegeo.export.calibrating import Chosen, answer_of, known, record
from edgegeo.export.components import Layout, layout
from edgegeo.export.exposed import BundleGraphs, calibrate_bundle
from edgegeo.export.pipeline import _stage, export_source
from edgegeo.export.source import Source
from edgegeo.models.checkpoint import AnswerForm
from edgegeo.progress import silent
from edgegeo.recipe import Recipe, preset
from edgegeo.runtime import Embedder, Generator, Model

CALIBRATED = Recipe(
    "all", vision="int8", trunk="int4", head="int8", embeddings="fp16", vision_activations="static",
    head_activations="static", rounding="gptq", smooth=0.5, kv="int8", layers={"trunk*.layers.0.*": "int8"},
    trunk_activations="static", calibration_samples=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def scenes() -> tuple[Scene, ...]:
    return planet_scenes(3, "validation")


@pytest.fixture(scope="module")
def plan(source: Source) -> Layout:
    return layout(source)


@pytest.fixture(scope="module")
def calibration(
    source: Source, plan: Layout, scenes: tuple[Scene, ...], tmp_path_factory: pytest.TempPathFactory
) -> Calibration:
    return record(source, plan, Chosen(samples=scenes), tmp_path_factory.mktemp("recorded") / "tiny.json")


def test_every_matrix_and_cache_is_recorded(calibration: Calibration, plan: Layout) -> None:
    assert set(calibration.record.components) == set(plan.parts)
    trunk = calibration["trunk"]
    assert {"layers.0.qkv", "layers.1.down", "layers.1.key", "layers.1.value"} <= set(trunk)
    assert trunk["layers.1.down"].grams()[0].shape == (80, 80)
    assert calibration["vision"]["layers.0.fc1"].grams() == []
    assert calibration["head"]["logits"].record.rows > 3


def test_windows_of_layers_see_what_the_whole_decoder_sees(
    source: Source, plan: Layout, scenes: tuple[Scene, ...], calibration: Calibration, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("edgegeo.export.windows.WINDOW_BYTES", 1)
    parted = record(source, plan, Chosen(samples=scenes), tmp_path / "parted.json")
    assert set(parted["trunk"]) == set(calibration["trunk"])
    for layer in ("layers.0.qkv", "layers.1.qkv", "layers.1.down", "layers.1.key"):
        one, other = parted["trunk"][layer], calibration["trunk"][layer]
        assert one.record.tensor == other.record.tensor
        np.testing.assert_allclose(one.absmax, other.absmax, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(one.square, other.square, rtol=1e-3, atol=1e-4)


def test_an_fp32_bundle_gives_the_same_of_what_both_are_asked(
    source: Source, plan: Layout, scenes: tuple[Scene, ...], calibration: Calibration, tmp_path: Path
) -> None:
    exact, _ = _stage(source, preset("fp32"), plan, tmp_path / "fp32", {}, {}, silent)
    told = describe_samples(scenes, "validation", 0)
    found = calibrate_bundle(BundleGraphs(exact), scenes, told, tmp_path / "b.json")
    assert found.record.weights == calibration.record.weights
    for layer, one in found["vision"].items():
        np.testing.assert_allclose(one.absmax, calibration["vision"][layer].absmax, rtol=1e-4, atol=1e-5)
    # Prompts without an answer are the same to the token; the table of tokens is fp16 in one of them.
    one, other = found["trunk_embed"]["layers.0.qkv"], calibration["trunk_embed"]["layers.0.qkv"]
    assert one.record.rows == other.record.rows
    np.testing.assert_allclose(one.absmax, other.absmax, rtol=5e-3, atol=1e-3)


def test_an_export_with_everything_calibrated(source: Source, calibration: Calibration, tmp_path: Path) -> None:
    report = export_source(source, CALIBRATED, tmp_path / "out", places=0, calibration=calibration)
    bundle = open_bundle(tmp_path / "out")
    assert bundle.manifest.calibration["statistics_sha256"] == calibration.sha256
    assert bundle.manifest.calibration["random"] is False
    model = Model(bundle, threads=1)
    assert model.trunk("trunk").kv_dtype == np.int8
    assert Embedder(model).texts(["a green field"]).shape == (1, 64)
    assert isinstance(Generator(model).answer(planet_scenes(1, "validation")[0].photo).text, str)
    assert not any("random" in note for note in report.notes)


def test_noise_is_stamped(source: Source, calibration: Calibration, tmp_path: Path) -> None:
    noise = Calibration(calibration.path, replace(calibration.record, random=True), calibration.sha256)
    recipe = replace(CALIBRATED, layers={}, kv="fp32", smooth=0.0)
    report = export_source(source, recipe, tmp_path / "out", places=0, calibration=noise)
    assert open_bundle(tmp_path / "out").manifest.calibration["random"] is True
    assert any("random data" in note for note in report.notes)


def test_files_that_do_not_fit_are_refused(
    source: Source, plan: Layout, calibration: Calibration, tmp_path: Path
) -> None:
    def ask(recipe: Recipe, given: Calibration) -> Any:
        return known(source, recipe, plan, Chosen(given), tmp_path)

    other = Calibration(calibration.path, replace(calibration.record, weights="another"), "")
    with pytest.raises(InputError, match="other weights"):
        ask(CALIBRATED, other)
    with pytest.raises(InputError, match="needs no calibration"):
        ask(preset("int8"), calibration)


def test_answers_are_written_as_the_checkpoint_writes_them() -> None:
    scene = Scene("a", 1.26, -45.6, "", b"", b"")
    assert answer_of(scene, AnswerForm()) == "<answer>1.260, -45.600</answer>"
    assert answer_of(scene, AnswerForm("fixed", 1, " ")) == " <answer>+01.3, -045.6</answer>"
