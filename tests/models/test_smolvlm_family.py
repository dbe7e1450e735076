"""SmolVLM and Idefics3 with every token budget: prompts, pixels and hidden states as transformers makes them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgegeo.errors import CheckpointError
from edgegeo.models.checkpoint import load_checkpoint
from edgegeo.models.families.smolvlm import FAMILY, smolvlm_marks, tiles_a_side
from edgegeo.models.prompts import fill_ids, segments
from edgegeo.recipe import TokenBudget
from edgegeo.runtime.pictures import prepare_picture

TRUE = Path(__file__).resolve().parents[3] / "shared" / "data" / "smolvlm-500m"
BUDGETS = [
    TokenBudget(), TokenBudget(16), TokenBudget(48), TokenBudget(None, 4), TokenBudget(16, 9), TokenBudget(16, 1),
]  # fmt: skip
SHAPES = [(70, 45), (45, 70), (64, 64), (300, 20)]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that reads 8 px patches, so that 32 px are 4 tokens and 16 px are one."""
    from edgegeo.train.settings import Shape
    from edgegeo.train.skeleton import new_model, save_checkpoint, train_tokenizer

    out = tmp_path_factory.mktemp("models") / "tiny"
    shape = Shape(image_size=32, patch_size=8, hidden=32, vision_layers=1, text_layers=2, kv_heads=1, ffn=32, vocab=320)
    tokenizer = train_tokenizer(["a lake to the north", "yes", "no", "same place?", "where?"] * 4, shape.vocab)
    torch.manual_seed(0)
    model = new_model(shape, tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_checkpoint(out, model, tokenizer, shape, 2026)
    return out


def hugging_face(tokenizer_file: Path, tokens: int, spec: Any) -> Any:
    """Idefics3Processor, whose prompt is SmolVLMProcessor's: that one can't be made without a video processor."""
    from transformers import PreTrainedTokenizerFast
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
    from transformers.models.idefics3.processing_idefics3 import Idefics3Processor

    images = Idefics3ImageProcessorPil(
        size={"longest_edge": spec.longest_edge}, max_image_size={"longest_edge": spec.size},
        do_image_splitting=spec.max_tiles > 1,
    )  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file))
    return Idefics3Processor(images, tokenizer, image_seq_len=tokens)


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda b: b.label or "own")
def test_prompts_pixels_and_hidden_states_are_those_of_transformers(tiny: Path, budget: TokenBudget) -> None:
    """The whole way of a prompt with two pictures, through transformers' own processor and forward."""
    opened = load_checkpoint(tiny, budget)
    spec, model = opened.image, opened.model
    assert spec.size == (budget.image_size or 32)
    processor = hugging_face(tiny / "tokenizer.json", spec.tokens, spec)
    prompt = segments("{image}\nwhere? {image}a lake<end_of_utterance>", opened.tokenizer)
    token = opened.config.image_token_id
    for width, height in SHAPES:
        images = [picture(width, height), picture(50, 60, 1)]
        pictures = [prepare_picture(image, spec) for image in images]
        ids = fill_ids(prompt, token, [one.layout for one in pictures])
        made = processor(images=[images], text=["<image>\nwhere? <image>a lake<end_of_utterance>"], return_tensors="pt")
        assert ids == made["input_ids"][0].tolist()
        with torch.no_grad():
            states = FAMILY.hidden(model, torch.tensor([ids]), pictures)
            wanted = model.model(
                input_ids=made["input_ids"], pixel_values=made["pixel_values"],
                pixel_attention_mask=made["pixel_attention_mask"],
            ).last_hidden_state  # fmt: skip
        assert torch.isfinite(wanted).all()
        torch.testing.assert_close(states, wanted, rtol=1e-4, atol=1e-5)


def test_the_checkpoints_own_processor_is_asked_for_the_budget(tiny: Path) -> None:
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(tiny, backend="pil", local_files_only=True)
    for budget in BUDGETS:
        spec = load_checkpoint(tiny, budget).image
        wanted = FAMILY.processor_inputs(processor, picture(70, 45), spec)["pixel_values"]
        np.testing.assert_array_equal(
            prepare_picture(picture(70, 45), spec).inputs["pixel_values"], wanted, strict=True
        )


def true_config(size: int = 512) -> Any:
    vision = SimpleNamespace(image_size=size, patch_size=16)
    text = SimpleNamespace(max_position_embeddings=8192)
    return SimpleNamespace(vision_config=vision, scale_factor=4, get_text_config=lambda: text)


