"""A gallery pushed to PostgreSQL, and asked there by every verb that searches."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from gallery_tiles import tile, tiles

from edgegeo.runtime import Embedder, Gallery

pytest.importorskip("psycopg", reason="needs the extra postgres")


@pytest.fixture(scope="module")
def folder(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pushed") / "g"
    Gallery.build(place, tiles(12), Embedder.open(tiny_bundle, threads=1))
    return place


@pytest.fixture
def url(postgres: str) -> str:
    parts = urlsplit(postgres)
    return urlunsplit((*parts[:2], f"{parts.path}/field", *parts[3:]))


def test_pushed_and_searched(
    cli: Any, folder: Path, url: str, tiny_bundle: Path, other_tiny_bundle: Path, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    tile(4).save(photo)
    words = ("--bundle", tiny_bundle, "--gallery")
    assert cli("index", "push", folder, "--to", url, "--json").json["tiles"] == 12
    assert "12 tiles, read back" in cli("index", "push", folder, "--to", url, "--index", "hnsw").out
    there = cli("index", "search", photo, *words, url, "--json").json
    here = cli("index", "search", photo, *words, folder, "--json").json
    assert there["hits"] == here["hits"]
    assert there["hits"][0]["id"] == "tile-4"
    assert there["gallery"].endswith("/field")
    near = ("--within", "-9.8,-98.8,40", "--json")
    held = [cli("index", "search", photo, *words, place, *near).json["hits"] for place in (url, folder)]
    assert held[0] == held[1]
    assert len(held[0]) == 3
    # Re-ranking and the picture of the answer need thumbnails too.
    found = cli("locate", photo, *words, url, "--rerank", 3, "--json", "--map", tmp_path / "map.png")
    assert found.code == 0, found
    assert {hit["id"] for hit in found.json["hits"]} == {hit["id"] for hit in here["hits"][:6]}
    for verb in (("add", folder / "x.csv"), ("delete", "tile-1"), ("stats",), ("compact",)):
        assert "is a copy: change the gallery on disk" in cli("index", *verb, *words, url).refused()
    assert (
        "embeds differently" in cli("index", "search", photo, "--bundle", other_tiny_bundle, "--gallery", url).refused()
    )
    assert "no gallery at" in cli("index", "search", photo, *words, url.replace("/field?", "/other?")).refused()


def test_refusals(cli: Any, folder: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    nobody = "postgresql://me:secret@127.0.0.1:1/geo/g"
    for words in (
        ("index", "push", folder, "--to", nobody),
        ("index", "search", "--text", "x", "--gallery", nobody, "--bundle", tiny_bundle),
        ("locate", "--text", "x", "--gallery", nobody, "--bundle", tiny_bundle),
        ("serve", "--gallery", nobody, "--bundle", tiny_bundle, "--port", 0),
    ):
        said = cli(*words).refused()
        assert said.startswith(
            "no PostgreSQL that takes writes answers" if words[1] == "push" else "no PostgreSQL answers"
        )
        assert "for postgresql://127.0.0.1:1/geo/g (" in said
        assert "secret" not in said
    assert "HOST:PORT/DATABASE/GALLERY" in cli("index", "push", folder, "--to", "milvus://host/x").refused()
    assert "auto, hnsw, exact" in cli("index", "push", folder, "--to", nobody, "--index", "ivf").refused()


def test_the_extra_is_named(cli: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "edgegeo[postgres]" in cli("index", "push", folder, "--to", "postgresql://h/a/b").refused()
