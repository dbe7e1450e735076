"""A dual encoder from the command line: export, embed, index, locate, eval, bench, and the server on its bundle."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgegeo.planet import Planet
from edgegeo.runtime import Gallery, Model

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dual import write_clip

    from edgegeo.export import export
    from edgegeo.recipe import preset

    root = tmp_path_factory.mktemp("clip")
    export(write_clip(root / "checkpoint"), preset("int8"), root / "bundle", places=0)
    return root / "bundle"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    place = Planet().places("test", 1)[0]
    Planet().ground(place.lat, place.lon).save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


def test_export(cli: Any, tmp_path: Path) -> None:
    from dual import write_siglip

    folder = write_siglip(tmp_path / "siglip")
    done = cli("export", folder, "--int8", "--places", 3, "-o", tmp_path / "bundle")
    assert done.code == 0, done.err
    for words in ("image embedding (cosine)", "text embedding (cosine)", "photo to tile, Recall@1", "embed a text"):
        assert words in done.out
    assert "can't take the role generate" in cli("export", folder, "--adapter", f"generate={folder}").refused()


def test_embed_index_and_locate(cli: Any, bundle: Path, photo: Path) -> None:
    done = cli("embed", photo, "--text", "a river", "--bundle", bundle, "--json")
    assert done.json["dim"] == 24
    assert [sorted(item) for item in done.json["items"]] == [["embedding", "text"], ["embedding", "image"]]
    assert "this model reads up to" in cli("embed", "--text", "river " * 200, "--bundle", bundle).refused()
    assert cli("index", "build", "--places", 4, "--bundle", bundle).code == 0
    assert len(cli("index", "search", photo, "-k", 2, "--bundle", bundle, "--json").json["hits"]) == 2
    found = cli("locate", photo, "--bundle", bundle, "--json")
    assert (found.code, found.json["source"]) == (0, "retrieval")
    assert "offers no" in cli("locate", photo, "--rerank", 2, "--bundle", bundle).refused()
    assert cli("verify", bundle).code == 0


def test_without_a_gallery_locating_is_refused_with_the_remedy(cli: Any, bundle: Path, photo: Path) -> None:
    assert "edgegeo index build" in cli("locate", photo, "--bundle", bundle).refused()


def test_eval_and_bench(cli: Any, bundle: Path, tmp_path: Path) -> None:
    scores = cli("eval", "--bundle", bundle, "--places", 3, "--json")
    assert scores.code == 0, scores.err
    done = cli("bench", bundle, "--batch", "1", "--threads", "1", "--places", 3, "--seconds", 0.01, "--rounds", 1,
               "-o", tmp_path / "out", "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert sorted(row["job"] for row in done.json["rows"]) == ["embed_image", "embed_text", "search"]


def test_server(bundle: Path, photo: Path, tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    from edgegeo.runtime import Embedder
    from edgegeo.runtime.gallery.sources import planet_places
    from edgegeo.server.app import create_app
    from edgegeo.server.engine import Engine
    from edgegeo.server.settings import ServerSettings

    embedder = Embedder.open(Model.open(bundle, threads=1))
    Gallery.build(tmp_path / "gallery", planet_places(Planet(), n=3, size=64), embedder)
    settings = ServerSettings((bundle,), tmp_path / "gallery", port=0, threads=1, allowed_hosts=("testserver",))
    picture = "data:image/jpeg;base64," + base64.b64encode(photo.read_bytes()).decode()
    with TestClient(create_app(Engine.open(settings), settings), raise_server_exceptions=False) as client:
        part = {"type": "image_url", "image_url": {"url": picture}}
        answer = client.post("/v1/embeddings", json={"input": ["a river", part]})
        assert answer.status_code == 200, answer.text
        rows = np.array([item["embedding"] for item in answer.json()["data"]], np.float32)
        np.testing.assert_allclose(rows[0], embedder.texts(["a river"])[0], atol=1e-5)
        np.testing.assert_allclose(rows[1], embedder.images([Image.open(BytesIO(photo.read_bytes()))])[0], atol=1e-5)
        assert client.post("/v1/search", json={"text": "a river", "k": 2}).status_code == 200
        refused = client.post("/v1/rerank", json={"query": "a river", "documents": [picture]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "role_not_offered")
