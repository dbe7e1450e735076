"""Questions at the command line: several photos of one place, what a place is not, second looks, texts for a tile."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

TEXT = "a green field"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    out = []
    for i in range(4):
        out.append(folder / f"{i}.png")
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(out[-1])
    return out


@pytest.fixture(scope="module")
def words(tiny_bundle: Path, photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    from edgegeo.runtime import Embedder, Gallery, Row

    tiles = tmp_path_factory.mktemp("galleries") / "tiles"
    Gallery.build(tiles, [Row(f"tile-{i}", i, -i, file) for i, file in enumerate(photos)], Embedder.open(tiny_bundle))
    return ["--bundle", tiny_bundle, "--gallery", tiles]


def test_photos_together_are_one_answer(cli: Any, words: list[Any], photos: list[Path]) -> None:
    apart = cli("locate", *photos[:2], *words, "--no-generate", "--json").json
    assert len(apart["answers"]) == 2
    found = cli("locate", *photos[:2], *words, "--together", "--no-generate", "--json").json
    assert {hit["id"] for hit in found["hits"][:2]} == {"tile-0", "tile-1"}
    assert "1 more of the same place" in cli("locate", *photos[:2], *words, "--together").out
    assert "two photos or more" in cli("locate", photos[0], *words, "--together").refused()


def test_what_a_place_is_not(cli: Any, words: list[Any]) -> None:
    plain = cli("locate", "--text", TEXT, *words, "--json").json["hits"]
    without = cli("locate", "--text", TEXT, "--not", "a river", "--not", "red roofs", *words, "--json").json["hits"]
    assert [hit["score"] for hit in without] != [hit["score"] for hit in plain]
    searched = cli("index", "search", "--text", TEXT, "--not", "a river", "--not", "red roofs", *words, "--json").json
    assert [hit["id"] for hit in searched["hits"]] == [hit["id"] for hit in without]


def test_second_looks(cli: Any, words: list[Any]) -> None:
    asked = ["locate", "--text", TEXT, *words]
    once = cli(*asked, "--rerank", 4, "--json").json["hits"]
    twice = cli(*asked, "--rerank", 4, "--both-orders", "--json").json["hits"]
    assert {hit["id"]: hit["rerank_score"] for hit in once} != {hit["id"]: hit["rerank_score"] for hit in twice}
    assert len(cli(*asked, "--rerank", 4, "--pairwise", 3, "--json").json["hits"]) == 4
    for more in (["--both-orders"], ["--pairwise", 2], ["--rerank", 2, "--pairwise", 3]):
        assert "re-rank" in cli(*asked, *more).refused().replace("--rerank", "re-rank")


def test_from_a_tile_to_texts(cli: Any, words: list[Any], photos: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("a green field\n\nhouses with red roofs\na river\n")
    found = cli("index", "search", "--tile", "tile-2", "--texts", file, *words, "--rerank", 2, "--json").json
    assert (found["count"], len(found["hits"])) == (3, 3)
    assert all(hit["rerank_score"] is not None for hit in found["hits"][:2])
    by_photo = cli("index", "search", photos[2], "--texts", file, *words, "--json").json["hits"]
    assert {hit["text"] for hit in by_photo} == {hit["text"] for hit in found["hits"]}
    assert "red roofs" in cli("index", "search", photos[2], "--texts", file, *words, "-k", 3).out
    near = cli("index", "search", "--tile", "tile-2", *words, "--json").json["hits"]
    assert near[0]["id"] == "tile-2"
    for said, part in (
        (["--tile", "tile-9"], "no tile 'tile-9'"),
        (["--tile", "tile-1", "--text", TEXT], "not both"),
        (["--text", TEXT, "--texts", file], "leave out --text"),
        (["--tile", "tile-1", "--texts", tmp_path / "none"], "can't be read"),
        (["--text", TEXT, "--rerank", 3], "--texts"),
    ):
        assert part in cli("index", "search", *said, *words).refused()
