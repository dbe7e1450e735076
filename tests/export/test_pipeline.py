"""Checkpoint to bundle, the whole way, on the tiny model with its LoRA retriever, DoRA GPS adapter and queries."""

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgegeo.bundle import Bundle, open_bundle
from edgegeo.calibration import describe_samples
from edgegeo.errors import BundleError, InputError, VerificationError
from edgegeo.evaluate import planet_scenes
from edgegeo.export import parity
from edgegeo.export.pipeline import export_source
from edgegeo.export.report import ExportReport
from edgegeo.export.source import Source, open_source
from edgegeo.recipe import Recipe, preset
from edgegeo.runtime import Embedder, Generator, Model, Reranker, verify_bundle

PLACES = 4


@pytest.fixture(scope="module")
def exported(source: Source, tmp_path_factory: pytest.TempPathFactory) -> tuple[ExportReport, Bundle]:
    out = tmp_path_factory.mktemp("bundles") / "tiny-int8"
    report = export_source(source, preset("int8"), out, places=PLACES)
    return report, open_bundle(out)


def test_bundle_offers_all_roles_and_repeats_its_golden_outputs(exported: tuple[ExportReport, Bundle]) -> None:
    report, bundle = exported
    assert verify_bundle(bundle).passed
    model = Model(bundle, threads=1)
    assert Embedder(model).texts(["a green field"]).shape == (1, 64)
    scene = planet_scenes(1, "validation")[0]
    assert 0 < Reranker(model).score("a green field", [scene.tile])[0] < 1
    assert isinstance(Generator(model).answer(scene.photo).text, str)
    assert report.bytes == bundle.bytes
    assert report.fingerprint == bundle.fingerprint


def test_files_follow_the_hugging_face_layout_and_shared_parts_are_written_once(
    exported: tuple[ExportReport, Bundle],
) -> None:
    _, bundle = exported
    assert sorted(c.file for c in bundle.manifest.components.values()) == [
        "onnx/decoder_model_merged_embed_int8.onnx",
        "onnx/decoder_model_merged_generate_int8.onnx",
        "onnx/decoder_model_merged_int8.onnx",
        "onnx/lm_head_int8.onnx",
        "onnx/vision_encoder_embed_int8.onnx",
        "onnx/vision_encoder_int8.onnx",
    ]
    assert {"tokenizer.json", "config.json", "preprocessor_config.json"} <= set(bundle.manifest.files)


def test_report_says_size_parity_accuracy_and_latency(exported: tuple[ExportReport, Bundle]) -> None:
    report, bundle = exported
    rows = {(row.section, row.name): row for row in report.rows}
    size = rows["size", "bundle"]
    assert size.before is not None
    assert size.value < size.before
    assert rows["parity", "pixels"].value <= 1.0
    exact = rows["parity", "text embedding"].before
    assert exact is not None
    assert exact > 0.99999
    recall = rows["accuracy", "text_to_tile_recall_at_10"]
    assert (recall.value, recall.before) == (1.0, 1.0)  # 4 places, 10 places to be in
    assert rows["latency", "embed a text, 1 thread"].value > 0
    assert set(report.merge_differences) == {"embed", "generate"}
    card = bundle.manifest.accuracy
    assert card["places"] == PLACES
    assert {"value", "low", "high", "fp32", "difference"} <= set(card["metrics"]["photo_to_tile_recall_at_1"])
    assert report.to_dict()["rows"][0]["name"] == "bundle"


def test_manifest_names_its_sources(exported: tuple[ExportReport, Bundle]) -> None:
    _, bundle = exported
    adapters = bundle.manifest.source["adapters"]
    assert adapters["embed"]["name"] == "retriever-lora"
    assert adapters["rerank"] is None
    assert len(adapters["generate"]["files"]["adapter_model.safetensors"]) == 64
    assert {"torch", "transformers", "onnxruntime"} <= set(bundle.manifest.tools)


