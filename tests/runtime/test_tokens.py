import time
from pathlib import Path

import numpy as np
import pytest

from edgegeo.bundle import Segment
from edgegeo.errors import BundleError, InputError
from edgegeo.runtime.tokens import Tokenizer, checked_ids, fill


@pytest.fixture(scope="module")
def tokenizer(tiny_bundle: Path) -> Tokenizer:
    return Tokenizer(tiny_bundle / "tokenizer.json")


def test_text_comes_back(tokenizer: Tokenizer) -> None:
    for text in ("a green field", "<answer>12.34, -56.78</answer>", "Zürich, 東京", "<image>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_typed_control_token_is_plain_letters(tokenizer: Tokenizer) -> None:
    image = 3  # the fourth special token of the tiny tokenizer
    assert tokenizer.decode([image]) == "<image>"
    assert image not in tokenizer.encode("a <image> b")


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "\u2003"])
def test_empty_text(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(InputError, match="empty"):
        checked_ids(tokenizer, text, 10)


def test_too_many_tokens_names_both_numbers(tokenizer: Tokenizer) -> None:
    text = "q w " * 20
    count = len(tokenizer.encode(text))
    with pytest.raises(InputError, match=rf"{count} tokens, this model reads up to 10"):
        checked_ids(tokenizer, text, 10)
    assert len(checked_ids(tokenizer, text, count)) == count


def test_a_huge_text_is_refused_without_tokenising(tokenizer: Tokenizer) -> None:
    text = "x y " * 250_000
    start = time.perf_counter()
    with pytest.raises(InputError, match="1,000,000 characters"):
        checked_ids(tokenizer, text, 300)
    assert time.perf_counter() - start < 0.05


def test_surrogates_and_other_types(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="Unicode"):
        checked_ids(tokenizer, "a\ud800b", 10)
    with pytest.raises(InputError, match="not int"):
        checked_ids(tokenizer, 5, 10)  # type: ignore[arg-type]


def test_a_broken_tokenizer_file(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match="not a tokenizer"):
        Tokenizer(tmp_path / "tokenizer.json")


def test_fill_joins_ids_and_keeps_pictures() -> None:
    prompt = (
        Segment(ids=(1, 2)),
        Segment(text=0),
        Segment(image=1),
        Segment(image=0),
        Segment(text=0),
        Segment(ids=(9,)),
    )
    pieces = fill(prompt, [[5, 6]])
    assert [p if isinstance(p, int) else p.tolist() for p in pieces] == [[1, 2, 5, 6], 1, 0, [5, 6, 9]]
    assert all(isinstance(p, int) or p.dtype == np.int64 for p in pieces)
    with pytest.raises(InputError, match="text 0"):
        fill(prompt)
