"""CLIP and SigLIP checkpoints to bundles, the whole way, and what such bundles can and can't do."""

import json
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from dual import ROOM, write_clip, write_siglip
from PIL import Image

from edgegeo.bundle import Bundle, open_bundle
from edgegeo.errors import BundleError, CheckpointError, InputError, TrainingError
from edgegeo.evaluate import planet_scenes
from edgegeo.export import export
from edgegeo.export.plan import plan
from edgegeo.export.report import ExportReport
from edgegeo.export.source import open_source
from edgegeo.models.checkpoint import load_checkpoint
from edgegeo.recipe import Recipe, TokenBudget, preset
from edgegeo.runtime import Embedder, Gallery, Generator, Locator, Model, Reranker, verify_bundle
from edgegeo.runtime.gallery.sources import planet_places
from edgegeo.train.retriever import train_retriever
from edgegeo.train.settings import RetrieverSettings

FOLDERS = {"clip": write_clip, "siglip": write_siglip}


@pytest.fixture(scope="module", params=sorted(FOLDERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FOLDERS[request.param](tmp_path_factory.mktemp("checkpoints") / request.param)


@pytest.fixture(scope="module")
def exported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ExportReport, Bundle]:
    out = tmp_path_factory.mktemp("bundles") / f"{folder.name}-int8"
    report = export(folder, preset("int8"), out, places=4)
    return report, open_bundle(out)


def test_bundle_equals_transformers_and_repeats_its_golden_outputs(exported: tuple[ExportReport, Bundle]) -> None:
    report, bundle = exported
    assert verify_bundle(bundle).passed
    before = {row.name: row.before for row in report.rows if row.section == "parity"}
    assert set(before) == {"pixels", "image tokens", "text embedding", "image embedding"}
    assert before["pixels"] == 0.0
    for name in ("image tokens", "text embedding", "image embedding"):
        assert before[name] is not None
        assert before[name] > 0.999999
    assert report.bytes == bundle.bytes


def test_bundle_holds_two_towers_and_embeds_only(exported: tuple[ExportReport, Bundle]) -> None:
    _, bundle = exported
    files = {component.kind: component.file for component in bundle.manifest.components.values()}
    assert files == {"text": "onnx/text_model_int8.onnx", "vision": "onnx/vision_encoder_int8.onnx"}
    assert bundle.manifest.trunk is None
    assert "embed_tokens.npy" not in bundle.manifest.files
    model = Model(bundle, threads=1)
    for role in (Reranker, Generator):
        with pytest.raises(BundleError, match="offers no"):
            role(model)
    with pytest.raises(BundleError, match="a dual encoder has no decoder"):
        model.trunk("text")
    locator = Locator(model)
    with pytest.raises(InputError, match="needs a gallery"):
        locator.locate(photo=planet_scenes(1)[0].photo)


def test_texts_do_not_depend_on_their_batch_and_long_ones_are_refused(folder: Path, tmp_path: Path) -> None:
    export(folder, preset("fp32"), tmp_path / "bundle", places=0)
    embedder = Embedder.open(tmp_path / "bundle", threads=1)
    texts = [scene.text for scene in planet_scenes(5)] + ["a river"]
    alone = np.concatenate([embedder.texts([text]) for text in texts])
    np.testing.assert_allclose(embedder.texts(texts), alone, atol=1e-5)
    np.testing.assert_allclose(embedder.texts(["A RIVER"]), alone[-1:], atol=1e-6)
    with pytest.raises(InputError, match=r"the text has \d+ tokens, this model reads up to"):
        embedder.texts(["river, " * ROOM])


def test_token_ids_equal_the_hugging_face_tokenizer(folder: Path) -> None:
    """Padded by the family's rule, as its processor pads."""
    from transformers import AutoTokenizer

    spec, tokenizer = load_checkpoint(folder).text_spec(), AutoTokenizer.from_pretrained(folder)
    rust = load_checkpoint(folder).tokenizer
    for text in [scene.text for scene in planet_scenes(4)] + ["Red ROOFS, 12 houses!"]:
        made = [*spec.before, *rust.encode(text, add_special_tokens=False).ids, *spec.after]
        made += [spec.pad_id] * (spec.pad_to - len(made))
        padding = {"padding": "max_length", "max_length": ROOM} if spec.pad_to else {}
        assert made == tokenizer(text, **padding)["input_ids"]


def test_gallery_is_built_and_searched(exported: tuple[ExportReport, Bundle], tmp_path: Path) -> None:
    from edgegeo.planet import Planet

    _, bundle = exported
    embedder = Embedder.open(bundle, threads=1)
    gallery = Gallery.build(tmp_path / "gallery", planet_places(Planet(), n=6), embedder)
    tile = Image.open(BytesIO(gallery.thumbnail(2)))
    answer = Locator(embedder.model, gallery).locate(photo=tile, k=3)
    assert (answer.source, len(answer.hits)) == ("retrieval", 3)
    assert Locator(embedder.model, gallery).locate(text="a river", k=1).position is not None
    with pytest.raises(BundleError, match="offers no re-ranking"):
        Locator(embedder.model, gallery).locate(photo=tile, rerank=2)


def test_a_smaller_picture_is_a_recipe_setting(folder: Path, tmp_path: Path) -> None:
    export(folder, Recipe("small", image=TokenBudget(image_size=24)), tmp_path / "small", places=0)
    assert open_bundle(tmp_path / "small").manifest.image.size == 24
    with pytest.raises(CheckpointError, match="one square picture"):
        load_checkpoint(folder, TokenBudget(max_tiles=4))
    with pytest.raises(CheckpointError, match="not filled by patches of 8 px"):
        load_checkpoint(folder, TokenBudget(image_size=30))


def test_plan_names_both_towers(folder: Path) -> None:
    made = {one.name: one for one in plan(open_source(folder), preset("int8"))}
    assert sorted(made) == ["text", "vision"]
    assert made["text"].precision == "int8"


def test_unusable_checkpoints_are_refused_with_the_reason(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only embeds: it can't take the role generate"):
        open_source(folder, {"generate": tmp_path})
    with pytest.raises(CheckpointError, match="without adapters; merge"):
        open_source(folder, {"embed": tmp_path})
    with pytest.raises(TrainingError, match="does not train"):
        train_retriever(RetrieverSettings(out=tmp_path / "adapter", checkpoint=folder))
    broken = shutil.copytree(folder, tmp_path / "broken")
    settings = json.loads((broken / "preprocessor_config.json").read_text())
    (broken / "preprocessor_config.json").write_text(json.dumps(settings | {"do_normalize": False}))
    with pytest.raises(CheckpointError, match="do_normalize false"):
        load_checkpoint(broken)
    key = "crop_size" if folder.name == "clip" else "size"
    (broken / "preprocessor_config.json").write_text(json.dumps(settings | {key: {"height": 64, "width": 64}}))
    with pytest.raises(CheckpointError, match="makes 64-pixel pictures"):
        load_checkpoint(broken)


@pytest.mark.parametrize("precision", ["fp16", "int4"])
def test_other_precisions(folder: Path, tmp_path: Path, precision: str) -> None:
    report = export(folder, preset(precision), tmp_path / precision, places=0)
    values = {row.name: row.value for row in report.rows if row.section == "parity"}
    assert values["text embedding"] > (0.99999 if precision == "fp16" else 0.9)


def test_a_large_one_is_proved_part_by_part(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgegeo.models import weights

    monkeypatch.setattr(weights, "FULL_BYTES", 0)
    report = export(folder, preset("int8"), tmp_path / "lean", places=0)
    values = {row.name: row.value for row in report.rows if row.section == "parity"}
    assert values["text, fp32 graph"] > 0.999999
    assert values["vision, fp32 graph"] > 0.999999
