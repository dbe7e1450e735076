"""The Gemma 3 family against transformers: whole chat prompts, hidden states, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_gemma import PROCESSOR, make_model, make_processor, make_tokenizer, save_checkpoint

from edgegeo.errors import CheckpointError
from edgegeo.models.checkpoint import load_checkpoint
from edgegeo.models.family import find_family
from edgegeo.models.prompts import fill_ids, segments
from edgegeo.models.reference import Reference
from edgegeo.recipe import TokenBudget
from edgegeo.runtime.pictures import Picture, prepare_picture

FAMILY = find_family("gemma3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(make_model(), tmp_path_factory.mktemp("gemma"))


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Any:
    return load_checkpoint(folder)


def picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(width + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def ask(folder: Path, content: list[str], images: list[Image.Image], crops: int = 1) -> Any:
    """What the Hugging Face processor makes of one user message through the chat template."""
    shown = iter(images)
    message = [
        {"type": "image", "image": next(shown)} if part == "{image}" else {"type": "text", "text": part}
        for part in content
    ]
    settings = {"do_pan_and_scan": crops > 1, "pan_and_scan_min_crop_size": 10, "pan_and_scan_max_num_crops": crops}
    return make_processor(folder).apply_chat_template(
        [{"role": "user", "content": message}], tokenize=True, return_dict=True, add_generation_prompt=True,
        return_tensors="pt", processor_kwargs={"images_kwargs": settings},
    )  # fmt: skip


def written(content: list[str], config: Any, images: list[Image.Image], crops: int) -> tuple[list[int], list[Picture]]:
    """The same message as an edgegeo template."""
    tokenizer = make_tokenizer()
    preprocessor = PROCESSOR | {"pan_and_scan_min_crop_size": 10}
    spec = FAMILY.image_spec(config, preprocessor, tokenizer, TokenBudget(max_tiles=crops))
    pictures = [prepare_picture(image, spec) for image in images]
    words = "".join(part if part == "{image}" else part.strip() for part in content)
    template = f"<bos><start_of_turn>user\n{words}<end_of_turn>\n<start_of_turn>model\n"
    prompt = segments(template, tokenizer, "text", FAMILY.around_image)
    return fill_ids(prompt, FAMILY.image_token_id(config), [one.layout for one in pictures]), pictures


CHATS = {
    "one": ["{image}", "Where was this photo taken?"],
    "two": ["{image}", "{image}", "Do these show the same place?"],
    "between words": ["Look:", "{image}", "and this", "{image}", "Do these show the same place?"],
    "line breaks": ["First line.\n", "{image}", "\nLast line\n\n"],
}
SHAPES = [((40, 40), (50, 45)), ((96, 30), (40, 40)), ((40, 40), (24, 99)), ((96, 30), (31, 99))]


@pytest.mark.parametrize("sizes", SHAPES)
@pytest.mark.parametrize(("chat", "crops"), [(chat, 1) for chat in CHATS] + [("one", 4), ("two", 4), ("two", 2)])
def test_prompts_are_the_processors(folder: Path, checkpoint: Any, chat: str, crops: int, sizes: Any) -> None:
    images = [picture(*size) for size in sizes][: CHATS[chat].count("{image}")]
    expected = ask(folder, CHATS[chat], images, crops)
    ids, pictures = written(CHATS[chat], checkpoint.config, images, crops)
    assert ids == expected["input_ids"][0].tolist()
    pixels = np.concatenate([one.inputs["pixel_values"] for one in pictures])
    np.testing.assert_array_equal(pixels, expected["pixel_values"].numpy())


@pytest.mark.parametrize("crops", [1, 4])
def test_hidden_states_are_the_models_own(folder: Path, checkpoint: Any, crops: int) -> None:
    """Pictures see themselves both ways, in sliding layers too, and token embeddings are scaled but pictures not."""
    images = [picture(96, 30), picture(40, 41)]
    inputs = ask(folder, CHATS["two"], images, crops)
    with torch.no_grad():
        expected = checkpoint.model.model(**inputs).last_hidden_state
        ids, pictures = written(CHATS["two"], checkpoint.config, images, crops)
        got = FAMILY.hidden(checkpoint.model, torch.tensor([ids]), pictures)
        causal = checkpoint.model.model(**{k: v for k, v in inputs.items() if k != "token_type_ids"}).last_hidden_state
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    assert (causal - expected).abs().max() > 0.01


def test_an_image_token_that_the_model_wrote_is_no_picture(folder: Path, checkpoint: Any) -> None:
    images = [picture(40, 40)]
    inputs = dict(ask(folder, CHATS["one"], images))
    ids, pictures = written(CHATS["one"], checkpoint.config, images, 1)
    token = FAMILY.image_token_id(checkpoint.config)
    with torch.no_grad():
        cached = checkpoint.model.model(**inputs, use_cache=True)
        both = torch.tensor([[token, token]])
        expected = checkpoint.model.model(input_ids=both, past_key_values=cached.past_key_values).last_hidden_state
        got = FAMILY.hidden(checkpoint.model, torch.tensor([[*ids, token, token]]), pictures)[:, -2:]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_token_scale_is_the_loaded_models_own() -> None:
    """In bfloat16 transformers rounds the scale, and Gemma was trained so."""
    model = make_model(hidden_size=48, num_attention_heads=2)
    assert FAMILY.embedding_scale(model) == pytest.approx(48**0.5)
    narrow = model.to(torch.bfloat16)
    assert FAMILY.embedding_scale(narrow) == 6.9375


def test_default_prompts_begin_as_gemma_wants(folder: Path, checkpoint: Any) -> None:
    reference = Reference(checkpoint, checkpoint.model)
    for role, template in checkpoint.settings.prompts.items():
        first = segments(template, checkpoint.tokenizer, "text", FAMILY.around_image)[0]
        assert first.ids is not None, role
        assert first.ids[0] == checkpoint.tokenizer.token_to_id("<bos>"), role
    tokenizer = make_processor(folder).tokenizer
    text = "a green field beside a river"
    with torch.no_grad():
        states = checkpoint.model.model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, -1]
    expected = torch.nn.functional.normalize(states, dim=-1).numpy()
    np.testing.assert_allclose(reference.embed_texts([text])[0], expected, atol=1e-6)


def test_pixel_parity_asks_for_the_same_crops(folder: Path, checkpoint: Any) -> None:
    processor = make_processor(folder).image_processor
    for crops in (1, 3):
        spec = FAMILY.image_spec(
            checkpoint.config, PROCESSOR | {"pan_and_scan_min_crop_size": 10}, checkpoint.tokenizer,
            TokenBudget(max_tiles=crops),
        )  # fmt: skip
        made = FAMILY.processor_inputs(processor, picture(96, 30), spec)
        assert made["pixel_values"].shape[0] == (1 if crops == 1 else 4)
        np.testing.assert_array_equal(
            made["pixel_values"], prepare_picture(picture(96, 30), spec).inputs["pixel_values"]
        )


def test_checkpoints_own_pan_and_scan_is_kept(checkpoint: Any) -> None:
    spec = FAMILY.image_spec(checkpoint.config, PROCESSOR | {"do_pan_and_scan": True}, checkpoint.tokenizer)
    assert (spec.max_tiles, spec.min_crop, spec.min_ratio) == (4, 256, 1.2)
    assert FAMILY.image_spec(checkpoint.config, PROCESSOR, checkpoint.tokenizer).max_tiles == 1


@pytest.mark.parametrize(
    ("change", "budget", "message"),
    [
        ({"size": {"height": 64, "width": 64}}, None, "config.json expects 32 x 32"),
        ({"do_resize": False}, None, "do_resize false"),
        ({}, TokenBudget(image_size=64), "32 px only, not 64"),
        ({}, TokenBudget(max_pixels=1000), "no max_pixels"),
    ],
)
def test_unknown_settings_are_refused(checkpoint: Any, change: Any, budget: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        FAMILY.image_spec(checkpoint.config, PROCESSOR | change, checkpoint.tokenizer, budget)


def test_pan_and_scan_wants_pictures_at_the_start_of_a_line(checkpoint: Any) -> None:
    def spec(crops: int) -> Any:
        return FAMILY.image_spec(checkpoint.config, PROCESSOR, checkpoint.tokenizer, TokenBudget(max_tiles=crops))

    FAMILY.check_prompts(checkpoint.settings.prompts, spec(4))
    FAMILY.check_prompts({"generate": "<bos>Look: {image}"}, spec(1))
    FAMILY.check_prompts({"generate": "<bos>Look:\n{image}{image}"}, spec(4))
    for template in ("<bos>Look: {image}", "Photo:{image|text}{image}", "<bos>{image|text}{image}", "{text}{image}"):
        with pytest.raises(CheckpointError, match="'rerank' shows a picture in the middle of a line"):
            FAMILY.check_prompts({"rerank": template}, spec(4))


def test_text_only_gemma_is_refused_with_the_reason(tmp_path: Path, folder: Path) -> None:
    for name in ("tokenizer.json", "preprocessor_config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3_text"}))
    with pytest.raises(CheckpointError, match="'gemma3_text' model: it has no vision tower"):
        load_checkpoint(tmp_path)
