"""What a position sees: M-RoPE positions of pictures, picture blocks of Gemma 3, windows, rotary scalings."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tiny_decoders import HIDDEN, WINDOW, Runner, make_decoder, torch_hidden

from edgegeo.export.linear import Storage
from edgegeo.export.trunk import build_trunk

EXACT = 2e-5
dialects = pytest.mark.parametrize("dialect", ["ort", "trt", "trt-modern"])


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(4).normal(size=shape).astype(np.float32)


@cache
def decoder(kind: str) -> Any:
    return make_decoder(kind)


@cache
def trunk(kind: str, dialect: str) -> Runner:
    return Runner(build_trunk(decoder(kind), Storage(), dialect))


def gemma_masks(blocks: np.ndarray, mask: np.ndarray) -> dict[str, torch.Tensor]:
    """The masks that transformers itself makes for Gemma3ForConditionalGeneration."""
    from transformers.models.gemma3.modeling_gemma3 import create_masks_for_vision_model

    made: dict[str, torch.Tensor] = create_masks_for_vision_model(
        config=decoder("gemma3").config,
        inputs_embeds=torch.zeros(*blocks.shape, HIDDEN),
        attention_mask=torch.from_numpy(mask),
        past_key_values=None,
        position_ids=None,
        block_sequence_ids=torch.from_numpy(blocks) - 1,
    )
    return made


def picture_positions() -> np.ndarray:
    """(3, 1, 20): 5 words, a picture of 3 x 4 tokens, 3 words, as Qwen2.5-VL counts them."""
    words = np.tile(np.arange(5), (3, 1))
    rows, columns = np.divmod(np.arange(12), 4)
    picture = 5 + np.stack([np.zeros(12, np.int64), rows, columns])
    after = np.tile(picture.max() + 1 + np.arange(3), (3, 1))
    return np.concatenate([words, picture, after], axis=1)[:, None]


@dialects
def test_mrope_of_a_picture_in_the_middle(dialect: str) -> None:
    """A batch of a picture prompt and a right-padded text, whose positions differ in every row."""
    embeds = noise(2, 20, HIDDEN)
    ids = np.concatenate([picture_positions(), np.tile(np.arange(20), (3, 1, 1))], axis=1)
    mask = np.ones((2, 20), np.int64)
    mask[1, 14:] = 0
    expected = torch_hidden(decoder("qwen2_5_vl"), embeds, mask, position_ids=torch.from_numpy(ids))
    got, _ = trunk("qwen2_5_vl", dialect).run(embeds, mask, position_ids=ids)
    np.testing.assert_allclose(got[0], expected[0], atol=EXACT)
    np.testing.assert_allclose(got[1, :14], expected[1, :14], atol=EXACT)
    flat, _ = trunk("qwen2_5_vl", dialect).run(embeds, mask)
    assert np.abs(flat[0, -1] - got[0, -1]).max() > 1e-2


@dialects
def test_mrope_goes_on_after_a_picture(dialect: str) -> None:
    """Pieces cut inside the picture, then single tokens whose position is less than their slot."""
    embeds, ids = noise(1, 20, HIDDEN), picture_positions()
    expected = torch_hidden(decoder("qwen2_5_vl"), embeds, position_ids=torch.from_numpy(ids))
    runner, past, got, done = trunk("qwen2_5_vl", dialect), None, [], 0
    for count in (9, 8, 1, 1, 1):
        piece = slice(done, done + count)
        mask = np.ones((1, done + count), np.int64)
        hidden, past = runner.run(embeds[:, piece], mask, past=past, position_ids=ids[..., piece])
        got.append(hidden)
        done += count
    np.testing.assert_allclose(np.concatenate(got, axis=1), expected, atol=EXACT)


@dialects
def test_gemma_pictures_see_both_ways(dialect: str) -> None:
    """Two pictures in one row, one of them longer than the window; one in a padded row; none in the third."""
    lengths = (26, 15, 20)
    embeds = noise(3, 26, HIDDEN)
    mask = (np.arange(26) < np.array(lengths)[:, None]).astype(np.int64)
    blocks = np.zeros((3, 26), np.int64)
    blocks[0, 2:14] = 1
    blocks[0, 15:20] = 2
    blocks[1, 5:9] = 1
    expected = torch_hidden(decoder("gemma3"), embeds, gemma_masks(blocks, mask))
    got, _ = trunk("gemma3", dialect).run(embeds, mask, image_blocks=blocks)
    causal, _ = trunk("gemma3", dialect).run(embeds, mask)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(got[row, :length], expected[row, :length], atol=EXACT)
    assert np.abs(causal[0] - got[0]).max() > 1e-2
    np.testing.assert_allclose(causal[2, :20], got[2, :20], atol=EXACT)


@dialects
def test_gemma_goes_on_after_pictures(dialect: str) -> None:
    """A picture, then words, then a piece with a second picture, then single tokens: one pass over all."""
    embeds, blocks = noise(1, 32, HIDDEN), np.zeros((1, 32), np.int64)
    blocks[0, 3:13], blocks[0, 19:25] = 1, 2
    expected = torch_hidden(decoder("gemma3"), embeds, gemma_masks(blocks, np.ones((1, 32), np.int64)))
    runner, past, got, done = trunk("gemma3", dialect), None, [], 0
    for count in (15, 2, 9, 4, 1, 1):
        piece = slice(done, done + count)
        mask = np.ones((1, done + count), np.int64)
        hidden, past = runner.run(embeds[:, piece], mask, past=past, image_blocks=blocks[:, piece])
        got.append(hidden)
        done += count
    np.testing.assert_allclose(np.concatenate(got, axis=1), expected, atol=EXACT)


@dialects
def test_window_is_a_window(dialect: str) -> None:
    """A change further back than the windows of all layers reach leaves the last position alone."""
    model = make_decoder("gemma3", layer_types=["sliding_attention"] * 3)
    embeds = noise(1, 60, HIDDEN)
    mask, last = np.ones((1, 60), np.int64), np.array([[59]])
    runner = Runner(build_trunk(model, Storage(), dialect))
    before, _ = runner.run(embeds, mask, last)
    reach = 3 * (WINDOW - 1)
    embeds[:, : 59 - reach] = 1.0
    np.testing.assert_allclose(runner.run(embeds, mask, last)[0], before, atol=EXACT)
    embeds[:, 59 - reach] = 1.0
    assert np.abs(runner.run(embeds, mask, last)[0] - before).max() > 1e-4


@pytest.mark.parametrize("kind", ["gemma3", "qwen2"])
def test_windows_are_not_left_to_the_operator(kind: str) -> None:
    """local_window_size means 9 positions to onnxruntime 1.23 where it means 8 to 1.31."""
    changes: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}
    model = decoder("gemma3") if kind == "gemma3" else make_decoder("qwen2", **changes)
    nodes = [n for n in build_trunk(model, Storage()).model().graph.node if n.op_type == "GroupQueryAttention"]
    assert len(nodes) == 3
    assert all(a.name not in ("local_window_size", "causal") for n in nodes for a in n.attribute)


@dialects
def test_sliding_layers_of_qwen(dialect: str) -> None:
    model = make_decoder("qwen2", use_sliding_window=True, sliding_window=6, max_window_layers=1)
    assert model.config.layer_types == ["full_attention", "sliding_attention", "sliding_attention"]
    embeds = noise(2, 25, HIDDEN)
    mask = np.ones((2, 25), np.int64)
    mask[1, 19:] = 0
    expected, runner = torch_hidden(model, embeds, mask), Runner(build_trunk(model, Storage(), dialect))
    got, _ = runner.run(embeds, mask)
    np.testing.assert_allclose(got[0], expected[0], atol=EXACT)
    np.testing.assert_allclose(got[1, :19], expected[1, :19], atol=EXACT)
    past, pieces = None, []
    for start, end in ((0, 9), (9, 10), (10, 18), (18, 25)):
        hidden, past = runner.run(embeds[:1, start:end], np.ones((1, end), np.int64), past=past)
        pieces.append(hidden)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), expected[:1], atol=EXACT)


@dialects
@pytest.mark.parametrize("rope", [
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 32},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
], ids=lambda rope: rope["rope_type"])  # fmt: skip
def test_static_rotary_scalings(dialect: str, rope: dict[str, Any]) -> None:
    model = make_decoder("llama", rope_parameters=rope | {"rope_theta": 10000.0})
    embeds = noise(1, 90, HIDDEN)
    got, _ = Runner(build_trunk(model, Storage(), dialect)).run(embeds, np.ones((1, 90), np.int64))
    np.testing.assert_allclose(got, torch_hidden(model, embeds), atol=EXACT)
