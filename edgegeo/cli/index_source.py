"""What tiles `edgegeo index build` and `add` take: the flags that name a source, and its opening."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edgegeo.cli.flags import flag, named_values
from edgegeo.cli.output import note
from edgegeo.errors import InputError

if TYPE_CHECKING:
    from edgegeo.runtime.gallery.rows import Tiles

SOURCE_HELP = "Folder of photos with EXIF GPS, .csv of path, lat, lon, tile folder z/x/y.png, .mbtiles, or GeoTIFF."
KindFlag = Annotated[
    str | None,
    flag(
        "--source",
        verb="index_kind",
        help="photos, csv, xyz, mbtiles or geotiff.",
        show_default="told by name and content",
    ),
]
ZoomFlag = Annotated[
    int | None,
    flag(
        "--zoom", verb="index", help="Zoom of a tile pyramid; or cut a raster into such tiles.", min=0, max=30,
        show_default="the deepest complete one",
    ),
]  # fmt: skip
TmsFlag = Annotated[
    bool | None,
    flag(
        "--tms/--xyz", verb="index", help="Whether row 0 of a pyramid is in the south.",
        show_default="MBTiles: tms; folders: xyz",
    ),
]  # fmt: skip
GroundFlag = Annotated[
    float | None, flag("--ground", verb="index", help="Cut a raster into squares of so many metres.", min=0.01)
]
OverlapFlag = Annotated[
    float | None,
    flag(
        "--overlap", verb="index", help="Share of their side by which a raster's tiles overlap.", min=0, max=0.9,
        show_default="0.25 with --ground, 0 with --zoom",
    ),
]  # fmt: skip
DataFlag = Annotated[
    str | None, flag("--data", verb="index", help="A data set (edgegeo data list), or auto, instead of a source.")
]
DataRootFlag = Annotated[Path | None, flag("--data-root", verb="index", help="Folder of the data set.")]
SplitFlag = Annotated[str | None, flag("--split", verb="index", help="train, test ... of the data set.")]
OptionFlag = Annotated[
    list[str] | None, flag("--option", verb="index", help="A loader's option as NAME=VALUE; may repeat.")
]


@dataclass(frozen=True)
class SourceRequest:
    """The flags of a source, as they were given."""

    source: Path | None
    kind: str | None
    zoom: int | None
    tms: bool | None
    ground: float | None
    overlap: float | None
    data: str | None
    data_root: Path | None
    split: str | None
    option: list[str] | None

    @property
    def given(self) -> bool:
        """Whether any source is named."""
        return self.source is not None or self.data is not None

    def open(self) -> "Tiles":
        """The tiles that are meant; a remark on them goes to stderr."""
        tiles = self._dataset() if self.data is not None else self._tiles()
        if tiles.remark:
            note(tiles.remark)
        return tiles

    def check(self) -> None:
        """InputError for flags that don't go together."""
        of_data = {"--data-root": self.data_root, "--split": self.split, "--option": self.option or None}
        of_source = {
            "--source": self.kind, "--zoom": self.zoom, "--tms": self.tms, "--ground": self.ground,
            "--overlap": self.overlap,
        }  # fmt: skip
        if self.source is not None and self.data is not None:
            raise InputError(f"tiles come from {self.source} or from --data {self.data}, not from both")
        for name, value in of_data.items():
            if value is not None and self.data is None:
                raise InputError(f"{name} goes with --data")
        for name, named in of_source.items():
            if named is not None and self.source is None:
                raise InputError(f"{name} goes with a source: name a folder or a file")

    def _tiles(self) -> "Tiles":
        from edgegeo.runtime.tiles.opening import TileChoice, open_source

        if self.source is None:
            raise InputError("name a source of tiles: a folder, a .csv, an .mbtiles, a GeoTIFF, or --data NAME")
        return open_source(self.source, self.kind, TileChoice(self.zoom, self.tms, self.ground, self.overlap))

    def _dataset(self) -> "Tiles":
        from edgegeo.datasets.gallery import dataset_tiles

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are the remark
            return dataset_tiles(self.data or "", self.data_root, self.split, **named_values(self.option or []))
