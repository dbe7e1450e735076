"""Token ids and labels of training texts."""

from typing import Any

import numpy as np
import pytest
import torch
from invented import WORDS

from edgegeo.runtime.answer import parse_answer
from edgegeo.train.settings import Shape
from edgegeo.train.skeleton import image_spec, train_tokenizer
from edgegeo.train.talk import NOT_ASKED, Talk, corpus, gps_answer


@pytest.fixture(scope="module")
def talk() -> Talk:
    tokenizer = train_tokenizer(corpus(WORDS), 512)
    return Talk(tokenizer, image_spec(Shape(image_size=32, patch_size=8, shuffle=2), tokenizer))


def test_every_digit_is_one_token(talk: Talk) -> None:
    for number in ("7", "2026", "103.4", "-12.3"):
        pieces = [talk.tokenizer.decode([i]) for i in talk.ids(number)]
        assert [p for p in pieces if any(c.isdigit() for c in p)] == [c for c in number if c.isdigit()]


def test_answer_tags_are_single_tokens_that_decoding_keeps(talk: Talk) -> None:
    ids = talk.ids(gps_answer(-1.23, 103.44))
    assert talk.tokenizer.decode(ids, skip_special_tokens=True) == "<answer>-01.2, +103.4</answer>"
    assert len(talk.ids("<answer>")) == 1


@pytest.mark.parametrize("lat", [-89.96, -0.04, 0.0, 12.34, 90.0])
@pytest.mark.parametrize("lon", [-180.0, -3.21, 0.0, 179.96])
def test_position_answers_parse_and_keep_their_width(talk: Talk, lat: float, lon: float) -> None:
    answer = gps_answer(lat, lon)
    position = parse_answer(answer)
    assert position is not None
    assert abs(position.lat - lat) <= 0.051
    assert abs(position.lon - lon) <= 0.051
    assert len(answer) == len(gps_answer(0.0, 0.0))


def test_only_answers_are_asked(talk: Talk) -> None:
    rng = np.random.default_rng(0)
    rows = talk.talks(WORDS, "tile", rng, 64)
    for ids, labels in zip(rows.ids, rows.labels, strict=True):
        asked = labels != NOT_ASKED
        assert torch.equal(ids[asked], labels[asked])
        assert not asked[: len(talk.image)].any()
    positions = talk.positions(WORDS, 48)
    text = talk.tokenizer.decode(positions.labels[0][positions.labels[0] != NOT_ASKED].tolist())
    assert text == gps_answer(WORDS[0].lat, WORDS[0].lon)


def test_pairs_ask_for_one_word(talk: Talk) -> None:
    rng = np.random.default_rng(0)
    for query in ("text", "image"):
        rows = talk.pairs(query, WORDS, np.array([True, False]), rng, 88)
        asked = [labels[labels != NOT_ASKED].tolist() for labels in rows.labels]
        assert asked == [talk.ids("yes"), talk.ids("no")]


def test_photo_questions_leave_out_what_a_photo_cannot_show(talk: Talk) -> None:
    rng = np.random.default_rng(0)
    turns: list[Any] = talk.conversation(WORDS[0], "photo", rng, 500)
    asked = "".join(talk.tokenizer.decode(ids) for ids, answer in turns if not answer)
    assert "biome?" in asked
    assert "side" not in asked
