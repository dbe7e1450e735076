"""Rasters cut into tiles: where each lies, what is drawn of it, and what is left out. Needs the extra geotiff."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgegeo.errors import InputError
from edgegeo.geo import distance_km
from edgegeo.runtime import Embedder, Row, Skipped
from edgegeo.runtime.gallery.build import build_gallery
from edgegeo.runtime.gallery.intake import IntakeSettings
from edgegeo.runtime.tiles.cutting import Cutting, Extent, count_cuts, cuts
from edgegeo.runtime.tiles.geotiff import geotiff
from edgegeo.runtime.tiles.mercator import Tile, place_of
from edgegeo.runtime.tiles.opening import TileChoice, kind_of, open_source

rasterio = pytest.importorskip("rasterio", reason="needs the extra geotiff")
SIDE = 400


def write(
    file: Path, crs: str, left: float, top: float, pixel: float, values: np.ndarray | None = None, **more
) -> Path:
    """A raster whose red grows with the column and whose green grows with the row."""
    from rasterio.transform import from_origin

    if values is None:
        ramp = np.linspace(0, 250, SIDE).astype(np.uint8)
        values = np.stack([np.tile(ramp, (SIDE, 1)), np.tile(ramp[:, None], (1, SIDE)), np.full((SIDE, SIDE), 90)])
        values = values.astype(np.uint8)
    settings = {"driver": "GTiff", "count": len(values), "height": values.shape[1], "width": values.shape[2]}
    settings |= {"dtype": values.dtype, "crs": crs, "transform": from_origin(left, top, pixel, pixel)}
    file.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(file, "w", **{**settings, **more}) as raster:
        raster.write(values)
    return file


def drawn(row: Row) -> np.ndarray:
    return np.asarray(row.image.draw())


@pytest.mark.parametrize(
    ("crs", "left", "top", "pixel"),
    [
        ("EPSG:32632", 600_000, 5_300_000, 2.0),
        ("EPSG:4326", 11.5, 48.2, 2e-5),
        ("EPSG:3857", 1_280_000, 6_140_000, 3.0),
        ("EPSG:2056", 2_600_000, 1_200_000, 2.0),  # Swiss oblique Mercator
        ("EPSG:32760", 700_000, 8_000_000, 2.0),  # the south, near the antimeridian
    ],
)
@pytest.mark.parametrize("how", [Cutting(ground=200.0), Cutting(zoom=17)])
def test_every_tile_shows_its_own_place(
    tmp_path: Path, crs: str, left: float, top: float, pixel: float, how: Cutting
) -> None:
    from rasterio.warp import transform

    tiles = geotiff(write(tmp_path / "scene.tif", crs, left, top, pixel), how)
    rows = [row for row in tiles if row.image.draw() is not None]
    assert rows
    assert tiles.total == len(list(tiles))
    for row in rows:
        (x,), (y,) = transform("EPSG:4326", crs, [row.lon], [row.lat])
        column, line = (x - left) / pixel, (top - y) / pixel
        if min(column, line) < 20 or max(column, line) > SIDE - 20:
            continue  # its middle is beside the edge
        picture = drawn(row)
        middle = picture.shape[0] // 2
        assert picture.shape[0] == picture.shape[1] >= 60
        seen = picture[middle - 1 : middle + 1, middle - 1 : middle + 1].mean(axis=(0, 1))
        assert seen[:2] == pytest.approx([250 * column / (SIDE - 1), 250 * line / (SIDE - 1)], abs=2.5)
        assert seen[2] == pytest.approx(90, abs=1)
        if min(column, line) < 100 or max(column, line) > SIDE - 100:
            continue
        # North is up and east is right.
        assert picture[5, middle, 1] < picture[-5, middle, 1]
        assert picture[middle, 5, 0] < picture[middle, -5, 0]


def test_squares_are_as_large_as_they_say_and_overlap() -> None:
    extent = Extent(11.0, 60.0, 11.0 + 1000 / (111_195 * 0.5), 60.0 + 1000 / 111_195)
    found = list(cuts(extent, Cutting(ground=400.0, overlap=0.5)))
    assert len(found) == count_cuts(extent, Cutting(ground=400.0, overlap=0.5)) == 16
    assert [cut.name for cut in found[:5]] == ["400m/0/0", "400m/0/1", "400m/0/2", "400m/0/3", "400m/1/0"]
    first, right, below = found[0].centre, found[1].centre, found[4].centre
    assert 1000 * distance_km(first.lat, first.lon, right.lat, right.lon) == pytest.approx(200, abs=2)
    assert 1000 * distance_km(first.lat, first.lon, below.lat, below.lon) == pytest.approx(200, abs=0.1)
    assert (extent.north - first.lat) * 111_195 == pytest.approx(200, abs=0.1)
    assert (first.lon - extent.west) * 111_195 * 0.5 == pytest.approx(200, abs=3)
    assert found[0].bounds == (-200.0, -200.0, 200.0, 200.0)
    assert len(list(cuts(extent, Cutting(ground=400.0, overlap=0)))) == 9
    assert len(list(cuts(extent, Cutting(ground=990.0)))) == 1


def test_tiles_of_the_pyramid_are_those_of_the_pyramid() -> None:
    at = place_of(14, 8500.1, 5500.1), place_of(14, 8501.9, 5502.9)
    extent = Extent(at[0].lon, at[1].lat, at[1].lon, at[0].lat)
    found = list(cuts(extent, Cutting(zoom=14)))
    assert [cut.name for cut in found] == [f"14/{x}/{y}" for y in (5500, 5501, 5502) for x in (8500, 8501)]
    assert found[0].centre == Tile(14, 8500, 5500).centre
    half = [cut.name for cut in cuts(extent, Cutting(zoom=14, overlap=0.5))]
    assert {"14/8500/5500", "14/8500.5/5500", "14/8500.5/5501.5"} <= set(half)
    assert len(half) == count_cuts(extent, Cutting(zoom=14, overlap=0.5)) == 5 * 7
    over = list(cuts(Extent(179.99, -1, 180.03, -0.99), Cutting(zoom=14)))
    assert [cut.name.split("/")[1] for cut in over] == ["16383", "0", "1"]


def test_across_the_antimeridian(tmp_path: Path) -> None:
    tiles = geotiff(write(tmp_path / "scene.tif", "EPSG:32660", 832_000, 100_000, 10.0), Cutting(ground=1000.0))
    rows = list(tiles)
    lons = {round(row.lon, 2) for row in rows}
    assert min(lons) < -179 and max(lons) > 179  # noqa: PT018
    assert sum(row.image.draw() is not None for row in rows) >= len(rows) * 0.9
    assert len({row.id for row in rows}) == len(rows) == tiles.total


def test_tiles_without_data_are_counted(tmp_path: Path, tiny_bundle: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(1, 255, (3, SIDE, SIDE), dtype=np.uint8)
    values[:, :, SIDE // 2 :] = 0
    write(tmp_path / "scene.tif", "EPSG:32632", 499_600, 5_300_000, 2.0, values, nodata=0)
    source = geotiff(tmp_path / "scene.tif", Cutting(ground=100.0, overlap=0))
    report = build_gallery(tmp_path / "g", source, Embedder.open(tiny_bundle, threads=1))
    assert len(report.gallery) == 32
    (left_out,) = report.gallery.skipped
    assert left_out.reason == "32 tiles hold no data and were left out"
    assert "scene.tif (100 m a tile, overlap 0)" in left_out.id
    half = next(row for row in geotiff(tmp_path / "scene.tif", Cutting(ground=110.0, overlap=0)) if row.image.draw())
    assert half.id == "scene.tif/110m/0/0"


def test_missing_data_is_white_and_values_are_stretched(tmp_path: Path) -> None:
    ramp = np.linspace(1000, 3000, SIDE)
    values = np.tile(ramp, (1, SIDE, 1)).astype(np.uint16)
    values[0, : SIDE // 4] = 0
    write(tmp_path / "s2.tif", "EPSG:32632", 498_000, 5_300_000, 10.0, values, nodata=0)
    (row,) = geotiff(tmp_path / "s2.tif", Cutting(ground=3900.0))
    picture = drawn(row)
    assert picture.shape == (390, 390, 3)
    assert (picture[10] == 255).all()
    across = picture[300, :, 0].astype(int)
    assert across[5] <= 5
    assert across[-5] >= 250
    assert (np.diff(across) >= 0).all()
    assert (picture[300, :, 0] == picture[300, :, 2]).all()
    floats = np.where(values == 0, np.nan, values / 1000).astype(np.float32)
    write(tmp_path / "f.tif", "EPSG:32632", 498_000, 5_300_000, 10.0, floats, nodata=float("nan"))
    (row,) = geotiff(tmp_path / "f.tif", Cutting(ground=3900.0))
    assert np.abs(drawn(row).astype(int) - picture).max() <= 1


def test_bands_masks_and_palettes(tmp_path: Path) -> None:
    from rasterio.enums import ColorInterp

    place = ("EPSG:32632", 499_600, 5_300_000, 2.0)
    values = np.stack([np.full((SIDE, SIDE), v, np.uint8) for v in (10, 60, 120, 0)])
    values[3, :, : SIDE // 2] = 255
    file = write(tmp_path / "rgba.tif", *place, values)
    with rasterio.open(file, "r+") as raster:
        raster.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.alpha]
    rows = [row for row in geotiff(file, Cutting(ground=200.0, overlap=0)) if row.image.draw()]
    assert {row.id.split("/")[-1] for row in rows} == {"0", "1"}
    assert drawn(rows[0])[50, 50].tolist() == [120, 60, 10]
    table = write(tmp_path / "map.tif", *place, np.full((1, SIDE, SIDE), 7, np.uint8), photometric="palette")
    with rasterio.open(table, "r+") as raster:
        raster.write_colormap(1, {7: (200, 30, 40, 255)})
    assert drawn(next(iter(geotiff(table, Cutting(ground=200.0)))))[50, 50].tolist() == [200, 30, 40]


def test_a_folder_of_rasters(tmp_path: Path, tiny_bundle: Path) -> None:
    write(tmp_path / "a.tif", "EPSG:32632", 499_000, 5_300_000, 2.0)
    write(tmp_path / "deep" / "b.TIFF", "EPSG:32632", 500_000, 5_300_000, 2.0)
    (tmp_path / "broken.tif").write_bytes(b"II*\x00junk")
    assert kind_of(tmp_path) == "geotiff"
    tiles = open_source(tmp_path, choice=TileChoice(ground=400.0, overlap=0.0))
    found = list(tiles)
    assert tiles.total == len(found)
    assert [one.id for one in found if isinstance(one, Skipped)] == ["broken.tif"]
    assert sum(isinstance(one, Row) for one in found) == 8
    report = build_gallery(tmp_path / "g", tiles, Embedder.open(tiny_bundle, threads=2))
    assert (len(report.gallery), report.gallery.skipped[0].id) == (8, "broken.tif")
    assert report.gallery.id(4) == "deep/b.TIFF/400m/0/0"
    again = [pickle.loads(pickle.dumps(row)) for row in found if isinstance(row, Row)]  # noqa: S301 -- of our own
    assert (drawn(again[0]) == drawn(next(row for row in found if isinstance(row, Row)))).all()


def test_a_build_that_was_stopped_goes_on(tmp_path: Path, tiny_bundle: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    file = write(tmp_path / "scene.tif", "EPSG:32632", 499_600, 5_300_000, 2.0)
    embedder, small = Embedder.open(tiny_bundle, threads=2), IntakeSettings(batch=2, part_rows=2)
    with pytest.raises(KeyboardInterrupt):
        build_gallery(
            tmp_path / "g", geotiff(file, Cutting(ground=200.0, overlap=0)), embedder, settings=small, progress=stop
        )
    report = build_gallery(tmp_path / "g", geotiff(file, Cutting(ground=200.0, overlap=0)), embedder, settings=small)
    assert (report.resumed, len(report.gallery)) == (8, 16)
    assert [report.gallery.id(row) for row in (0, 15)] == ["scene.tif/200m/0/0", "scene.tif/200m/3/3"]


def test_rasters_that_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "scene.tif", "EPSG:32632", 600_000, 5_300_000, 2.0)
    for ground, words in ((5.0, r"2.5 pixels of 2 m wide"), (2000.0, "covers 8.. x 8.. m, too little")):
        with pytest.raises(InputError, match=words):
            geotiff(file, Cutting(ground=ground))
    with pytest.raises(InputError, match="--ground METRES"):
        open_source(file)
    for choice in (TileChoice(ground=9.0, zoom=3), TileChoice(ground=float("nan")), TileChoice(ground=9, overlap=1.0)):
        with pytest.raises(InputError):
            open_source(file, choice=choice)
    Image.new("L", (40, 40)).save(tmp_path / "bare.tif")
    with pytest.raises(InputError, match="says nothing of where it lies"):
        geotiff(tmp_path / "bare.tif", Cutting(zoom=3))
    (tmp_path / "junk.tif").write_bytes(b"junk")
    with pytest.raises(InputError, match="can't be read as a raster"):
        geotiff(tmp_path / "junk.tif", Cutting(zoom=3))
    cut = tmp_path / "cut.tif"
    cut.write_bytes(file.read_bytes()[:200_000])
    broken = [row for row in geotiff(cut, Cutting(ground=100.0)) if isinstance(row, Row)]
    with pytest.raises(InputError, match="can't be read there"):
        broken[-1].image.draw()
