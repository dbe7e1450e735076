"""benchmarks/decoding.py in small: every way writes the given answer, and every ratio comes out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_grammar import add_grammar

from edgegeo.runtime import Generator

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks"
PHOTO = Image.fromarray(np.random.default_rng(5).integers(0, 256, (40, 50, 3), dtype=np.uint8))
pytest.importorskip("torch")


@pytest.fixture
def bench(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A tiny model that writes the answer it would give itself."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from given_answers import Bench

    generator = Generator.open(add_grammar(tiny_bundle, tmp_path / "tiny").path, threads=1)
    (picture,) = generator.model.features(generator.role.vision, generator.model.prepare([PHOTO]))
    return Bench(generator, picture, generator.features([picture])[0].text)


def test_the_decoding_comparison_in_small(bench: Any, tmp_path: Path) -> None:
    import decoding

    rows = [*decoding.measure(bench, 2), *decoding.from_photo(bench, decoding.jpeg(PHOTO), 1)]
    assert len(rows) == 12
    assert all(one > 0 and other > 0 and ratio > 0 for _, one, other, ratio in rows)
    waited = {what: one for what, one, _, _ in rows}
    drafts = "plain greedy by grammar, forced tokens and drafts"
    assert waited[f"from the photo: {drafts}"] > waited[drafts], "the tower did not run"
    decoding.write(tmp_path, "small", {"threads": 1}, rows, {})
    assert len(json.loads((tmp_path / "decoding_small.json").read_text())["rows"]) == 12
    assert "| plain greedy by grammar and forced tokens |" in (tmp_path / "decoding_small.md").read_text()


def test_a_way_is_retraced_from_its_tokens(bench: Any) -> None:
    from given_answers import retrace

    assert retrace(bench.grammar, bench.path.tokens) == bench.path
    with pytest.raises((AssertionError, KeyError, IndexError)):
        retrace(bench.grammar, bench.path.tokens[::-1])
