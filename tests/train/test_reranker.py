"""Re-ranking adapters: the margins learned are those that exports are verified against, and what is asked."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from invented import quick

from edgegeo.errors import TrainingError
from edgegeo.models.adapters import merge_adapter
from edgegeo.models.checkpoint import load_checkpoint
from edgegeo.models.reference import open_reference
from edgegeo.train.adapting import open_learner, settle
from edgegeo.train.parallel import World
from edgegeo.train.reranker import (
    Judge,
    NearMisses,
    asked_rows,
    mine,
    open_retriever,
    pair_loss,
    told_apart,
    train_reranker,
)
from edgegeo.train.settings import Lora, Memory, RerankerSettings
from edgegeo.train.sources import open_pairs

pytest.importorskip("peft")


def quiet(*told: Any) -> None:
    """No progress."""


def settings(out: Path, base_folder: Path, data: Any, **changes: Any) -> RerankerSettings:
    given = {"lora": Lora(rank=2, alpha=16, dropout=0.0, dora=False), "schedule": quick(), "wrong": 2, **changes}
    return RerankerSettings(out=out, checkpoint=base_folder, data=data, validation_places=4, **given)


def judged(base_folder: Path, data: Any) -> tuple[Judge, Any]:
    learner = open_learner(base_folder, quick(), Memory("fp32"), World())
    settle(learner, Memory("fp32"))
    learner.model.eval()
    return Judge(learner), open_pairs(data, learner.checkpoint.image, quiet)[0]


def test_margins_are_those_that_exports_are_verified_against(base_folder: Path, data: Any) -> None:
    """Texts of different lengths and photos, in one batch, against one pair at a time in plain transformers."""
    from PIL import Image

    from edgegeo.train.data import Drawing, planet_places

    judge, source = judged(base_folder, data)
    checkpoint = judge.learner[0].checkpoint
    asked = open_reference(load_checkpoint(base_folder))
    places = planet_places(Drawing(data.cache, "train", 8, checkpoint.image, data.planet_seed))
    index, wrong = np.array([0, 3, 5]), np.array([[1, 2], [4, 6], [7, 0]])
    tiles = [Image.fromarray(one) for one in places.pictures("tile", np.arange(8))]
    photos = [Image.fromarray(one) for one in places.pictures("photo", np.arange(8))]
    rows = [one for kind in (0, 1) for one in asked_rows(judge.learner[0].writer, source, index, wrong, kind)]
    with torch.no_grad():
        got = judge(rows).reshape(2, 3, 3).numpy()
    for i, (place, others) in enumerate(zip(index, wrong, strict=True)):
        for j, tile in enumerate([place, *others]):
            text = asked.yes_no_margin(places.words[place].captions[0], tiles[tile])
            photo = asked.yes_no_margin(photos[place], tiles[tile])
            assert got[:, i, j] == pytest.approx([text, photo], abs=2e-4)


def test_near_misses_are_the_likest_of_other_places(base_folder: Path, data: Any) -> None:
    judge, source = judged(base_folder, data)
    first_stage = open_retriever(judge.learner[0].checkpoint, None)
    near = mine(first_stage, source, 8, 3, 0, quiet)
    assert sorted(near.index.tolist()) == list(range(8))
    assert near.others.shape == (2, 8, 3)
    assert not (near.others == near.index[None, :, None]).any()
    assert mine(first_stage, source, 8, 99, 0, quiet).others.shape == (2, 8, 7)
    with torch.no_grad():
        rows = [first_stage.learner[0].writer.side(one.target) for one in source.pairs(np.arange(8), None)]
        tiles = first_stage.embed(rows).numpy()
        row = first_stage.learner[0].writer.side(source.pairs(near.index[:1], None)[0].queries[1])
        likeness = tiles @ first_stage.embed([row])[0].numpy()
    assert near.cosines[1, 0] == pytest.approx([likeness[near.index[0]], *likeness[near.others[1, 0]]], abs=1e-5)
    likeness[near.index[0]] = -2
    assert near.others[1, 0].tolist() == np.argsort(-likeness, kind="stable")[:3].tolist()


def test_the_loss_by_hand() -> None:
    """Right answers cost nothing; a query's three wrong candidates weigh as much as its right one."""
    none = torch.zeros(1, 4)
    assert float(pair_loss(torch.tensor([[30.0, -30.0, -30.0, -30.0]]), none, 0.0)) == pytest.approx(0, abs=1e-6)
    loss = float(pair_loss(torch.zeros(5, 4), torch.zeros(5, 4), 1.0))
    assert loss == pytest.approx(np.log(2) + np.log(4))
    one_wrong = torch.tensor([[9.0, 9.0, -9.0, -9.0]])
    assert float(pair_loss(one_wrong, none, 0.0)) == pytest.approx(9 / 6 + np.log(2), abs=1e-3)
    sure = torch.tensor([[20.0, 0.0, 0.0, 0.0]])  # the margins' distribution gives it one half
    assert float(pair_loss(one_wrong, sure, 3.0)) == pytest.approx(9 / 6 + np.log(2) + 3 * np.log(2), abs=1e-3)
    assert float(pair_loss(one_wrong, one_wrong, 3.0)) == pytest.approx(9 / 6 + np.log(2), abs=1e-3)


