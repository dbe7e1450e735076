"""Losses against computations by hand."""

import math

import pytest
import torch

from edgegeo.train.losses import answer_loss, info_nce, last_positions, unit

TURN = math.radians(30)
QUERIES = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
KEYS = torch.tensor([[1.0, 0.0], [math.cos(TURN), math.sin(TURN)]])


def _by_hand(rows: list[list[float]]) -> float:
    return -sum(row[i] - math.log(sum(map(math.exp, row))) for i, row in enumerate(rows)) / len(rows)


def test_info_nce_one_direction_equals_the_hand_computation() -> None:
    rows = [[2.0 * float(q @ k) for k in KEYS] for q in QUERIES]
    assert float(info_nce(QUERIES, KEYS, 2.0, symmetric=False)) == pytest.approx(_by_hand(rows), abs=1e-6)


def test_info_nce_symmetric_is_the_mean_of_both_directions() -> None:
    rows = [[2.0 * float(q @ k) for k in KEYS] for q in QUERIES]
    columns = [list(column) for column in zip(*rows, strict=True)]
    expected = (_by_hand(rows) + _by_hand(columns)) / 2
    assert float(info_nce(QUERIES, KEYS, 2.0)) == pytest.approx(expected, abs=1e-6)
    assert _by_hand(rows) != pytest.approx(_by_hand(columns), abs=1e-3)


def test_eos_pooling_takes_the_last_real_position_and_ignores_padding() -> None:
    hidden = torch.arange(24.0).view(2, 4, 3)
    pooled = last_positions(hidden, torch.tensor([2, 4]))
    assert torch.equal(pooled, torch.stack([hidden[0, 1], hidden[1, 3]]))
    hidden[0, 2:] = 1e9
    assert torch.equal(last_positions(hidden, torch.tensor([2, 4])), pooled)


def test_unit_rows_are_float32_of_length_one() -> None:
    rows = unit(torch.randn(3, 5).bfloat16())
    assert rows.dtype is torch.float32
    assert torch.allclose(rows.norm(dim=-1), torch.ones(3), atol=1e-6)


def test_answer_loss_counts_only_what_is_asked() -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(2, 5, 4), torch.randn(7, 4)
    labels = torch.full((2, 5), -100)
    labels[0, 3], labels[1, 4] = 2, 6
    logits = torch.stack([hidden[0, 2] @ head.T, hidden[1, 3] @ head.T])
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([2, 6]))
    assert torch.allclose(answer_loss(hidden, labels, head), expected)
    assert torch.allclose(answer_loss(hidden, labels, head, start=3), expected)
    hidden[:, 4] = 1e6
    assert torch.allclose(answer_loss(hidden, labels, head), expected)
