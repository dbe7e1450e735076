"""M-RoPE positions against transformers' `get_rope_index`."""

import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel

from edgegeo.runtime.rope import rope_positions

PROMPTS = [
    [7],
    [4, (3, 5), 6],
    [4, (1, 9), 2, (8, 2), 11],
    [1, (6, 6), 1, (1, 1), 1, (2, 40), 3],
    [4, (5, 3)],
]


@pytest.fixture(scope="module")
def model():
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    text = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1}  # fmt: skip
    return Qwen2_5_VLModel(Qwen2_5_VLConfig(vision_config=vision, text_config=text))


def _as_transformers(pieces):
    kinds = [[int(isinstance(p, tuple))] * (p[0] * p[1] if isinstance(p, tuple) else p) for p in pieces]
    grids = [[1, p[0] * 2, p[1] * 2] for p in pieces if isinstance(p, tuple)]
    return [kind for group in kinds for kind in group], grids


def test_right_padded_batch_equals_transformers(model):
    rows = [_as_transformers(pieces) for pieces in PROMPTS]
    width = max(len(kinds) for kinds, _ in rows)
    kinds, mask = np.zeros((2, len(rows), width), np.int64)
    for i, (row, _) in enumerate(rows):
        kinds[i, : len(row)], mask[i, : len(row)] = row, 1
    expected, deltas = model.get_rope_index(
        torch.zeros(kinds.shape, dtype=torch.long),
        torch.from_numpy(kinds),
        torch.tensor([grid for _, grids in rows for grid in grids]),
        attention_mask=torch.from_numpy(mask),
    )
    for i, pieces in enumerate(PROMPTS):
        ours, following = rope_positions(pieces)
        length = len(rows[i][0])
        assert ours.shape == (3, length)
        assert ours.dtype == np.int64
        assert np.array_equal(ours, expected[:, i, :length])
        assert following == length + int(deltas[i])


def test_continuation_equals_the_whole():
    whole, end = rope_positions([4, (3, 5), 6, (2, 2), 5])
    head, middle = rope_positions([4, (3, 5)])
    tail, last = rope_positions([6, (2, 2), 5], middle)
    assert np.array_equal(np.concatenate([head, tail], axis=1), whole)
    assert last == end


def test_nothing_has_no_positions():
    positions, following = rope_positions([], 9)
    assert positions.shape == (3, 0)
    assert following == 9
