"""The InternVL family on tiny checkpoints laid out as on the hub: settings, prompts, and transformers' own answers."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_internvl import IMAGE_TOKEN, make_model, make_processor, save_checkpoint

from edgegeo.errors import CheckpointError
from edgegeo.export.parity import image_processor
from edgegeo.models.checkpoint import Checkpoint, load_checkpoint
from edgegeo.models.prompts import fill_ids, segments
from edgegeo.recipe import TokenBudget
from edgegeo.runtime.pictures import prepare_picture

QUESTION = "Do these show the same place? Answer Yes or No."


@pytest.fixture(scope="module", params=["qwen2", "qwen3"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(make_model(request.param), tmp_path_factory.mktemp("internvl") / request.param)


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(3)
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in ((40, 90), (64, 61))]


def rerank_ids(checkpoint: Checkpoint) -> tuple[list[int], list[Any]]:
    prepared = [prepare_picture(image, checkpoint.image) for image in pictures()]
    prompt = segments(checkpoint.settings.prompts["rerank"], checkpoint.tokenizer, "image")
    return fill_ids(prompt, IMAGE_TOKEN, [one.layout for one in prepared]), prepared


@pytest.mark.parametrize("tiles", [1, 4])
def test_prompt_and_states_are_transformers_own(folder: Path, tiles: int) -> None:
    """Two pictures in one chat: the ids of InternVLProcessor, and the states of its output given to the whole model."""
    checkpoint = load_checkpoint(folder, TokenBudget(max_tiles=tiles))
    content: list[dict[str, str]] = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": QUESTION}]
    processor = make_processor(folder, tiles)
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    made = processor(images=pictures(), text=text, return_tensors="pt")
    ids, prepared = rerank_ids(checkpoint)
    assert ids == made["input_ids"][0].tolist()
    with torch.no_grad():
        wanted = checkpoint.model.model(**made, use_cache=False).last_hidden_state
        got = checkpoint.family.hidden(checkpoint.model, torch.tensor([ids]), prepared)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


def test_one_whole_picture_by_default(folder: Path) -> None:
    """The processor's own default would split into up to 12 tiles; paper 1 shows one picture of 448 pixels."""
    checkpoint = load_checkpoint(folder)
    spec = checkpoint.image
    assert (spec.size, spec.tokens, spec.max_tiles, spec.resample) == (32, 4, 1, 3)
    assert spec.mean == (0.485, 0.456, 0.406)
    assert spec.marks == {"before": (3,), "after": (4,)}
    assert checkpoint.stop_ids == (2,)


def test_budget_sets_size_and_tiles(folder: Path) -> None:
    spec = load_checkpoint(folder, TokenBudget(image_size=48, max_tiles=6)).image
    assert (spec.size, spec.tokens, spec.min_tiles, spec.max_tiles, spec.thumbnail) == (48, 9, 1, 6, True)


@pytest.mark.parametrize("tiles", [1, 6])
def test_processor_inputs_are_the_pictures_own(folder: Path, tiles: int) -> None:
    checkpoint = load_checkpoint(folder, TokenBudget(max_tiles=tiles))
    for image in pictures():
        theirs = checkpoint.family.processor_inputs(image_processor(folder), image, checkpoint.image)
        np.testing.assert_array_equal(
            prepare_picture(image, checkpoint.image).inputs["pixel_values"], theirs["pixel_values"]
        )


@pytest.mark.parametrize(
    ("budget", "fault"),
    [
        (TokenBudget(image_size=40), "40 px does not divide into InternVL's squares of 16 px"),
        (TokenBudget(max_pixels=5000), "image_size and max_tiles, not max_pixels"),
    ],
)
def test_impossible_budgets_are_refused(folder: Path, budget: TokenBudget, fault: str) -> None:
    with pytest.raises(CheckpointError, match=fault):
        load_checkpoint(folder, budget)


@pytest.mark.parametrize(
    ("file", "change", "fault"),
    [
        ("preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor"}, "'CLIPImageProcessor'"),
        ("preprocessor_config.json", {"do_normalize": False}, "do_normalize false"),
        ("preprocessor_config.json", {"size": {"shortest_edge": 32}}, "size {'shortest_edge': 32}"),
        ("preprocessor_config.json", {"size": {"height": 48, "width": 48}}, "image_seq_length 4"),
        (
            "config.json",
            {"model_type": "internvl_chat", "auto_map": {}},
            "'internvl_chat' model.*model_type internvl.*use its '-HF' version",
        ),
    ],
)
def test_unknown_settings_are_refused(
    folder: Path, tmp_path: Path, file: str, change: dict[str, Any], fault: str
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    data = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps(data | change))
    with pytest.raises(CheckpointError, match=fault):
        load_checkpoint(copy)


def test_a_foreign_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    text = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(text.replace('"</img>"', '"</image>"'))
    with pytest.raises(CheckpointError, match="the tokenizer lacks </img>"):
        load_checkpoint(copy)


def test_untied_head_survives_a_config_that_does_not_say_so(tmp_path: Path) -> None:
    """InternVL3-1B's config.json leaves tie_word_embeddings out, whose default is true; its head is its own."""
    model = make_model("qwen2")
    folder = save_checkpoint(model, tmp_path / "tiny")
    config = json.loads((folder / "config.json").read_text())
    del config["tie_word_embeddings"], config["text_config"]["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    loaded = load_checkpoint(folder).model
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    assert not torch.equal(loaded.lm_head.weight, loaded.get_input_embeddings().weight)


def test_llama_tokenizers_begin_with_their_own_token(folder: Path) -> None:
    """InternVL2.5's Llama decoders were trained with <s> in front, which their tokenizers add and templates don't."""
    from tokenizers.processors import TemplateProcessing

    checkpoint = load_checkpoint(folder)
    tokenizer = checkpoint.tokenizer
    tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", pair="<|endoftext|> $A $B", special_tokens=[("<|endoftext|>", 0)]
    )
    prompts = checkpoint.family.default_settings(tokenizer)["prompts"]
    assert all(text.startswith("<|endoftext|>") for text in prompts.values())
    frozen = segments(prompts["generate"], tokenizer)
    assert list(frozen[0].ids or ()) == tokenizer.encode("<|im_start|>user\n").ids
