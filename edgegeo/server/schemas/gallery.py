"""/v1/gallery and /v1/admin: what is in the gallery, tiles added and deleted, bundles opened anew."""

from pydantic import BaseModel, ConfigDict, Field

from edgegeo.server.schemas.inputs import EXAMPLE_URI, PICTURE, Body, Many, ModelName


class GalleryFacts(BaseModel):
    """The gallery of one bundle."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "planet-pocket-int8",
                    "bundle": "pocket-int8",
                    "tiles": 1000,
                    "version": 3,
                    "dim": 192,
                    "dtype": "float32",
                    "skipped": 0,
                    "bounds": [-178.2, -61.4, 179.1, 68.8],
                }
            ]
        }
    )
    name: str
    bundle: str = Field(description="the bundle that embedded the tiles")
    tiles: int
    version: int = Field(description="grows by one with every change")
    dim: int = Field(description="length of a vector")
    dtype: str = Field(description="how vectors are stored")
    skipped: int = Field(description="tiles of the source that could not be used")
    bounds: list[float] = Field(
        description="west, south, east, north in degrees (GeoJSON's bbox), over the antimeridian west is larger than "
        "east"
    )


class NewTile(Body):
    """A tile to add."""

    model_config = ConfigDict(extra="forbid")
    id: str = Field(min_length=1, max_length=200)
    lat: float = Field(ge=-90, le=90, allow_inf_nan=False)
    lon: float = Field(ge=-180, le=180, allow_inf_nan=False)
    image: str = Field(description="data:image/jpeg;base64,... (or png, webp)", json_schema_extra=PICTURE)


class TilesRequest(Body):
    """Tiles to add, all or none. As a form, the fields id, lat, lon and image are repeated once a tile."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"tiles": [{"id": "example-1", "lat": 48.1, "lon": 11.6, "image": EXAMPLE_URI}]}]
        },
    )
    tiles: Many[NewTile] = Field(min_length=1)
    model: ModelName = None
    replace: bool = Field(False, description="whether a tile takes the place of one with its id; else that is refused")


class TilesAnswer(BaseModel):
    """What an edit did."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"gallery": "planet", "added": 1, "replaced": 0, "deleted": 0, "tiles": 1001, "version": 4}]
        }
    )
    gallery: str
    added: int = Field(description="tiles added, the replacing ones included")
    replaced: int
    deleted: int
    tiles: int = Field(description="tiles it has afterwards")
    version: int


class ReloadRequest(Body):
    """Which bundle to open from disk once more."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{}, {"model": None}]})
    model: ModelName = None


class ReloadAnswer(BaseModel):
    """What a reload did."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "pocket-int8",
                    "changed": True,
                    "fingerprint": "3f9a1c07",
                    "gallery_tiles": 1000,
                    "milliseconds": 412.0,
                }
            ]
        }
    )
    model: str
    changed: bool = Field(description="whether bundle or gallery differ from what was served before")
    fingerprint: str
    gallery_tiles: int | None
    milliseconds: float
