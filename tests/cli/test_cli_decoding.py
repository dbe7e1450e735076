"""edgegeo locate with the decoder's settings, on a bundle with a grammar."""

from pathlib import Path
from typing import Any

import pytest
from tiny_grammar import add_grammar

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_grammar(tiny_bundle, tmp_path_factory.mktemp("cli-grammar") / "tiny").path


@pytest.fixture
def words(bundle: Path, tmp_path: Path) -> tuple[Any, ...]:
    import numpy as np
    from PIL import Image

    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(photo)
    return ("locate", photo, "--bundle", bundle)


def test_candidates_are_drawn_by_their_seed(cli: Any, words: tuple[Any, ...]) -> None:
    def drawn(seed: int) -> Any:
        found = cli(*words, "--candidates", 6, "--temperature", 1.2, "--seed", seed, "--json").json
        assert found["source"] == "generation"
        assert found["evidence"]["rule"] == "median of 6 candidates"
        assert found["evidence"]["proposals"] == {"generation": found["position"]}
        return found["candidates"]

    assert len(drawn(1)) == 6
    assert drawn(1) == drawn(1) != drawn(2)
    assert all(one["position"] is not None and one["logprob"] < 0 for one in drawn(1))
    said = cli(*words, "--candidates", 6).out
    assert sum("log p" in line for line in said.splitlines()) == 1


def test_the_answer_is_shown_while_it_is_written(cli: Any, words: tuple[Any, ...]) -> None:
    for more in ((), ("--candidates", 3), ("--mode", "reason")):
        done = cli(*words, *more, "--stream", "--json")
        first = done.json["candidates"][0]["text"]
        assert first in done.err
        assert first.endswith("</answer>")


def test_beams_and_modes(cli: Any, words: tuple[Any, ...]) -> None:
    best, greedy = cli(*words, "--beams", 4, "--json").json, cli(*words, "--json").json
    assert best["candidates"][0]["logprob"] >= greedy["candidates"][0]["logprob"] - 1e-4
    assert len(cli(*words, "--beams", 4, "--candidates", 4, "--json").json["candidates"]) == 4
    free = cli(*words, "--no-grammar", "--json").json
    assert free["generated"] is None
    assert "<answer>" in cli(*words, "--mode", "reason", "--json").json["text"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--candidates", 3, "--temperature", 0), "same candidate every time"),
        (("--candidates", 33), "between 1 and 32"),
        (("--temperature", -1), "temperature"),
        (("--top-p", 0), "top_p"),
        (("--mode", "poem"), "unknown answer mode"),
        (("--mode", "caption"), "there is room for"),
        (("--mode", "reason", "--no-grammar"), "is a grammar"),
        (("--beams", 3, "--temperature", 0.5), "beams"),
    ],
)
def test_settings_that_exclude_each_other(cli: Any, words: tuple[Any, ...], more: tuple[Any, ...], said: str) -> None:
    assert said in cli(*words, *more).refused()