def test_fp32_export_equals_transformers_and_exporting_twice_gives_the_same_components(
    checkpoint: Path, tmp_path: Path
) -> None:
    """With latent queries the backbone is untouched: one trunk and one tower serve every role but the adapted one."""
    hashes = []
    for name in ("one", "two"):
        report = export_source(open_source(checkpoint, method="slq"), preset("fp32"), tmp_path / name, places=0)
        files = open_bundle(tmp_path / name).manifest.files
        hashes.append({n: f.sha256 for n, f in files.items()})
    assert hashes[0] == hashes[1]
    values = {row.name: row.value for row in report.rows if row.section == "parity"}
    assert values["greedy tokens"] == 1.0
    assert values["trunk, padded batch"] > 0.999999
    bundle = open_bundle(tmp_path / "two")
    assert sorted(bundle.manifest.components) == ["head", "trunk", "trunk_generate", "vision"]
    assert bundle.manifest.accuracy["parity"]["yes/no margin"]["value"] < 1e-3
    assert bundle.manifest.roles.embed is not None
    assert bundle.manifest.roles.embed.pooling == "queries"


def test_static_vision_is_calibrated_on_real_samples(source: Source, tmp_path: Path) -> None:
    recipe = Recipe("static", vision="int8", vision_activations="static", calibration_samples=8)
    export_source(source, recipe, tmp_path / "static", places=0)
    bundle = open_bundle(tmp_path / "static")
    wanted = describe_samples(planet_scenes(8, "validation"), "validation", 2026)
    assert bundle.manifest.calibration["sha256"] == wanted.sha256
    assert not any(name.startswith("calibration") for name in bundle.manifest.files)


def test_layers_of_another_precision_stand_in_graph_and_manifest(source: Source, tmp_path: Path) -> None:
    layers = {"trunk*.layers.0.*": "fp32", "vision*.fc2": "fp16"}
    export_source(source, replace(preset("int8"), layers=layers), tmp_path / "mixed", places=0)
    bundle = open_bundle(tmp_path / "mixed")
    parts = bundle.manifest.components
    kept = {f"layers.0.{matrix}": "fp32" for matrix in ("qkv", "o", "gate", "up", "down")}
    assert (parts["trunk_embed"].precision, parts["trunk_embed"].layers) == ("int8", kept)
    assert parts["vision"].layers == {"layers.0.fc2": "fp16", "layers.1.fc2": "fp16"}
    assert parts["head"].layers == {}
    stored = {w.name: w.data_type for w in onnx.load(bundle.component("trunk_embed")).graph.initializer}
    assert stored["layers.0.qkv.weight"] == onnx.TensorProto.FLOAT
    assert stored["layers.1.qkv.weight_int8"] == onnx.TensorProto.INT8
    assert bundle.manifest.source["recipe"]["layers"] == layers


def test_a_misspelt_layer_is_told_and_nothing_written(source: Source, tmp_path: Path) -> None:
    recipe = replace(preset("int8"), layers={"trunk.layer.0.*": "fp32"})
    with pytest.raises(InputError, match=r"no layer matches 'trunk\.layer\.0\.\*'; layers are named as "):
        export_source(source, recipe, tmp_path / "mixed", places=0)
    assert not list(tmp_path.iterdir())


def test_failed_verification_leaves_nothing_behind_and_the_old_bundle_intact(
    source: Source, exported: tuple[ExportReport, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, old = exported
    monkeypatch.setitem(parity.COSINE, "fp32", 1.1)
    with pytest.raises(VerificationError, match=r"fp32 bundle computes something else.*image tokens"):
        export_source(source, preset("fp32"), old.path, places=0)
    assert open_bundle(old.path).fingerprint == old.fingerprint
    assert [p.name for p in old.path.parent.iterdir()] == [old.path.name]


def test_full_disk_leaves_the_old_bundle_intact(
    source: Source, exported: tuple[ExportReport, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, old = exported

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(BundleError, match=r"No space left on device.*free some space"):
        export_source(source, preset("fp32"), old.path, places=0)
    assert open_bundle(old.path).fingerprint == old.fingerprint
    assert [p.name for p in old.path.parent.iterdir()] == [old.path.name]


def test_a_folder_that_is_no_bundle_is_refused_before_any_work(source: Source, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    stages: list[str] = []
    with pytest.raises(BundleError, match="is not a bundle"):
        export_source(source, preset("fp32"), tmp_path, progress=lambda stage, done, total: stages.append(stage))
    assert not stages
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
