"""Opening checkpoint folders, whole and broken."""

import json
import shutil
from pathlib import Path

import pytest

from edgegeo.errors import CheckpointError
from edgegeo.models.checkpoint import load_checkpoint


def test_a_whole_folder_opens(folder: Path) -> None:
    checkpoint = load_checkpoint(folder)
    assert checkpoint.family == "smolvlm"
    assert checkpoint.image.tokens == 1
    assert checkpoint.settings.yes == ("yes",)
    assert checkpoint.stop_ids == (checkpoint.tokenizer.token_to_id("<end_of_utterance>"),)
    assert checkpoint.adapter("embed") == folder / "adapters" / "retriever-lora"
    assert checkpoint.adapter("rerank") is None
    assert not checkpoint.model.training


def test_transformers_reads_the_processor_files_alike(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    from edgegeo.runtime.image import pixels

    module = pytest.importorskip("transformers.models.smolvlm.image_processing_pil_smolvlm")
    processor = module.SmolVLMImageProcessorPil.from_pretrained(folder)
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (45, 70, 3), dtype=np.uint8))
    expected = processor([[image]], return_tensors="np")["pixel_values"].reshape(3, 32, 32)
    assert np.abs(pixels(image, load_checkpoint(folder).image) - expected).max() < 1e-6


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json", "model.safetensors"])
def test_a_lacking_file_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=f"lacks {name}"):
        load_checkpoint(copy)


def test_no_folder_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*; name a folder"):
        load_checkpoint(tmp_path / "nowhere")


def test_an_unknown_architecture_is_named(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    with pytest.raises(CheckpointError, match="'mamba' model; this edgegeo knows smolvlm"):
        load_checkpoint(copy)


@pytest.mark.parametrize("damage", ["cut", "json", "settings"])
def test_damage_is_one_line(folder: Path, tmp_path: Path, damage: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    if damage == "cut":
        weights = copy / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "json":
        (copy / "config.json").write_text("{")
    else:
        (copy / "edgegeo_model.json").write_text('{"prompts": {}, "surprise": 1}')
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(copy)
    assert "\n" not in str(caught.value)


def test_a_foreign_checkpoint_gets_the_familys_prompts(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "edgegeo_model.json").unlink()
    settings = load_checkpoint(copy).settings
    assert settings.prompts["embed_text"] == "{text}"
    assert settings.prompts["generate"].startswith("<|im_start|>User:{image}")
    assert settings.adapters == {"embed": None, "rerank": None, "generate": None}
