"""Opening checkpoint folders, whole and broken."""

import json
import shutil
from pathlib import Path

import pytest

from edgegeo.errors import CheckpointError
from edgegeo.models.checkpoint import load_checkpoint


def test_a_whole_folder_opens(folder: Path) -> None:
    checkpoint = load_checkpoint(folder)
    assert checkpoint.family.name == "smolvlm"
    assert checkpoint.image.tokens == 1
    assert checkpoint.settings.yes == ("yes",)
    assert checkpoint.stop_ids == (checkpoint.tokenizer.token_to_id("<end_of_utterance>"),)
    assert checkpoint.adapter("embed") is None
    assert checkpoint.adapter("rerank") is None
    assert not checkpoint.model.training


def test_transformers_reads_the_processor_files_alike(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    from edgegeo.runtime.pictures import prepare_picture

    module = pytest.importorskip("transformers.models.smolvlm.image_processing_pil_smolvlm")
    processor = module.SmolVLMImageProcessorPil.from_pretrained(folder)
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (45, 70, 3), dtype=np.uint8))
    expected = processor([[image]], return_tensors="np")["pixel_values"].reshape(3, 32, 32)
    assert np.abs(prepare_picture(image, load_checkpoint(folder).image).inputs["pixel_values"] - expected).max() < 1e-6


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
    with pytest.raises(CheckpointError, match=r"'mamba' model; this edgegeo knows .*smolvlm"):
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


@pytest.mark.parametrize("version", ["4.57.1", "5.2.0", "6.0.0"])
def test_an_unsupported_transformers_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    import transformers

    monkeypatch.setattr(transformers, "__version__", version)
    with pytest.raises(CheckpointError, match=f"transformers {version} is not supported .*install 'transformers>=5"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "optimizer.pkl", "training_args.bin"])
def test_pickles_beside_weights_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / name).write_bytes(b"\x80\x04N.")
    with pytest.raises(CheckpointError, match=f"holds {name}, which can run code.*safetensors only"):
        load_checkpoint(copy)


def test_remote_code_checkpoints_get_the_remedy(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    remote = {"model_type": "internvl_chat", "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"}}
    (copy / "config.json").write_text(json.dumps(config | remote))
    with pytest.raises(CheckpointError, match=r"'internvl_chat' model.*use its '-HF' version"):
        load_checkpoint(copy)


def edited(folder: Path, copy: Path, file: str, **changes: object) -> Path:
    shutil.copytree(folder, copy)
    data = json.loads((copy / file).read_text()) if (copy / file).is_file() else {}
    (copy / file).write_text(json.dumps(data | changes))
    return copy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_std": [0, 0, 0]}, r"makes no pixels .*std \[0, 0, 0\]"),
        ({"image_mean": [0.5]}, r"makes no pixels .*mean \[0\.5\]"),
        ({"image_mean": "grey"}, "makes no pixels .*mean 'grey'"),
        ({"rescale_factor": "q"}, "makes no pixels .*rescale 'q'"),
        ({"resample": 9}, "makes no pixels .*resample 9"),
        ({"size": "large"}, "size large"),
        ({"max_image_size": {"longest_edge": "x"}}, r"image settings in .* can't be read \(ValueError.*save"),
    ],
)
def test_image_settings_that_make_no_pixels(folder: Path, tmp_path: Path, change: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(edited(folder, tmp_path / "copy", "preprocessor_config.json", **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"quantization_config": {"quant_method": "awq"}}, "quantised already .'awq'.*use the original"),
        ("generation_config.json", {"eos_token_id": "end"}, "no token that ends an answer .eos_token_id 'end'"),
    ],
)
def test_foreign_settings(folder: Path, tmp_path: Path, file: str, change: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(edited(folder, tmp_path / "copy", file, **change))  # type: ignore[arg-type]


def test_weights_of_another_size_are_named(folder: Path, tmp_path: Path) -> None:
    text = json.loads((folder / "config.json").read_text())["text_config"] | {"intermediate_size": 48}
    copy = edited(folder, tmp_path / "copy", "config.json", text_config=text)
    with pytest.raises(CheckpointError, match=r"mlp\..*_proj\.weight has shape .* where .* is asked for"):
        load_checkpoint(copy)
