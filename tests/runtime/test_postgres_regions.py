"""A search of a database held to a region: the same tiles as by comparing every place, near poles and antimeridian."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gallery_tiles import tile

from edgegeo.runtime import Embedder, Gallery, Row
from edgegeo.runtime.gallery.exact import exact_search
from edgegeo.runtime.gallery.region import Box, Circle, Polygons, Region
from edgegeo.runtime.postgres import gallery as gallery_module
from edgegeo.runtime.postgres.cover import MOST, cover
from edgegeo.runtime.postgres.gallery import PostgresGallery
from edgegeo.runtime.postgres.push import push_gallery

pytest.importorskip("psycopg", reason="needs the extra postgres")
TRIANGLE = Polygons([[np.array([[-20.0, -10.0], [40.0, -10.0], [10.0, 50.0], [-20.0, -10.0]])]])
REGIONS = [
    Circle(48.0, 11.0, 5.0),
    Circle(0.0, 179.99, 800.0),
    Circle(89.5, 0.0, 1500.0),
    Circle(-90.0, 0.0, 2500.0),
    Circle(10.0, 10.0, 25_000.0),
    Box(-15.0, 165.0, 20.0, -160.0),
    Box(60.0, -180.0, 90.0, 180.0),
    TRIANGLE,
]


def spread(count: int) -> np.ndarray:
    """Places all over the sphere, poles and antimeridian among them."""
    rng = np.random.default_rng(0)
    lat = np.degrees(np.arcsin(rng.uniform(-1, 1, count)))
    places = np.stack([lat, rng.uniform(-180, 180, count)], axis=1)
    places[:6] = [[90, 0], [-90, 30], [0, 180], [0, -180], [48.01, 11.02], [89.9, -170]]
    return places


@pytest.mark.parametrize("region", REGIONS, ids=lambda region: type(region).__name__)
def test_a_cover_holds_the_region(region: Region) -> None:
    cells = cover(region)
    assert 0 < len(cells) <= MOST
    places = spread(20_000)
    inside = np.zeros(len(places), bool)
    for cell in cells:
        lat, lon = places.T
        inside |= (lat >= cell.south) & (lat <= cell.north) & (lon >= cell.west) & (lon <= cell.east)
    held = region.holds(places)
    assert held.any()
    assert not (held & ~inside).any()


@pytest.fixture(scope="module")
def pushed(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory, postgres: str) -> Iterator[PostgresGallery]:
    embedder = Embedder.open(tiny_bundle, threads=1)
    rows = [Row(f"t{i}", lat, lon, tile(i % 97)) for i, (lat, lon) in enumerate(spread(300).tolist())]
    place = tmp_path_factory.mktemp("galleries") / "spread"
    Gallery.build(place, rows, embedder, batch=64)
    url = postgres.replace("/postgres?", "/postgres/spread?")
    push_gallery(place, url, index="hnsw")
    gallery = PostgresGallery.open(url)
    yield gallery
    gallery.close()


@pytest.mark.parametrize("region", REGIONS, ids=lambda region: type(region).__name__)
@pytest.mark.parametrize("scanned", [50_000, 0])
def test_hits_lie_in_the_region(
    pushed: PostgresGallery, region: Region, scanned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery_module, "SCANNED", scanned)  # compared one by one, or looked up in the index
    vectors = np.array([pushed.vector(row) for row in range(len(pushed))])
    within = np.flatnonzero(region.holds(pushed.positions))
    queries = vectors[[7, 120]]
    best, scores = exact_search(vectors[within], queries, 12)
    hits = pushed.search(queries, 12, within=region)
    assert np.array_equal(hits.rows, within[best])
    assert np.array_equal(hits.scores, scores)


def test_a_region_without_tiles(pushed: PostgresGallery) -> None:
    hits = pushed.search(pushed.vector(0)[None], 5, within=Circle(48.5, 12.5, 0.01))
    assert (hits.rows.shape, hits.ids, hits.positions.shape, hits.scores.shape) == ((1, 0), ((),), (1, 0, 2), (1, 0))
