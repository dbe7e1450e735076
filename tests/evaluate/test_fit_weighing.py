from pathlib import Path

import numpy as np
import pytest

from edgegeo.errors import InputError
from edgegeo.evaluate import planet_scenes
from edgegeo.evaluate.rerank import Looked, compare, look
from edgegeo.evaluate.retrieval import embed_scenes
from edgegeo.evaluate.weighing import (
    conditional_logit,
    fit_in_gallery,
    fit_pair_weight,
    fit_search,
    fit_text_share,
    fit_weighing,
)
from edgegeo.runtime import Embedder, Gallery, Model, Reranker, Row


def looked(told: float, count: int = 300, k: int = 10, seed: int = 0) -> Looked:
    """Lists whose right tile is drawn by cosine / 0.05 + told * log-odds, so that both are known."""
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.uniform(0.2, 0.5, (count, k)), axis=1)[:, ::-1]
    margins = rng.normal(0, 2, (count, k))
    noise = rng.gumbel(size=(count, k))
    right = (scores / 0.05 + told * margins + noise).argmax(axis=1)
    return Looked(scores, margins, np.arange(k) == right[:, None])


def test_the_weights_that_made_the_lists_are_found() -> None:
    made = looked(0.8, 3000)
    weighed = fit_weighing(made)
    assert weighed.weighing.temperature == pytest.approx(0.05, rel=0.1)
    assert weighed.weighing.weight == pytest.approx(0.8, rel=0.1)
    assert weighed.after > weighed.before + 0.1
    fresh = looked(0.8, 3000, seed=1)
    values = weighed.weighing.fused(fresh.scores, fresh.margins)
    assert fresh.first(values).mean() > fresh.first(fresh.scores).mean() + 0.1


@pytest.mark.parametrize("told", [0.0, -0.8])
def test_a_second_look_that_tells_nothing_or_the_contrary_weighs_nothing(told: float) -> None:
    off = [fit_weighing(looked(told, 100, seed=seed)) for seed in range(16)]
    idle = [one for one in off if one.weighing.weight == 0]
    assert len(idle) >= (16 if told < 0 else 12)  # without lists held out, half of the worthless ones would count
    for one in idle:
        assert one.after == one.before
        assert one.weighing.temperature == pytest.approx(0.05, rel=0.5) or told < 0


def test_lists_without_their_tile_say_when_to_be_sure() -> None:
    made = looked(1.0, 600)
    weighing = fit_weighing(made).weighing
    assert weighing.sure is not None
    features = {"cosine": np.array([0.5, 0.5]), "margin": np.array([4.0, -4.0]), "gap": np.array([8.0, 0.0])}
    sure, unsure = weighing.sure(features)
    assert sure > unsure


def test_too_few_lists_are_an_error() -> None:
    few = looked(0.5, 39)
    with pytest.raises(InputError, match="39 queries have their own tile"):
        fit_weighing(few)
    gone = looked(0.5, 100)
    with pytest.raises(InputError, match="0 queries"):
        fit_weighing(Looked(gone.scores, gone.margins, np.zeros_like(gone.right)))


def test_log_odds_that_are_all_alike_are_no_trouble() -> None:
    made = looked(0.0)
    weighed = fit_weighing(Looked(made.scores, np.zeros_like(made.margins), made.right))
    assert weighed.weighing.weight == 0
    assert np.isfinite(weighed.weighing.temperature)


def test_a_conditional_logit_of_lists_that_are_all_right_stays_finite() -> None:
    features = np.zeros((50, 4, 1))
    features[:, 0] = 1.0
    (weight,) = conditional_logit(features, np.zeros(50, np.int64))
    assert 0 < weight < 1e3


def test_comparisons_weigh_what_they_tell() -> None:
    rng = np.random.default_rng(0)
    ahead, odds = rng.normal(0, 2, 4000), rng.normal(0, 3, 4000)
    right = rng.random(4000) < 1 / (1 + np.exp(-(ahead + 0.4 * odds)))
    sign = np.where(right, 1.0, -1.0)  # the right one's lead and the right one's odds
    assert fit_pair_weight(sign * ahead, sign * odds) == pytest.approx(0.4, rel=0.15)
    assert fit_pair_weight(sign * ahead, -sign * odds) == 0.0
    assert fit_pair_weight(sign * ahead, np.zeros(4000)) == 0.0


def test_words_and_photos_share_by_what_they_tell() -> None:
    rng = np.random.default_rng(0)
    own = 0.3 * np.eye(80)
    clear, vague = rng.normal(0, 0.1, (80, 80)) + own, rng.normal(0, 0.1, (80, 80)) + 0.2 * own
    share = fit_text_share(vague, clear)
    assert 0 < share < 0.4
    assert fit_text_share(clear, vague) == pytest.approx(1 - share, abs=2e-3)
    assert fit_text_share(rng.normal(0, 0.1, (80, 80)) - own, clear) == 0.0


def test_a_search_is_fitted_on_the_planet(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgegeo.evaluate.weighing.LEAST_LISTS", 10)
    model, scenes = Model.open(tiny_bundle, threads=1), planet_scenes(24, "validation")
    found = fit_search(model, scenes, 22)
    assert set(found.weighed) == {"text", "photo"}
    assert all(10 <= one.lists <= 22 for one in found.weighed.values())
    assert 0 <= found.text_share <= 1
    # The same by hand, for the first place whose own tile was found.
    reranker, embeddings = Reranker(model), embed_scenes(Embedder(model), scenes)
    lists = look(reranker, embeddings, scenes, "photo", 5)
    weighing = found.weighed["photo"].weighing
    place = int(lists.right.any(axis=1).argmax())
    ahead, odds = compare(reranker, embeddings, scenes, "photo", lists, weighing)
    top = np.argsort(-(embeddings.tiles @ embeddings.photos[place]), kind="stable")[:5]
    np.testing.assert_allclose(
        lists.margins[place], reranker.margins(scenes[place].photo, [scenes[i].tile for i in top]), atol=1e-4
    )
    values = weighing.fused(lists.scores[place], lists.margins[place])
    rivals = [i for i in range(5) if top[i] != place]
    rival = max(rivals, key=lambda i: values[i])
    own = top.tolist().index(place)
    assert ahead[0] == pytest.approx(values[own] - values[rival], abs=1e-6)
    shown = model.features("vision", model.prepare([scenes[place].tile, scenes[top[rival]].tile]))
    assert odds[0] == pytest.approx(reranker.ask(scenes[place].photo).prefers(*shown), abs=1e-4)


def test_a_gallery_of_ones_own_is_fitted_on_its_own_photos(tiny_bundle: Path, tmp_path: Path) -> None:
    model, scenes = Model.open(tiny_bundle, threads=1), planet_scenes(46, "validation")
    rows = [Row(scene.id, scene.lat, scene.lon, scene.tile) for scene in scenes]
    gallery = Gallery.build(tmp_path / "tiles", rows, Embedder(model))
    truth = np.array([(scene.lat, scene.lon) for scene in scenes])
    tiles = [scene.tile for scene in scenes]  # of itself a tile is sure to be found
    found = fit_in_gallery(model, tiles, truth, gallery)
    assert found.weighed["photo"].before == 1.0
    assert fit_in_gallery(model, tiles, np.zeros((46, 2)), gallery).weighed == {}
