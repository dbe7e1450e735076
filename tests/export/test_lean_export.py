"""Models too large for float32: exported as they are stored, proved part by part. Here a tiny one, told it is large."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgegeo.bundle import open_bundle
from edgegeo.errors import VerificationError
from edgegeo.export import parity, windows
from edgegeo.export.pipeline import export_source
from edgegeo.export.report import ExportReport
from edgegeo.export.source import Source, open_source
from edgegeo.models import weights
from edgegeo.models.adapters import Folded
from edgegeo.recipe import Recipe, preset
from edgegeo.runtime import verify_bundle


@pytest.fixture(scope="module")
def stored(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with bfloat16 weights on disk."""
    from shutil import copytree

    from edgegeo.models.checkpoint import load_checkpoint

    folder = Path(copytree(checkpoint, tmp_path_factory.mktemp("stored") / "tiny"))
    load_checkpoint(checkpoint).model.to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "FULL_BYTES", 0)
    monkeypatch.setattr(weights, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(windows, "WINDOW_BYTES", 1)


@pytest.fixture
def lean(stored: Path, large: None) -> Source:
    return open_source(stored)


def rows(report: ExportReport) -> dict[tuple[str, str], Any]:
    return {(row.section, row.name): row for row in report.rows}


def test_lean_and_full_exports_give_the_same_graphs(stored: Path, lean: Source, tmp_path: Path) -> None:
    """Same weights, adapters folded one matrix at a time: what is written does not depend on how it was loaded."""
    report = export_source(lean, preset("int8"), tmp_path / "lean", places=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "FULL_BYTES", 3 << 30)
        export_source(open_source(stored), preset("int8"), tmp_path / "full", places=0)
    one, two = (open_bundle(tmp_path / name).manifest for name in ("lean", "full"))
    assert one.roles == two.roles
    names = [name for name in two.files if name != "golden.npz"]
    same = {name: one.files[name].sha256 == two.files[name].sha256 for name in names}
    # Merged matrices may differ in the last bit; everything else is equal to the byte.
    assert all(ok for name, ok in same.items() if "_embed" not in name and "_generate" not in name), same
    assert verify_bundle(open_bundle(tmp_path / "lean")).passed
    found = rows(report)
    for name in ("vision", "vision_embed", "trunk", "trunk_embed", "trunk_generate", "head"):
        assert found["parity", f"{name}, fp32 graph"].value > 0.99999
    assert any("part by part" in note for note in report.notes)


def test_adapters_of_large_models_stay_attached_and_are_folded_on_demand(lean: Source) -> None:
    assert lean.roles["rerank"].model is lean.checkpoint.model
    for role in ("embed", "generate"):
        one = lean.roles[role]
        assert any(isinstance(m, Folded) for m in one.model.modules())
        assert any("lora" in name for name, _ in one.reference.model.named_modules())
        assert one.merge_difference is not None
        assert 0 < one.merge_difference < 1e-4
        assert one.model.lm_head.weight is lean.checkpoint.model.lm_head.weight


def test_every_stage_says_what_it_took(lean: Source, tmp_path: Path) -> None:
    report = export_source(lean, preset("int4"), tmp_path / "out", places=0)
    found = rows(report)
    for stage in ("write int4", "run transformers", "prove fp32 in parts", "compare int4", "read back and publish"):
        assert found["time", stage].value > 0
        assert 50 < found["memory", stage].value <= report.peak_mb
    assert report.to_dict()["peak_mb"] == report.peak_mb


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("text_model.layers.1.mlp.down_proj", "trunk, fp32 graph"),
        ("vision_model.encoder.layers.0.mlp.fc1", "vision, fp32 graph"),
    ],
)
def test_a_wrong_graph_fails_its_proof(lean: Source, tmp_path: Path, wrong: str, named: str) -> None:
    """Torch computes what the weights don't say; the quantised limits alone would let it by."""
    module = lean.checkpoint.model.model.get_submodule(wrong)
    hook = module.register_forward_hook(lambda _, __, out: out * 1.2)
    try:
        with pytest.raises(VerificationError, match=rf"fp32 bundle computes something else.*{named}"):
            export_source(lean, preset("int8"), tmp_path / "out", places=0)
    finally:
        hook.remove()
    assert not list(tmp_path.iterdir())


def test_the_proof_is_of_the_dialect_that_is_written(lean: Source, tmp_path: Path) -> None:
    built: list[str] = []
    real = windows.build_trunk

    def watched(text: Any, storage: Any, dialect: str = "ort") -> Any:
        built.append(dialect)
        return real(text, storage, dialect)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "build_trunk", watched)
        report = export_source(lean, preset("int8", "tensorrt"), tmp_path / "out", places=0)
    assert set(built) == {"trt"}
    assert rows(report)["parity", "trunk, fp32 graph"].value > 0.99999


def test_nan_never_passes() -> None:
    assert np.isnan(windows.least_cosine([[np.nan, 1.0]], [[1.0, 1.0]]))
    stage = parity.Stage("x", "cosine", float(np.minimum(1.0, windows.least_cosine([[np.nan]], [[1.0]]))), 0.9999)
    assert not stage.passed


def test_windows_cover_every_layer_once(lean: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    text = lean.checkpoint.family.parts(lean.checkpoint.model).text
    size = 4 * sum(p.numel() for p in text.layers[0].parameters())
    monkeypatch.setattr(windows, "WINDOW_BYTES", 1)
    assert windows.spans(text) == [(0, 1), (1, 2)]
    monkeypatch.setattr(windows, "WINDOW_BYTES", 2 * size)
    assert windows.spans(text) == [(0, 2)]
    view = windows.window(text, 1, 2)
    assert len(view.layers) == view.config.num_hidden_layers == 1
    assert view.layers[0] is text.layers[1]
    assert len(text.layers) == text.config.num_hidden_layers == 2


def test_static_ranges_need_no_exact_bundle(lean: Source, tmp_path: Path) -> None:
    recipe = Recipe("static", vision="int8", vision_activations="static", calibration_samples=3)
    export_source(lean, recipe, tmp_path / "static", places=0)
    manifest = open_bundle(tmp_path / "static").manifest
    assert manifest.calibration["count"] == 3
    assert not any(name.startswith(("calibration", "proof")) for name in manifest.files)