def test_told_apart_counts_ties_as_misses(base_folder: Path, data: Any) -> None:
    judge, source = judged(base_folder, data)
    others = np.array([[[0], [1]], [[2], [3]]])  # texts meet their own tile again
    cosines = np.array([[[0.5, 0.5]] * 2, [[9.0, 0.1], [0.1, 9.0]]], np.float32)
    scores = told_apart(judge, source, NearMisses(np.arange(2), others, cosines), 0.001)
    assert scores["text_searched"] == scores["text_told_apart"] == 0
    assert scores["photo_searched"] == scores["photo_told_apart"] == 0.5


def test_the_first_places_alone() -> None:
    near = NearMisses(np.arange(3), np.arange(12).reshape(2, 3, 2), np.ones((2, 3, 3), np.float32)).first(2)
    assert (len(near.index), near.others.shape, near.cosines.shape) == (2, (2, 2, 2), (2, 2, 3))
    assert near.others[1].tolist() == [[6, 7], [8, 9]]


def test_a_run_writes_a_peft_folder_that_changes_margins(base_folder: Path, data: Any, tmp_path: Path) -> None:
    report = train_reranker(settings(tmp_path / "out", base_folder, data, lr=0.01))
    assert set(report.validation) == {
        "text_searched",
        "text_judged",
        "text_told_apart",
        "text_right",
        "photo_searched",
        "photo_judged",
        "photo_told_apart",
        "photo_right",
        "validation_loss",
    }
    merged = merge_adapter(load_checkpoint(base_folder), tmp_path / "out")
    assert merged.moved > 1e-4
    assert report.trainable > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wrong": 0}, "wrong and near"),
        ({"temperature": 0.0}, "temperature above 0"),
        ({"lr": 0.0}, "lr and temperature above 0"),
        ({"lr": float("nan")}, "lr and temperature above 0"),
        ({"mine_places": 1}, "mine_places"),
        ({"distil": -1.0}, "distil must be at least 0"),
        ({"distil": float("nan")}, "distil must be at least 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    changes: dict[str, Any], message: str, base_folder: Path, data: Any, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=message):
        train_reranker(settings(tmp_path / "out", base_folder, data, **changes))


def test_a_first_stage_that_is_none_is_refused(base_folder: Path, data: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="no retrieval adapter"):
        train_reranker(settings(tmp_path / "out", base_folder, data, retriever=tmp_path / "empty"))


def test_texts_as_candidates_are_refused(base_folder: Path, data: Any) -> None:
    judge, _ = judged(base_folder, data)
    with pytest.raises(TrainingError, match="pictures as candidates"):
        judge.learner[0].writer.pair("a farm", "a village")
