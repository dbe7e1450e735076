"""Galleries in PostgreSQL, on a real server: the same hits as on disk, pushed whole or not at all."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import pytest
from gallery_tiles import held, tile, tiles

from edgegeo.bundle import open_bundle
from edgegeo.errors import GalleryBusyError, GalleryError, InputError
from edgegeo.runtime import Embedder, Gallery, Row
from edgegeo.runtime.gallery.edit import add_tiles, delete_tiles
from edgegeo.runtime.postgres.address import Address, is_address
from edgegeo.runtime.postgres.gallery import PostgresGallery
from edgegeo.runtime.postgres.push import push_gallery

psycopg = pytest.importorskip("psycopg", reason="needs the extra postgres")


def named(server: str, gallery: str) -> str:
    parts = urlsplit(server)
    return urlunsplit((*parts[:2], f"{parts.path}/{gallery}", *parts[3:]))


@pytest.fixture(scope="module")
def embedder(tiny_bundle: Path) -> Embedder:
    return Embedder.open(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def local(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """40 tiles, four of them of one picture at other places, two deleted, in more than one segment."""
    place = tmp_path_factory.mktemp("galleries") / "g"
    Gallery.build(place, [*tiles(36), *(Row(f"same-{i}", float(i), -60.0, tile(5)) for i in range(4))], embedder)
    add_tiles(place, tiles(8, first=50), embedder)
    delete_tiles(place, ["tile-3", "tile-52"])
    return Gallery.open(place)


@pytest.fixture
def database(postgres: str) -> Iterator[Any]:
    """A connection of one's own; the galleries of the test before are dropped."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS edgegeo CASCADE")
        yield connection


@pytest.fixture
def pushed(database: Any, postgres: str, local: Gallery) -> Iterator[PostgresGallery]:
    assert push_gallery(local.path, named(postgres, "g")) == 46
    gallery = PostgresGallery.open(named(postgres, "g"))
    yield gallery
    gallery.close()


def test_it_holds_what_the_local_gallery_holds(pushed: PostgresGallery, local: Gallery) -> None:
    assert held(pushed) == held(local)
    assert len(pushed) == len(local) == 46
    assert [pushed.row(id) for id in ("tile-0", "same-3", "tile-57")] == [0, 38, 45]
    for unknown in ("tile-3", "", "a\0b", "'; DROP TABLE x; --"):
        assert pushed.row(unknown) is None
    assert pushed.position(4) == local.position(4)
    assert (pushed.info.bundle, pushed.info.dim, pushed.info.dtype) == ("tiny", local.info.dim, "float32")
    assert (pushed.sources, pushed.skipped, pushed.version) == (local.sources, local.skipped, 1)
    for ask in (pushed.id, pushed.position, pushed.vector, pushed.thumbnail):
        with pytest.raises(IndexError):
            ask(46)


@pytest.mark.parametrize("index", ["exact", "hnsw"])
def test_the_hits_are_those_of_the_local_gallery(
    database: Any, postgres: str, local: Gallery, embedder: Embedder, index: str
) -> None:
    push_gallery(local.path, named(postgres, "g"), index=index)
    gallery = PostgresGallery.open(named(postgres, "g"))
    assert gallery.indexed == (index == "hnsw")
    queries = np.concatenate([embedder.images([tile(i) for i in (0, 5, 33, 91)]), embedder.texts(["a river"])])
    for k in (1, 5, 46, 1000):
        here, there = local.search(queries, k), gallery.search(queries, k)
        assert there.ids == here.ids
        assert np.array_equal(there.rows, here.rows)
        assert np.array_equal(there.scores, here.scores)  # of the same float64 sums, to the last bit
        assert np.array_equal(there.positions, here.positions)
    # One picture at five places: equal scores in the order of the rows.
    assert gallery.search(queries[1], 5).ids[0] == ("tile-5", "same-0", "same-1", "same-2", "same-3")
    gallery.close()


def test_bad_queries(pushed: PostgresGallery) -> None:
    with pytest.raises(GalleryError, match="vectors of length 32"):
        pushed.search(np.zeros(31, np.float32))
    with pytest.raises(GalleryError, match="NaN"):
        pushed.search(np.full(32, np.nan, np.float32))
    with pytest.raises(GalleryError, match="at least 1"):
        pushed.search(np.zeros(32, np.float32), 0)
    with pytest.raises(GalleryError, match="all zeros"):
        pushed.search(np.zeros(32, np.float32))
    none = pushed.search(np.zeros((0, 32), np.float32), 3)
    assert (none.rows.shape, none.positions.shape, none.ids) == ((0, 3), (0, 3, 2), ())


def test_bound_to_its_bundle(
    pushed: PostgresGallery, postgres: str, tiny_bundle: Path, other_tiny_bundle: Path
) -> None:
    PostgresGallery.open(named(postgres, "g"), open_bundle(tiny_bundle)).close()
    with pytest.raises(GalleryError, match="made with bundle 'tiny', bundle 'other' embeds differently"):
        PostgresGallery.open(named(postgres, "g"), open_bundle(other_tiny_bundle))


