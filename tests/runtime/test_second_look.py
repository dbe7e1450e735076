"""Re-ranking inside locate: both orders, pairs, early stop, kept tiles, several photos, words and photos together."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgegeo.bundle import open_bundle
from edgegeo.errors import BundleError, InputError
from edgegeo.runtime import Embedder, Gallery, Hit, Locator, Model, Reranker, Reranking, Row
from edgegeo.runtime.doubt import Fit
from edgegeo.runtime.fusion import Fusing, Linear
from edgegeo.runtime.question import AVOID, Question, query_vector
from edgegeo.runtime.second_look import SecondLook
from edgegeo.runtime.tile_features import TileFeatures
from edgegeo.runtime.tokens import fill
from edgegeo.runtime.tournament import one_pass
from edgegeo.runtime.weighing import Weighing

TEXT = "a green field"


def tile(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8))


def jpeg(seed: int) -> bytes:
    stream = BytesIO()
    tile(seed).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Model:
    return Model.open(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def gallery(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    path = tmp_path_factory.mktemp("galleries") / "tiles"
    return Gallery.build(path, [Row(f"tile-{i}", i, -i, tile(i)) for i in range(12)], Embedder(model))


def fitted(**weighings: Weighing) -> Fit:
    return Fit(1, Fusing(), Fusing(), {}, {}, None, (), {}, weighings)


def of(prompt: tuple, model: Model, texts: list[str], pictures: list, words: tuple) -> float:
    """The answer to a whole prompt, computed at once."""
    pieces = fill(prompt, [model.tokenizer.encode(text) for text in texts])
    fed = model.assemble([pieces], [[one] for one in pictures])
    hidden = model.trunk("trunk").hidden(fed, fed.lengths[:, None] - 1)
    logits = model.session("head").run(None, {"hidden_states": hidden})[0][0, 0].astype(np.float64)
    first, second = (np.exp(logits[list(ids)]).sum() for ids in words)
    return float(np.log(first) - np.log(second))


def test_both_orders_are_the_mean_of_both_whole_prompts(model: Model) -> None:
    reranker = Reranker(model)
    role, words = reranker.role, (reranker.role.yes_ids, reranker.role.no_ids)
    photo, *tiles = model.features("vision", model.prepare([tile(i) for i in range(4)]))
    for query, texts, before in ((TEXT, [TEXT], []), (photo, [], [photo])):
        got = reranker.ask(query, both_orders=True).margins(tiles)
        usual = role.text_prompt if texts else role.image_prompt
        turned = role.text_prompt_turned if texts else role.image_prompt_turned
        for row, one in enumerate(tiles):
            shown = [*before, one]
            wanted = np.mean([of(prompt, model, texts, shown, words) for prompt in (usual, turned)])
            assert got[row] == pytest.approx(wanted, abs=2e-3)
        assert np.abs(got - reranker.ask(query).margins(tiles)).max() > 1e-2


def test_which_of_two_is_asked_in_both_places(model: Model) -> None:
    reranker, (photo, one, other) = (
        Reranker(model),
        model.features("vision", model.prepare([tile(i) for i in range(3)])),
    )
    pair = reranker.role.pair
    assert pair is not None
    words = (pair.first_ids, pair.second_ids)
    for query, prompt, texts, before in (
        (TEXT, pair.text_prompt, [TEXT], []),
        (photo, pair.image_prompt, [], [photo]),
    ):
        here = of(prompt, model, texts, [*before, one, other], words)
        there = of(prompt, model, texts, [*before, other, one], words)
        asked = reranker.ask(query)
        assert asked.prefers(one, other) == pytest.approx((here - there) / 2, abs=2e-3)
        assert asked.prefers(one, other) == pytest.approx(-asked.prefers(other, one), abs=1e-5)


def test_what_an_older_bundle_lacks_is_named(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    role = bundle.manifest.roles.rerank
    assert role is not None
    roles = replace(bundle.manifest.roles, rerank=replace(role, image_prompt_turned=(), pair=None))
    old = Reranker(Model(replace(bundle, manifest=replace(bundle.manifest, roles=roles))))
    with pytest.raises(BundleError, match="candidate first; export the bundle again"):
        old.ask(TEXT, both_orders=True)
    with pytest.raises(BundleError, match="rerank_pair"):
        SecondLook(old, [], TEXT, None, Reranking(4, pairwise=2))


def test_the_query_is_read_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    trunk = model.trunk("trunk")
    cache = trunk.cache

    def counted(batch: int, capacity: int) -> object:
        made = cache(batch, capacity)
        extend = made.extend
        monkeypatch.setattr(made, "extend", lambda fed, at: (runs.append(fed.embeds.shape[1]), extend(fed, at))[1])
        return made

    monkeypatch.setattr(trunk, "cache", counted)
    reranker = Reranker(model)
    tiles = model.features("vision", model.prepare([tile(i) for i in range(5)]))
    asked = reranker.ask("a green field beside a river, houses with red roofs")
    asked.margins(tiles[:2])
    asked.margins(tiles[2:])
    prefix, *suffixes = runs
    assert len(suffixes) == 5
    assert prefix > 10 > len(set(suffixes)) == 1


def test_an_early_stop_returns_what_a_whole_run_does(model: Model, gallery: Gallery) -> None:
    locator = Locator(model, gallery)
    for weight in (0.02, 0.3):
        locator.fit = fitted(text=Weighing(0.03, weight, -2.0, 2.0), photo=Weighing(0.03, weight, -2.0, 2.0))
        for question in ({"text": TEXT}, {"photo": tile(5), "generate": False}):
            whole = locator.locate(k=3, rerank=Reranking(12, whole=True), **question)
            early = locator.locate(k=3, rerank=12, **question)
            assert [hit.id for hit in early.hits] == [hit.id for hit in whole.hits]


def test_a_fit_that_trusts_nothing_leaves_the_search_alone(model: Model, gallery: Gallery) -> None:
    locator = Locator(model, gallery)
    plain = locator.locate(text=TEXT)
    locator.fit = fitted(text=Weighing(0.03, 0.0))
    looked = locator.locate(text=TEXT, rerank=12)
    assert looked.hits == plain.hits
    (first, *_), look = plain.hits, SecondLook(Reranker(model), [], TEXT, locator.fit, Reranking(12))
    assert look.reorder([first], gallery, TileFeatures(model, "vision"), 1).looked is False


def test_the_fit_says_when_the_first_tile_is_sure(model: Model, gallery: Gallery) -> None:
    locator = Locator(model, gallery)
    for bias, source in ((100.0, "retrieval"), (-100.0, "none")):
        sure = Linear(("cosine",), (0.0,), bias)
        look = SecondLook(Reranker(model), [], TEXT, fitted(text=Weighing(sure=sure)), Reranking(4))
        hits = [Hit(gallery.id(i), gallery.position(i), 0.5, None) for i in range(4)]
        kept = TileFeatures(model, "vision")
        assert look.reorder(hits, gallery, kept, 4).sure is (source == "retrieval")
    assert locator.kept is not None


def test_pairs_choose_the_first_of_the_best(model: Model, gallery: Gallery) -> None:
    locator, reranker = Locator(model, gallery), Reranker(model)
    locator.fit = fitted(text=Weighing(0.03, 0.3, -8, 8, pair_weight=50.0))
    before = locator.locate(text=TEXT, rerank=6)
    after = locator.locate(text=TEXT, rerank=Reranking(6, pairwise=4))
    assert [hit.id for hit in after.hits[4:]] == [hit.id for hit in before.hits[4:]]

    def tokens(id: str) -> object:
        row = gallery.row(id)
        assert row is not None
        return model.features("vision", model.prepare([gallery.thumbnail(row)]))[0]

    asked, best = reranker.ask(TEXT), before.hits[3].id
    for hit in before.hits[2::-1]:  # the last of the four against each one ahead of it
        best = best if asked.prefers(tokens(best), tokens(hit.id)) > 0 else hit.id  # type: ignore[arg-type]
    assert after.hits[0].id == best


def test_one_pass_takes_one_comparison_less_than_there_are() -> None:
    asked: list[tuple[int, int]] = []

    def prefers(one: int, other: int) -> float:
        asked.append((one, other))
        return 1.0 if one == 3 else -1.0

    assert one_pass([5, 1, 3, 2], [0.0] * 6, prefers, 1.0) == [3, 5, 1, 2]
    assert asked == [(2, 3), (3, 1), (3, 5)]
    assert one_pass([5, 1, 3, 2], [0, 0, 0, 0, 0, 9], prefers, 1.0) == [5, 3, 1, 2]
    assert one_pass([], [], prefers, 1.0) == []


@pytest.mark.parametrize(
    "settings", [{"count": -1}, {"pairwise": 1}, {"count": 3, "pairwise": 4}, {"count": 0, "both_orders": True}]
)
def test_impossible_rerankings(settings: dict) -> None:
    with pytest.raises(InputError, match="re-rank"):
        Reranking(**settings)


def test_tiles_are_kept_up_to_a_size(model: Model) -> None:
    size = model.features("vision", model.prepare([tile(0)]))[0].rows.nbytes
    kept = TileFeatures(model, "vision", 2 * size)
    a, b, c = jpeg(0), jpeg(1), jpeg(2)
    first = kept.of([a, b, a])
    np.testing.assert_array_equal(first[0].rows, first[2].rows)
    assert (len(kept), kept.bytes, kept.hits) == (2, 2 * size, 0)
    np.testing.assert_array_equal(kept.of([a])[0].rows, first[0].rows)
    kept.of([c])  # b is the one that was not used since
    kept.of([a, c])
    assert (len(kept), kept.hits) == (2, 3)
    kept.of([b])
    assert kept.hits == 3
    none = TileFeatures(model, "vision", 0)
    none.of([a])
    assert (len(none), none.bytes) == (0, 0)


def test_the_tower_runs_once_for_a_tile_that_comes_again(model: Model, gallery: Gallery) -> None:
    locator = Locator(model, gallery)
    first = locator.locate(text=TEXT, rerank=Reranking(6, whole=True))
    assert locator.kept is not None
    assert (len(locator.kept), locator.kept.hits) == (6, 0)
    again = locator.locate(text=TEXT, rerank=Reranking(6, whole=True))
    assert again.hits == first.hits
    assert locator.kept.hits == 6


def test_several_photos_of_one_place(model: Model, gallery: Gallery) -> None:
    locator, embedder = Locator(model, gallery), Embedder(model)
    found = locator.locate(photo=tile(2), also=[tile(3)], generate=False, k=12)
    mean = embedder.images([tile(2)]) + embedder.images([tile(3)])
    wanted = gallery.search(mean / np.linalg.norm(mean), 12)
    assert tuple(hit.id for hit in found.hits) == wanted.ids[0]
    assert {hit.id for hit in found.hits[:2]} == {"tile-2", "tile-3"}
    looked = locator.locate(photo=tile(2), also=[tile(3)], generate=False, rerank=4, k=4)
    margins = {}
    for hit in looked.hits:
        row = gallery.row(hit.id)
        assert row is not None
        shown = [gallery.thumbnail(row)]
        margins[hit.id] = np.mean([Reranker(model).margins(tile(i), shown)[0] for i in (2, 3)])
        assert hit.rerank_score == pytest.approx(1 / (1 + np.exp(-margins[hit.id])), abs=1e-5)
    drawn = locator.locate(photo=tile(2), also=[tile(3)])
    assert len(drawn.candidates) == 2
    assert len(Locator(model).locate(also=[tile(2), tile(3)], candidates=3).candidates) == 6


def test_words_and_a_photo_add_their_evidence(model: Model, gallery: Gallery) -> None:
    locator, reranker = Locator(model, gallery), Reranker(model)
    one, other = Weighing(0.03, 0.2, -1.0, 1.0), Weighing(0.5, 0.7, -2.0, 2.0)
    locator.fit = replace(fitted(photo=one, text=other), text_share=0.25)
    found = locator.locate(photo=tile(4), text=TEXT, rerank=Reranking(5, whole=True), k=5, generate=False)
    embedder = Embedder(model)
    query = 0.75 * embedder.images([tile(4)]) + 0.25 * embedder.texts([TEXT])
    hits = gallery.search(query / np.linalg.norm(query), 5)
    shown = [gallery.thumbnail(int(row)) for row in hits.rows[0]]
    photo, text = reranker.margins(tile(4), shown), reranker.margins(TEXT, shown)
    values = hits.scores[0] / 0.03 + 0.2 * np.clip(photo, -1, 1) + 0.7 * np.clip(text, -2, 2)
    assert [hit.id for hit in found.hits] == [hits.ids[0][i] for i in np.argsort(-values, kind="stable")]


def test_what_a_place_is_not(model: Model, gallery: Gallery) -> None:
    embedder, locator = Embedder(model), Locator(model, gallery)
    sought, avoided = embedder.texts([TEXT]), embedder.texts(["red roofs", "a river"])
    wanted = sought - AVOID * avoided.sum(axis=0)
    np.testing.assert_allclose(query_vector(embedder, [], TEXT, ["red roofs", "a river"]), wanted, atol=1e-6)
    found = locator.locate(text=TEXT, avoid=["red roofs", "a river"])
    assert tuple(hit.id for hit in found.hits) == gallery.search(wanted, 10).ids[0]
    assert found.hits != locator.locate(text=TEXT).hits
    for question, words in (
        ({"avoid": ["the sea"]}, "nothing to locate.*besides what it is not"),
        ({"text": TEXT, "avoid": [" "]}, "empty"),
    ):
        with pytest.raises(InputError, match=words):
            locator.locate(**question)
    with pytest.raises(InputError, match="needs a gallery"):
        Locator(model).locate(photo=tile(1), avoid=["the sea"])
    assert Question((), TEXT).avoid == ()
