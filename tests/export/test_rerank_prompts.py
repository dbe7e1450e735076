"""Re-rank prompts through the export: turned round, of two candidates, and several at once in the trt dialect."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgegeo.bundle import Segment
from edgegeo.errors import CheckpointError
from edgegeo.export import export
from edgegeo.models.checkpoint import load_checkpoint
from edgegeo.models.prompts import segments, turned
from edgegeo.recipe import preset
from edgegeo.runtime import Reranker
from edgegeo.runtime.growing import GrowingCache

PAIR = "<bos>{image|text} one {image} two {image} which?"


def tile(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def asked(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint, asked which of two candidates fits."""
    folder = Path(shutil.copytree(checkpoint, tmp_path_factory.mktemp("pairs") / "asked"))
    settings = json.loads((folder / "edgegeo_model.json").read_text())
    settings["prompts"]["rerank_pair"] = PAIR
    (folder / "edgegeo_model.json").write_text(json.dumps(settings))
    return folder


def test_query_and_candidate_change_places_and_keep_their_numbers(asked: Path) -> None:
    tokenizer = load_checkpoint(asked).tokenizer
    usual = segments("<bos>{image|text} beside {image} yes no", tokenizer, "image")
    round_about = turned("<bos>{image|text} beside {image} yes no", tokenizer, "image")
    assert [one.image for one in usual] == [None, 0, None, 1, None]
    assert [one.image for one in round_about] == [None, 1, None, 0, None]
    assert [one.ids for one in usual] == [one.ids for one in round_about]
    said = turned("<bos>{image|text} beside {image} yes no", tokenizer, "text")
    assert (said[1], said[3]) == (Segment(image=0), Segment(text=0))


@pytest.mark.slow
def test_both_dialects_ask_alike(asked: Path, tmp_path: Path) -> None:
    shown = [tile(i) for i in range(11)]
    found = {}
    for dialect, recipe in (("ort", preset("fp32")), ("trt", preset("fp32", "tensorrt"))):
        reranker = Reranker.open(export(asked, recipe, tmp_path / dialect, places=0).out, threads=1)
        model, role = reranker.model, reranker.role
        assert model.bundle.manifest.dialect == dialect
        assert isinstance(model.trunk(role.trunk).cache(1, 8), GrowingCache) == (dialect == "trt")
        assert role.pair is not None
        one, other, *_ = model.features(role.vision, model.prepare(shown))
        for query in ("a green field", shown[0]):
            got = found.setdefault(dialect, [])
            got += [reranker.margins(query, shown), reranker.margins(query, shown[:3], both_orders=True)]
            got.append(np.array([reranker.ask(query).prefers(one, other)]))
    for ort, trt in zip(found["ort"], found["trt"], strict=True):
        np.testing.assert_allclose(trt, ort, atol=5e-3)
    assert np.ptp(found["ort"][0]) > 0.05


def test_words_that_are_one_token_can_not_tell_first_from_second(asked: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(asked, tmp_path / "same"))
    settings = json.loads((folder / "edgegeo_model.json").read_text())
    (folder / "edgegeo_model.json").write_text(json.dumps(settings | {"first": ["A"], "second": ["A", "B"]}))
    with pytest.raises(CheckpointError, match="the first and for the second"):
        export(folder, preset("fp32"), tmp_path / "out", places=0)
