"""GeoTIFF, COG and whatever else GDAL reads, cut into tiles: `pip install 'edgegeo[geotiff]'` brings rasterio."""

import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgegeo.errors import ImageError, InputError, one_line
from edgegeo.geo import distance_km
from edgegeo.runtime.gallery.rows import Drawn, Origin, Row, Skipped, Tiles
from edgegeo.runtime.tiles.cutting import Cut, Cutting, Extent, count_cuts, cuts

SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2")
LARGEST = 512
"""Pixels along a tile's side at most: no model of today sees more of one tile."""
LEAST = 16
"""A tile of fewer pixels shows nothing."""
VALID = 0.5
"""Share of a tile that must hold data."""
_PROBES, _PROBE = 4, 256


@dataclass(frozen=True)
class Sheet:
    """One raster, as far as its tiles need to know it."""

    path: Path
    mark: str
    """Changes when the file does."""
    extent: Extent
    pixel_m: float
    bands: tuple[int, ...]
    span: tuple[float, float] | None
    """Values drawn black and white; None for bytes, which stay as they are."""
    palette: bool
    alpha: bool


class Scene:
    """An opened raster that several threads draw tiles of, each through a handle of its own."""

    def __init__(self, sheet: Sheet) -> None:
        self.sheet = sheet
        self._local = threading.local()

    def __reduce__(self) -> tuple[type["Scene"], tuple[Sheet]]:
        return Scene, (self.sheet,)

    def draw(self, cut: Cut, size: int) -> Image.Image | None:
        """A tile, (size, size) RGB with white where data is missing; None where too little of it holds data."""
        from rasterio.enums import ColorInterp, Resampling
        from rasterio.errors import RasterioError
        from rasterio.transform import from_bounds
        from rasterio.vrt import WarpedVRT

        how = Resampling.nearest if self.sheet.palette else Resampling.bilinear
        try:
            with WarpedVRT(
                self._handle(), crs=cut.crs, transform=from_bounds(*cut.bounds, size, size), width=size, height=size,
                resampling=how, add_alpha=not self.sheet.alpha,
            ) as view:  # fmt: skip
                # The band itself: the mask of a dataset passes over alpha in floating point.
                there = view.read(view.colorinterp.index(ColorInterp.alpha) + 1) > 0
                if there.mean() < VALID:
                    return None
                values = view.read(list(self.sheet.bands))
        except (RasterioError, OSError) as error:
            raise ImageError(f"{self.sheet.path} can't be read there ({one_line(error)})") from None
        pixels = self._coloured(values)
        pixels[~there] = 255
        return Image.fromarray(pixels)

    def _coloured(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """(size, size, 3) bytes of bands (B, size, size)."""
        if self.sheet.palette:
            colours = self._handle().colormap(self.sheet.bands[0])
            table = np.zeros((256, 3), np.uint8)
            for number, colour in colours.items():
                table[number] = colour[:3]
            return np.asarray(table[values[0].astype(np.uint8)])
        if self.sheet.span is not None:
            low, high = self.sheet.span
            share = (np.nan_to_num(values.astype(np.float64)) - low) / max(high - low, 1e-12)
            values = np.round(np.clip(share, 0, 1) * 255)
        whole = values.astype(np.uint8)
        return np.ascontiguousarray(np.moveaxis(whole if len(whole) == 3 else np.repeat(whole, 3, axis=0), 0, -1))

    def _handle(self) -> Any:
        import rasterio

        if not hasattr(self._local, "handle"):
            self._local.handle = rasterio.open(self.sheet.path)
        return self._local.handle


def geotiff(place: str | Path, cutting: Cutting) -> Tiles:
    """Tiles of a raster, or of every raster under a folder; ids are NAME/500m/ROW/COLUMN or NAME/Z/X/Y.

    Any coordinate system; a tile is drawn north up, with as many pixels as the raster has there (LARGEST at most).
    Bands: red, green and blue where they are named, else the first three, or one as grey; values that are no bytes are
    stretched between the 2nd and 98th percentile of the raster. Tiles with less than VALID of their area in data are
    left out and counted. Rasters that can't be used are Skipped; a single one is an InputError.
    """
    root = Path(place)
    if not root.exists():
        raise InputError(f"no raster at {root}; check the path")
    files = sorted(f for f in root.rglob("*") if f.suffix.lower() in SUFFIXES) if root.is_dir() else [root]
    if not files:
        raise InputError(f"{root} holds no raster ({', '.join(SUFFIXES)})")
    scenes: list[tuple[str, Scene | Skipped]] = []
    for file in files:
        name = file.relative_to(root).as_posix() if root.is_dir() else file.name
        try:
            sheet = _sheet(file)
            _check_size(sheet, cutting)
            scenes.append((name, Scene(sheet)))
        except InputError as error:
            if file == root:
                raise
            scenes.append((name, Skipped(name, str(error))))
    total = sum(count_cuts(scene.sheet.extent, cutting) if isinstance(scene, Scene) else 1 for _, scene in scenes)
    return Tiles(Origin("geotiff", str(root.absolute()), detail=str(cutting)), partial(_rows, scenes, cutting), total)


def _rows(scenes: list[tuple[str, Scene | Skipped]], cutting: Cutting) -> Iterator[Row | Skipped]:
    for name, scene in scenes:
        if isinstance(scene, Skipped):
            yield scene
            continue
        for cut in cuts(scene.sheet.extent, cutting):
            size = _pixels(scene.sheet, cutting, cut.centre.lat)
            mark = f"{scene.sheet.mark} {cut.crs} {cut.bounds} {size}"
            yield Row(f"{name}/{cut.name}", cut.centre.lat, cut.centre.lon, Drawn(mark, partial(scene.draw, cut, size)))


def _pixels(sheet: Sheet, cutting: Cutting, lat: float) -> int:
    return min(LARGEST, round(cutting.side_m(lat) / sheet.pixel_m))


def _check_size(sheet: Sheet, cutting: Cutting) -> None:
    width, height = sheet.extent.size_m()
    side = cutting.side_m((sheet.extent.north + sheet.extent.south) / 2)
    if _pixels(sheet, cutting, (sheet.extent.north + sheet.extent.south) / 2) < LEAST:
        raise InputError(
            f"{sheet.path}: a tile of {side:,.4g} m would be {side / sheet.pixel_m:.2g} pixels of {sheet.pixel_m:.3g} "
            f"m wide, fewer than {LEAST}; cut larger ones"
        )
    if cutting.ground is not None and min(width, height) < side * VALID:
        raise InputError(
            f"{sheet.path} covers {width:,.0f} x {height:,.0f} m, too little for a tile of {side:,.4g} m; cut smaller "
            "ones"
        )


def _sheet(path: Path) -> Sheet:
    """What a raster says of itself; InputError for one that can't be cut."""
    import rasterio
    from rasterio.enums import ColorInterp
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # said below, with the remedy
            with rasterio.open(path) as raster:
                if raster.crs is None or raster.transform.is_identity:
                    raise InputError(
                        f"{path} says nothing of where it lies; georeference it (gdal_translate -a_srs ...)"
                    )
                kinds = raster.colorinterp
                bands = _bands(kinds)
                if not bands:
                    raise InputError(f"{path} has no band with a picture")
                state = path.stat()
                extent, pixel = _extent(raster)
                return Sheet(
                    path.absolute(),
                    f"{path.absolute()} {state.st_size} {state.st_mtime_ns}",
                    extent,
                    pixel,
                    bands,
                    None if raster.dtypes[bands[0] - 1] == "uint8" else _span(raster, bands),
                    kinds[bands[0] - 1] == ColorInterp.palette and raster.dtypes[bands[0] - 1] == "uint8",
                    ColorInterp.alpha in kinds,
                )
    except (RasterioError, OSError) as error:
        raise InputError(f"{path} can't be read as a raster ({one_line(error)})") from None


def _bands(kinds: Any) -> tuple[int, ...]:
    """Numbers of the bands that are drawn, from 1."""
    from rasterio.enums import ColorInterp

    named = [kinds.index(one) + 1 for one in (ColorInterp.red, ColorInterp.green, ColorInterp.blue) if one in kinds]
    seen = [number for number, kind in enumerate(kinds, 1) if kind != ColorInterp.alpha]
    return tuple(named) if len(named) == 3 else tuple(seen[:3] if len(seen) >= 3 else seen[:1])


def _extent(raster: Any) -> tuple[Extent, float]:
    """The degrees that a raster covers, and the metres of a pixel in its middle."""
    from rasterio.warp import transform, transform_bounds

    width, height = raster.width, raster.height
    a, b, c, d, e, f = raster.transform[:6]

    def at(column: float, row: float) -> tuple[float, float]:
        return a * column + b * row + c, d * column + e * row + f

    xs, ys = zip(*(at(x, y) for x in (0, width) for y in (0, height)), strict=True)
    west, south, east, north = transform_bounds(raster.crs, "EPSG:4326", min(xs), min(ys), max(xs), max(ys))
    middle = [at(width / 2 + step, height / 2 + step) for step in (0, 1)]
    lons, lats = transform(raster.crs, "EPSG:4326", *(list(axis) for axis in zip(*middle, strict=True)))
    diagonal = 1000 * float(distance_km(lats[0], lons[0], lats[1], lons[1]))
    if not np.isfinite([west, south, east, north, diagonal]).all() or diagonal <= 0:
        raise InputError(f"{raster.name} lies nowhere on the Earth by its coordinate system; georeference it again")
    return Extent(west, max(south, -90.0), east + (360.0 if east < west else 0.0), min(north, 90.0)), diagonal / 2**0.5


def _span(raster: Any, bands: tuple[int, ...]) -> tuple[float, float]:
    """The 2nd and 98th percentile of the values, by small windows all over it: a large raster is not read whole."""
    from rasterio.windows import Window

    found = []
    for row in range(_PROBES):
        for column in range(_PROBES):
            left, top = (
                max(0, min(round((n + 0.5) / _PROBES * length) - _PROBE // 2, length - _PROBE))
                for n, length in ((column, raster.width), (row, raster.height))
            )
            window = Window(left, top, min(_PROBE, raster.width), min(_PROBE, raster.height))
            values = raster.read(list(bands), window=window, masked=True).compressed()
            found.append(values[np.isfinite(values)])
    values = np.concatenate(found)
    if len(values) == 0:
        return 0.0, 1.0
    low, high = np.percentile(values.astype(np.float64), (2, 98))
    return float(low), float(high)
