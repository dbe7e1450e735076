"""Accuracy of a cell's own setting, measured once and kept."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sealing import seal

from edgegeo.bench.accuracy import Scorer
from edgegeo.bench.cells import Cell, Subject, expand
from edgegeo.bench.definition import Axes, Measuring, Sweep
from edgegeo.bench.front import FUSED, GPS, PHOTO, RERANKED, TEXT
from edgegeo.bundle import Bundle, open_bundle

PLACES = 3


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle with room for whole descriptions, as if trained for embeddings of 8 dimensions."""
    folder = tmp_path_factory.mktemp("accuracy") / "tiny"
    shutil.copytree(tiny_bundle, folder)
    manifest = json.loads((folder / "edgegeo.json").read_text())
    manifest["roles"]["embed"] |= {"max_text_tokens": 230, "matryoshka": [8]}
    seal(folder, manifest)
    return open_bundle(folder)


def cells(bundle: Bundle, folder: Path, **axes: Any) -> list[Cell]:
    sweep = Sweep(cells=Axes(batch=(1,), **axes), measure=Measuring(places=PLACES))
    return expand([Subject("fp32", bundle)], sweep, folder)


def test_settings_have_scores_of_their_own(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [plain, fused] = cells(bundle, tmp_path, jobs=("generate",), candidates=(1, 2))
    [reranked] = cells(bundle, tmp_path, jobs=("rerank",), rerank=(2,))
    [_, cut] = cells(bundle, tmp_path, jobs=("search",), dims=(0, 8))
    scorer = Scorer(tmp_path, PLACES)
    whole = scorer.card(plain, bundle)
    assert set(whole) == {TEXT, PHOTO, GPS}
    assert set(scorer.card(fused, bundle)) == {TEXT, PHOTO, GPS, FUSED}
    assert set(scorer.card(reranked, bundle)) == {TEXT, PHOTO, GPS, RERANKED}
    for score in whole.values():
        assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
        assert (score["places"], len(score["hits"])) == (PLACES, 2)
    shorter = scorer.card(cut, bundle)
    assert shorter[GPS] == whole[GPS]
    assert len(list((tmp_path / "accuracy").glob("*.json"))) == 4

    def measured(*words: Any, **more: Any) -> Any:
        raise AssertionError("measured again")

    for name in ("_evaluated", "_truncated", "_reranked", "_located"):
        monkeypatch.setattr(Scorer, name, measured)
    again = Scorer(tmp_path, PLACES)
    assert [again.card(cell, bundle) for cell in (plain, cut)] == [whole, shorter]
    with pytest.raises(AssertionError, match="measured again"):
        Scorer(tmp_path, PLACES + 1).card(plain, bundle)


def test_the_card_of_the_bundle_is_taken_where_it_fits(bundle: Bundle, tmp_path: Path) -> None:
    metrics = {name: {"value": 0.5, "low": 0.4, "high": 0.6} for name in (TEXT, GPS, "another")}
    known = {"places": PLACES, "split": "test", "metrics": metrics}
    scored = replace(bundle, manifest=replace(bundle.manifest, accuracy=known))
    [cell] = cells(scored, tmp_path, jobs=("generate",))
    card = Scorer(tmp_path, PLACES).card(cell, scored)
    assert card == {name: {**metrics[name], "places": PLACES} for name in (TEXT, GPS)}
    assert not (tmp_path / "accuracy").exists()
