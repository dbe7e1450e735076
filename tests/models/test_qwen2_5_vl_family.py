"""The Qwen2.5-VL family on a tiny checkpoint laid out as on the hub: settings, prompts, transformers' own answers."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_qwen import SPECIALS, make_model, make_processor, save_checkpoint

from edgegeo.errors import CheckpointError
from edgegeo.export.parity import image_processor
from edgegeo.models.checkpoint import load_checkpoint
from edgegeo.models.prompts import fill_ids, segments
from edgegeo.recipe import TokenBudget
from edgegeo.runtime.pictures import most_positions, prepare_picture

QUESTION = "Do these show the same place? Answer Yes or No."
WHERE = "Where was this photo taken? Answer as <answer>latitude, longitude</answer>."
IMAGE_TOKEN = SPECIALS.index("<|image_pad|>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(make_model(), tmp_path_factory.mktemp("qwen") / "tiny")


def pictures() -> list[Image.Image]:
    """Two sizes; both have windows that are not full."""
    rng = np.random.default_rng(3)
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in ((90, 150), (170, 61))]


@pytest.mark.parametrize(
    ("role", "content"),
    [
        ("rerank", [{"type": "image"}, {"type": "image"}, {"type": "text", "text": QUESTION}]),
        ("generate", [{"type": "image"}, {"type": "text", "text": WHERE}]),
    ],
)
def test_prompt_and_states_are_transformers_own(folder: Path, role: str, content: list[dict[str, str]]) -> None:
    """A whole chat: the ids of Qwen2_5_VLProcessor, and the states of its output given to the whole model."""
    checkpoint = load_checkpoint(folder)
    shown = pictures()[: sum(part["type"] == "image" for part in content)]
    processor = make_processor(folder)
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    made = processor(images=shown, text=text, return_tensors="pt")
    prepared = [prepare_picture(image, checkpoint.image) for image in shown]
    prompt = segments(checkpoint.settings.prompts[role], checkpoint.tokenizer, "image")
    ids = fill_ids(prompt, IMAGE_TOKEN, [one.layout for one in prepared])
    assert ids == made["input_ids"][0].tolist()
    with torch.no_grad():
        wanted = checkpoint.model.model(**made, use_cache=False).last_hidden_state
        got = checkpoint.family.hidden(checkpoint.model, torch.tensor([ids]), prepared)
    torch.testing.assert_close(got, wanted, atol=2e-5, rtol=0)


def test_latent_queries_continue_the_rotary_positions(folder: Path) -> None:
    """A tail stands where words of the same embeddings would; so does a placeholder that the model wrote itself."""
    checkpoint = load_checkpoint(folder)
    image = prepare_picture(pictures()[0], checkpoint.image)
    prompt = fill_ids(segments("{image}", checkpoint.tokenizer), IMAGE_TOKEN, [image.layout])
    words = [20, IMAGE_TOKEN, 42]
    with torch.no_grad():
        rows = checkpoint.model.get_input_embeddings()(torch.tensor(words))
        got = checkpoint.family.hidden(checkpoint.model, torch.tensor([prompt]), [image], rows)
        wanted = checkpoint.family.hidden(checkpoint.model, torch.tensor([prompt + words]), [image])
    torch.testing.assert_close(got, wanted)


def test_pixel_stage_compares_with_the_checkpoints_processor(folder: Path) -> None:
    checkpoint = load_checkpoint(folder, TokenBudget(max_pixels=28 * 28 * 9))
    made = prepare_picture(pictures()[0], checkpoint.image)
    theirs = checkpoint.family.processor_inputs(image_processor(folder), pictures()[0], checkpoint.image)
    assert made.grid is not None
    assert made.grid[0] * made.grid[1] <= 9
    assert np.array_equal(made.inputs["pixel_values"], theirs["pixel_values"])


def test_budget_is_the_area(folder: Path) -> None:
    spec = load_checkpoint(folder).image
    assert (spec.size, spec.patch, spec.merge, spec.window, spec.tokens) == (28, 14, 2, 56, 0)
    assert (spec.min_pixels, spec.max_pixels) == (3136, 12_845_056)
    assert most_positions(spec) == 16_384 + 2
    small = load_checkpoint(folder, TokenBudget(max_pixels=448 * 448)).image
    assert small.max_pixels == 448 * 448
    assert most_positions(small) == 256 + 2
    # Less than the smallest picture: the lower bound gives way.
    assert load_checkpoint(folder, TokenBudget(max_pixels=1000)).image.min_pixels == 1000
    for budget, said in (
        (TokenBudget(max_pixels=783), "less than one image token of 28 x 28"),
        (TokenBudget(image_size=448), "set max_pixels"),
        (TokenBudget(max_tiles=4), "set max_pixels"),
    ):
        with pytest.raises(CheckpointError, match=said):
            load_checkpoint(folder, budget)


def test_newer_files_name_the_area_by_size(tmp_path: Path) -> None:
    folder = save_checkpoint(make_model(), tmp_path / "tiny")
    file = folder / "preprocessor_config.json"
    data = json.loads(file.read_text())
    del data["min_pixels"], data["max_pixels"]
    file.write_text(json.dumps(data | {"size": {"shortest_edge": 3136, "longest_edge": 50176}}))
    spec = load_checkpoint(folder).image
    assert (spec.min_pixels, spec.max_pixels) == (3136, 50_176)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_processor_type": "SiglipImageProcessor"}, "image_processor_type 'SiglipImageProcessor'"),
        ({"do_resize": False}, "do_resize false"),
        ({"patch_size": 16}, "patch_size 16 where config.json has 14"),
        ({"min_pixels": 10_000, "max_pixels": 5000}, "min_pixels 10000 and max_pixels 5000"),
    ],
)
def test_other_processors_are_refused(folder: Path, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    copied = shutil.copytree(folder, tmp_path / "changed")
    file = copied / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(copied)


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen3_vl", "qwen3_vl_moe", "qwen2_5_omni"])
def test_relatives_are_refused_by_name(folder: Path, tmp_path: Path, kind: str) -> None:
    copied = shutil.copytree(folder, tmp_path / "changed")
    file = copied / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": kind}))
    with pytest.raises(CheckpointError, match=f"'{kind}' model: its architecture differs"):
        load_checkpoint(copied)
