"""Rows of training: what is asked of which token, how rows are padded, which rows may stand together."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_families import FAMILIES, tiny_checkpoint

from edgegeo.models.checkpoint import load_checkpoint
from edgegeo.runtime.pictures import prepare_picture
from edgegeo.train.sequences import WIDTH, Row, Writer, collate, distinct, spans


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("<answer>-12.3, 45.6</answer>", ["-12.3, 45.6"]),
        ('{"answer": {"coordinates": {"latitude": -12.3, "longitude": "45.6", "region": "x"}}}', ["-12.3", "45.6"]),
        ("a road at 12.3 by a lake", []),
    ],
)
def test_coordinates_are_found(answer: str, told: list[str]) -> None:
    assert [answer[start:end] for start, end in spans(answer)] == told


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_is_asked_after_the_prompt_the_bundle_will_ask(family: str, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint(family, tmp_path / family))
    writer = Writer(checkpoint)
    picture = prepare_picture(Image.new("RGB", (60, 40), "green"), checkpoint.image)
    question, row = writer.question(picture), writer.answer(picture, "a road <answer>12, -34</answer>", 3.0)
    start = len(question.ids)
    assert row.ids[:start] == question.ids
    assert set(row.weights[:start]) == {0.0}
    assert row.ids[-1] in checkpoint.stop_ids
    asked = [
        (writer.tokenizer.decode([i], skip_special_tokens=False), w) for i, w in zip(row.ids, row.weights, strict=True)
    ]
    heavy = "".join(word for word, weight in asked[start:] if weight == 3.0)
    assert "12" in heavy.replace(" ", "")
    assert "34" in heavy.replace(" ", "")
    assert "road" not in heavy
    assert all(weight >= 1.0 for _, weight in asked[start:])


def test_padding() -> None:
    batch = collate([Row((5, 6, 7), weights=(0.0, 1.0, 2.0)), Row((8,))], pad=9)
    assert batch.ids.shape == (2, WIDTH)
    assert batch.ids[0, :4].tolist() == [5, 6, 7, 9]
    assert batch.lengths.tolist() == [3, 1]
    assert batch.weights.sum() == 3.0


def test_two_views_of_a_place_never_share_a_batch() -> None:
    groups = np.array([0, 0, 1, 1, 2, 3])
    order = np.array([1, 0, 3, 2, 5, 4])
    assert distinct(order, groups, 3).tolist() == [1, 3, 5]
    assert distinct(order, groups, 9).tolist() == [1, 3, 5, 4]