@pytest.mark.skipif(not TRUE.is_dir(), reason="../shared is absent")
@pytest.mark.parametrize("budget", [TokenBudget(), TokenBudget(None, 16), TokenBudget(256, 4), TokenBudget(128)])
def test_chat_prompts_of_the_true_smolvlm(budget: TokenBudget) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(TRUE / "tokenizer.json"))
    settings = json.loads((TRUE / "preprocessor_config.json").read_text())
    spec = FAMILY.image_spec(true_config(), settings, tokenizer, budget)
    processor = hugging_face(TRUE / "tokenizer.json", spec.tokens, spec)
    processor.chat_template = json.loads((TRUE / "chat_template.json").read_text())["chat_template"]
    if budget.max_tiles == 16:  # the processor's own default
        own = (settings["size"]["longest_edge"], settings["max_image_size"]["longest_edge"])
        assert (spec.longest_edge, spec.size) == own
    parts = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Same place? Yes or No."}]
    chat = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    template = chat.replace("<image>", "{image}")
    for width, height in ((500, 300), (120, 700), (64, 64)):
        images = [picture(width, height), picture(40, 30)]
        layouts = [prepare_picture(image, spec).layout for image in images]
        ids = fill_ids(segments(template, tokenizer), tokenizer.token_to_id("<image>"), layouts)
        assert ids == processor(images=[images], text=[chat])["input_ids"][0]


def test_both_processors_write_the_same_marks() -> None:
    from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
    from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

    words = {"fake_image_token": "F", "image_token": "I", "global_image_tag": "G", "image_seq_len": 3}
    for rows, columns in ((0, 0), (1, 2), (3, 2)):
        grid = {"rows": [[rows]], "cols": [[columns]]}
        theirs = Idefics3Processor.replace_image_token(SimpleNamespace(**words), grid, 0)
        assert theirs == get_image_prompt_string(rows, columns, 3, "F", "I", "G")


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (TokenBudget(40), r"40 px does not divide into squares of 16 px.*choose 32 or 48"),
        (TokenBudget(8), r"choose 16$"),
        (TokenBudget(max_tiles=2), r"1 \(never split\), 4, 9, 16 \.\.\., not 2"),
        (TokenBudget(max_pixels=10_000), "image_size and max_tiles, not max_pixels"),
        (TokenBudget(1024, 25), "4096 px a side at most"),
        (TokenBudget(max_tiles=64), "of the decoder's 512 positions"),
    ],
)
def test_budgets_that_cannot_be_kept(tiny: Path, budget: TokenBudget, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tiny, budget)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_resize": False}, "do_resize false"),
        ({"size": {"height": 32, "width": 32}}, "size {'height': 32"),
        ({"image_processor_type": "CLIPImageProcessor"}, "CLIPImageProcessor"),
        ({"max_image_size": {"longest_edge": 64}}, "makes 64-pixel pictures, config.json expects 32"),
    ],
)
def test_processor_settings_that_are_not_reproduced(tiny: Path, change: dict[str, Any], message: str) -> None:
    opened = load_checkpoint(tiny)
    settings = json.loads((tiny / "preprocessor_config.json").read_text()) | change
    with pytest.raises(CheckpointError, match=message):
        FAMILY.image_spec(opened.config, settings, opened.tokenizer)


def test_a_tokenizer_with_too_few_places(tiny: Path) -> None:
    tokenizer = load_checkpoint(tiny).tokenizer
    tokenizer.add_special_tokens([f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)])
    assert len(smolvlm_marks(tokenizer, 2)["row_1_col_2"]) == 2
    with pytest.raises(CheckpointError, match="<row_3_col_3>"):
        smolvlm_marks(tokenizer, 3)


def test_a_tokenizer_that_reaches_across_its_control_tokens(tiny: Path) -> None:
    """Where a control token swallows the newlines beside it, the marks would not be those of the whole string."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "?": 1}, "?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<fake_token_around_image>", AddedToken("<image>", rstrip=True)])
    marks = smolvlm_marks(tokenizer, 2)
    assert marks["whole"]
    tokenizer.pre_tokenizer = pre_tokenizers.Split("nothing", "removed")
    with pytest.raises(CheckpointError, match="joins the marks"):
        smolvlm_marks(tokenizer, 2)


def test_tiles_a_side() -> None:
    assert [tiles_a_side(count, 64) for count in (None, 1, 4, 16)] == [1, 1, 2, 4]
    with pytest.raises(CheckpointError, match="even size"):
        tiles_a_side(4, 63)