def test_pushed_again(
    pushed: PostgresGallery, database: Any, postgres: str, embedder: Embedder, tmp_path: Path
) -> None:
    assert pushed.newest() is pushed
    Gallery.build(tmp_path / "g", tiles(3), embedder)
    push_gallery(tmp_path / "g", named(postgres, "g"))
    assert len(held(pushed).ids) == 46  # what was opened stays as it was
    after = pushed.newest()
    assert (len(after), after.version) == (3, 2)
    push_gallery(tmp_path / "g", named(postgres, "g"))
    with pytest.raises(GalleryError, match="pushed again twice"):
        pushed.id(0)
    assert after.id(0) == "tile-0"
    (tables,) = database.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'edgegeo'").fetchone()
    assert tables == 3  # the register, what is current, and what was before
    after.close()


def test_a_push_that_ends_early_leaves_no_trace(
    pushed: PostgresGallery, database: Any, postgres: str, local: Gallery
) -> None:
    listing = "SELECT tablename FROM pg_tables WHERE schemaname = 'edgegeo' ORDER BY 1"
    before = database.execute(listing).fetchall()

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "index":
            raise KeyboardInterrupt

    for name in ("g", "other"):
        with pytest.raises(KeyboardInterrupt):
            push_gallery(local.path, named(postgres, name), progress=stop)
    assert database.execute(listing).fetchall() == before
    assert pushed.newest() is pushed
    with pytest.raises(GalleryError, match=r"no gallery at .*other"):
        PostgresGallery.open(named(postgres, "other"))


def test_one_push_at_a_time(pushed: PostgresGallery, postgres: str, local: Gallery) -> None:
    def again(stage: str, done: int, total: int) -> None:
        if stage == "push":
            with pytest.raises(GalleryBusyError, match="another push"):
                push_gallery(local.path, named(postgres, "g"))
            push_gallery(local.path, named(postgres, "beside"))

    push_gallery(local.path, named(postgres, "g"), progress=again)
    assert pushed.newest().version == 2


def test_a_connection_that_was_cut_is_made_again(pushed: PostgresGallery, database: Any) -> None:
    database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'edgegeo'")
    assert pushed.id(0) == "tile-0"


def test_several_threads(pushed: PostgresGallery, local: Gallery, embedder: Embedder) -> None:
    queries = embedder.images([tile(i) for i in range(8)])
    expected = local.search(queries, 5)
    found: dict[int, Any] = {}

    def search(number: int) -> None:
        found[number] = [pushed.search(queries[number], 5).ids[0] for _ in range(5)]

    threads = [threading.Thread(target=search, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [expected.ids[number]] * 5 for number in range(8)}


def test_damage_is_noticed(pushed: PostgresGallery, database: Any, postgres: str) -> None:
    for change, words in (
        ("""info = info - 'dim'""", "damaged .*lacks the key 'dim'"),
        ("info = '[]'", "damaged"),
        ("format = 99", "format 99"),
    ):
        database.execute(f"UPDATE edgegeo.galleries SET {change}")
        with pytest.raises(GalleryError, match=words):
            PostgresGallery.open(named(postgres, "g"))


def test_addresses(tmp_path: Path) -> None:
    address = Address.parse("postgresql://me:secret@db.example:5433/geo/planet?sslmode=require")
    assert address == Address(
        "postgresql://me:secret@db.example:5433/geo?sslmode=require",
        "planet",
        "postgresql://db.example:5433/geo/planet",
    )
    several = Address.parse("postgres://me:a%2Fb@[::1]:5433,db2,10.0.0.3:1/geo/planet?load_balance_hosts=random")
    assert several.shown == "postgresql://[::1]:5433,db2,10.0.0.3:1/geo/planet"
    assert several.conninfo == "postgres://me:a%2Fb@[::1]:5433,db2,10.0.0.3:1/geo?load_balance_hosts=random"
    assert Address.parse("postgresql:///geo/g").shown == "postgresql://localhost/geo/g"
    assert is_address("postgres://host/a/b")
    assert not is_address("postgres")
    assert not is_address(tmp_path)
    for text in ("postgresql://host/geo", "postgresql://host:port/a/b", "postgresql://me:secret@h/a/b/c", "file://h/a/b",
                 "postgresql://host/geo/sp ace", "postgresql://host:1,host:0/a/b", "postgresql://host:99999/a/b",
                 "postgresql://me:se?secret@h/a", "postgresql://me:se/secret@h/a/b"):  # fmt: skip
        with pytest.raises(InputError, match="address") as told:
            Address.parse(text)
        assert "secret" not in str(told.value)
    with pytest.raises(GalleryError, match=r"no PostgreSQL answers for postgresql://127\.0\.0\.1:1/geo/g") as told:
        PostgresGallery.open("postgresql://me:secret@127.0.0.1:1/geo/g")
    assert "secret" not in str(told.value)


def test_what_push_refuses(database: Any, postgres: str, local: Gallery, tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="no gallery at"):
        push_gallery(tmp_path / "none", named(postgres, "g"))
    with pytest.raises(InputError, match="auto, hnsw, exact"):
        push_gallery(local.path, named(postgres, "g"), index="ivf")
    with pytest.raises(GalleryError, match=r"no gallery at .*edgegeo index push"):
        PostgresGallery.open(named(postgres, "g"))
