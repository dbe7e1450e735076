"""`edgegeo index build` and `add` from every kind of source."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tile_sources import block, write_folder, write_mbtiles

from edgegeo.runtime import Gallery

NAMES = [*block(8, 40, 50, 2), *block(9, 80, 100, 4), *block(10, 160, 200, 1)]


@pytest.fixture
def build(cli: Any, tiny_bundle: Path, tmp_path: Path) -> Any:
    return lambda *words: cli("index", "build", *words, "-o", tmp_path / "g", "--bundle", tiny_bundle)


def test_pyramids(cli: Any, build: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "tiles", NAMES)
    done = build(tmp_path / "tiles")
    assert "16 tiles, 0 skipped" in done.out
    assert "has zooms 8 to 10: taking 9; 10 cover only a part of its area (--zoom takes another)" in done.err
    file = write_mbtiles(tmp_path / "m.mbtiles", NAMES)
    more = ("--gallery", tmp_path / "g", "--bundle", tiny_bundle)
    assert "9/80/103" in cli("index", "add", file, *more).refused()
    done = cli("index", "add", file, "--zoom", 8, *more)
    assert "4 tiles added" in done.out
    assert cli("index", "stats", *more, "--json").json["sources"] == [
        f"{tmp_path / 'tiles'} (zoom 9)", f"{file} (zoom 8)",
    ]  # fmt: skip
    assert "no zoom 11; it has 8 to 10" in build(file, "--zoom", 11).refused()


def test_rasters(build: Any, tmp_path: Path) -> None:
    pytest.importorskip("rasterio", reason="needs the extra geotiff")
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    values = np.random.default_rng(0).integers(0, 255, (3, 200, 200), dtype=np.uint8)
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", width=200, height=200, count=3, dtype="uint8", crs="EPSG:32632",
        transform=from_origin(499_800, 5_300_000, 2, 2),
    ) as raster:  # fmt: skip
        raster.write(values)
    assert "--ground METRES" in build(tmp_path / "scene.tif").refused()
    assert "4 tiles, 0 skipped" in build(tmp_path / "scene.tif", "--ground", 200, "--overlap", 0).out
    assert Gallery.open(tmp_path / "g").id(3) == "scene.tif/200m/1/1"
    assert build(tmp_path / "scene.tif", "--zoom", 17).code == 0
    assert Gallery.open(tmp_path / "g").id(0).startswith("scene.tif/17/")


def test_data_sets(build: Any, tmp_path: Path) -> None:
    root = tmp_path / "cvg"
    (root / "NewYork").mkdir(parents=True)
    (root / "NewYork-satellite").mkdir()
    names = [f"40.7{i},-73.9{i}_2020.png" for i in range(4)]
    for i, name in enumerate(names[:3]):
        Image.new("RGB", (20, 20), (i * 50, 9, 9)).save(root / "NewYork-satellite" / name)
    (root / "NewYork" / "test.json").write_text(
        f"{{{', '.join(f'{chr(34)}{n}{chr(34)}: {chr(34)}a{chr(34)}' for n in names)}}}"
    )
    words = ("--data", "cvg-text", "--data-root", root, "--option", "version=NewYork")
    done = build(*words)
    assert "3 tiles, 1 skipped" in done.out
    assert f"skipped cvg-text: 1 rows: missing picture (first NewYork/test.json[{names[3]}]" in done.err
    gallery = Gallery.open(tmp_path / "g")
    assert (gallery.id(1), gallery.position(1).lat, gallery.position(1).lon) == (names[1], 40.71, -73.91)
    assert gallery.sources[0].detail == "cvg-text, test, version=NewYork"
    assert build("--data", "planet", "--option", "places=3", "--option", "size=64").code == 0
    assert Gallery.open(tmp_path / "g").id(2) == "test-00002"
    (tmp_path / "grid.csv").write_text("LAT,LON\n1,2\n3,4\n")
    assert "bare positions" in build("--data", "gps-gallery", "--data-root", tmp_path / "grid.csv").refused()


def test_flags_that_do_not_go_together(build: Any, cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "tiles", NAMES[:4])
    write_folder(tmp_path / "south", NAMES[:4])
    (tmp_path / "south" / "tilemapresource.xml").write_text("<TileMap/>")
    for words, said in (
        ((tmp_path / "tiles", "--data", "planet"), "not from both"),
        (("--zoom", 3), "--zoom goes with a source"),
        ((tmp_path / "tiles", "--split", "test"), "--split goes with --data"),
        ((tmp_path / "tiles", "--ground", 100), "--ground does not go with a source of xyz"),
        ((tmp_path / "tiles", "--source", "map"), "not 'map'"),
        ((tmp_path / "south",), "--tms, or --xyz"),
        ((tmp_path / "nowhere",), "nothing at"),
    ):
        assert said in build(*words).refused()
    assert not (tmp_path / "g").exists()
    assert build(tmp_path / "south", "--tms").code == 0
    assert Gallery.open(tmp_path / "g").id(0) == "8/40/205"
    add = cli("index", "add", "--gallery", tmp_path / "g", "--bundle", tiny_bundle)
    assert "name a source of tiles" in add.refused()


def test_photos_of_other_forms_are_named(build: Any, tmp_path: Path) -> None:
    from edgegeo.exif import write_gps

    folder = tmp_path / "photos"
    folder.mkdir()
    exif = Image.Exif()
    write_gps(exif, 10.0, 20.0)
    Image.new("RGB", (40, 30), (90, 120, 60)).save(folder / "a.jpg", exif=exif)
    (folder / "b.HEIC").write_bytes(b"x")
    done = build(folder)
    assert "1 tiles, 1 skipped" in done.out
    assert "skipped b.HEIC: is not a JPEG, PNG or WebP picture" in done.err
