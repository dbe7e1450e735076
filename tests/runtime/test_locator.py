import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgegeo.errors import GalleryError, InputError
from edgegeo.geo import Position
from edgegeo.runtime import Answer, Embedder, Gallery, Hit, Locator, Model, Row
from edgegeo.runtime.fusion import Prior


def tile(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Model:
    return Model.open(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def gallery(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("galleries") / "tiles"
    Gallery.build(path, [Row(f"tile-{i}", i, -i, tile(i)) for i in range(12)], Embedder(model))
    return path


def test_the_whole_way_for_a_photo(model: Model, gallery: Path) -> None:
    found = Locator.open(model, gallery).locate(photo=tile(7), k=5)
    assert found.hits[0].id == "tile-7"
    assert len(found.hits) == 5
    assert found.text is not None
    assert found.generated is None  # random weights write no position
    assert (found.source, found.position) == ("retrieval", Position(7.0, -7.0))
    assert {"load", "decode", "preprocess", "vision", "embed", "search", "generate", "total"} == set(found.timings_ms)
    assert sum(ms for name, ms in found.timings_ms.items() if name != "total") <= found.timings_ms["total"]


def test_rerank_reorders_the_first_hits_only(model: Model, gallery: Path) -> None:
    locator = Locator.open(model, gallery)
    plain = locator.locate(text="a green field", k=10)
    looked = locator.locate(text="a green field", k=10, rerank=4)
    assert sorted(h.id for h in looked.hits[:4]) == sorted(h.id for h in plain.hits[:4])
    assert [h.id for h in looked.hits[4:]] == [h.id for h in plain.hits[4:]]
    scores = [h.rerank_score for h in looked.hits]
    both = [h.score / 0.03 + 0.3 * math.log(p / (1 - p)) for h, p in zip(looked.hits, scores[:4], strict=False) if p]
    assert len(both) == 4
    assert both == sorted(both, reverse=True)
    assert scores[4:] == [None] * 6
    assert "generate" not in looked.timings_ms
    # More looked at than returned: the search goes deeper than k.
    assert len(locator.locate(photo=tile(3), k=2, rerank=12).hits) == 2
    assert locator.locate(photo=tile(3), k=99, rerank=99, generate=False).text is None


def test_a_photo_and_a_text_together(model: Model, gallery: Path) -> None:
    locator, embedder = Locator.open(model, gallery), Embedder(model)
    both = locator.locate(photo=tile(2), text="a green field", generate=False)
    mean = embedder.texts(["a green field"]) + embedder.images([tile(2)])
    mean /= np.linalg.norm(mean)
    assert locator.gallery is not None
    assert tuple(h.id for h in both.hits) == locator.gallery.search(mean, 10).ids[0]


def test_generation_alone(model: Model) -> None:
    found = Locator.open(model).locate(photo=tile(1))
    assert (found.position, found.source, found.hits) == (None, "none", ())
    assert found.to_geojson() == {"type": "FeatureCollection", "features": []}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "nothing to locate"),
        ({"text": "a field"}, "needs a gallery"),
        ({"photo": tile(0), "generate": False}, "needs a gallery"),
        ({"photo": tile(0), "rerank": 3}, "re-ranking needs a gallery"),
        ({"photo": tile(0), "k": 0}, "k must be"),
    ],
)
def test_unusable_questions(model: Model, arguments: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Locator.open(model).locate(**arguments)


def test_empty_and_huge_text(model: Model, gallery: Path) -> None:
    locator = Locator.open(model, gallery)
    for text in ("", "  ", "x" * 100_000):
        with pytest.raises(InputError):
            locator.locate(text=text)


def test_a_gallery_of_another_bundle(gallery: Path, other_tiny_bundle: Path) -> None:
    with pytest.raises(GalleryError, match="embeds differently"):
        Locator.open(other_tiny_bundle, gallery)


def test_an_unfitted_bundle_claims_no_radius(model: Model, gallery: Path) -> None:
    locator = Locator.open(model, gallery)
    found = locator.locate(photo=tile(7), k=3)
    assert (found.radius_km, found.confidence, found.radii_km, found.calibration) == (None, None, {}, None)
    assert found.evidence is not None
    assert found.evidence.decided == "retrieval"
    assert len(found.hits) == 3
    with pytest.raises(InputError, match="no confidence to compare"):
        locator.locate(photo=tile(7), min_confidence=0.5)
    with pytest.raises(InputError, match="between 0 and 1"):
        locator.locate(photo=tile(7), min_confidence=1.5)


def test_a_prior_alone_is_an_answer_by_its_own_claim(model: Model) -> None:
    prior = Prior(Position(10.0, 20.0), 100.0)
    found = Locator.open(model).locate(photo=tile(1), prior=prior)  # random weights write no position
    assert found.position is not None
    assert (found.position.lat, found.position.lon) == (pytest.approx(10), pytest.approx(20))
    assert (found.source, found.calibration, found.radius_km) == ("prior", "prior", pytest.approx(100.0))
    assert found.confidence == pytest.approx(1.0)


def test_a_prior_chooses_among_tiles(model: Model, gallery: Path) -> None:
    far = Locator.open(model, gallery).locate(photo=tile(7), prior=Prior(Position(3.0, -3.0), 10.0))
    assert far.source == "retrieval"
    assert far.position is not None
    assert (far.position.lat, far.position.lon) == (pytest.approx(3), pytest.approx(-3))


def test_json_and_geojson() -> None:
    hit = Hit("a", Position(1, 2), 0.5, 0.25)
    answer = Answer(
        Position(3, 4), "generation", 120.0, (hit,), "<answer>3, 4</answer>", Position(3, 4), {"total": 1.0}
    )
    plain = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
    assert plain["position"] == {"lat": 3, "lon": 4}
    assert plain["hits"] == [{"id": "a", "position": {"lat": 1, "lon": 2}, "score": 0.5, "rerank_score": 0.25}]
    first, second = json.loads(json.dumps(answer.to_geojson(), allow_nan=False))["features"]
    assert first["geometry"] == {"type": "Point", "coordinates": [4, 3]}
    assert first["properties"]["role"] == "answer"
    assert second["geometry"]["coordinates"] == [2, 1]
    assert second["properties"] == {"role": "hit", "rank": 1, "id": "a", "score": 0.5, "rerank_score": 0.25}
