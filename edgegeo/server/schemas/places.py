"""/v1/search and /v1/locate: from a picture or words to places."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgegeo.server.schemas.inputs import EXAMPLE_TEXT, EXAMPLE_URI, PICTURE, Body, ModelName

MOST_MORE = 15
"""Further pictures, and things to avoid, of one question."""


class Query(Body):
    """A picture, a text, or both."""

    model_config = ConfigDict(extra="forbid")
    text: str | None = None
    image: Annotated[str, Field(json_schema_extra=PICTURE)] | None = Field(
        None, description="data:image/jpeg;base64,..., or bare base64"
    )
    images: list[Annotated[str, Field(json_schema_extra=PICTURE)]] = Field(
        default_factory=list, max_length=MOST_MORE, description="more pictures of the same place; in JSON only"
    )
    avoid: list[Annotated[str, Field(max_length=1000)]] = Field(
        default_factory=list, max_length=MOST_MORE, description='what the place is not, as "the sea"; in JSON only'
    )
    model: ModelName = None


class SearchRequest(Query):
    """Which tiles of the gallery fit this picture or text."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": EXAMPLE_TEXT, "k": 5}]})
    k: int = Field(10, ge=1, le=1000)


class LocateRequest(Query):
    """Where this picture was taken, or where the described place is."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"image": EXAMPLE_URI, "k": 5}, {"text": EXAMPLE_TEXT, "format": "geojson"}]}
    )
    k: int = Field(10, ge=1, le=1000, description="tiles to retrieve")
    rerank: int = Field(0, ge=0, le=100, description="how many of them to re-rank; 0: none")
    both_orders: bool = Field(False, description="re-rank each pair twice, query first and tile first")
    pairwise: int = Field(
        0, ge=0, le=20, description="how many of the best re-ranked to compare two by two as well; 0: none"
    )
    generate: bool = Field(True, description="let the model generate a position (pictures only)")
    candidates: int = Field(1, ge=1, le=32, description="answers the model draws from one reading of the picture")
    prior: str | None = Field(
        None, max_length=100, description='"lat,lon,km": a place known from elsewhere, right in four of five cases'
    )
    min_confidence: float = Field(0.0, ge=0, le=1, description="below it the position is withheld")
    format: Literal["json", "geojson"] | None = Field(None, description="None: as the Accept header says")


class Place(BaseModel):
    """A point, in degrees."""

    lat: float
    lon: float


class Tile(BaseModel):
    """A tile of the gallery that fits."""

    id: str
    position: Place
    score: float = Field(description="cosine similarity")
    rerank_score: float | None = Field(None, description="p(yes), where re-ranked")
    thumbnail: str = Field(description="address of the tile's picture on this server")


_TILE: dict[str, Any] = {
    "id": "test-00005",
    "position": {"lat": 48.1, "lon": 11.6},
    "score": 0.731,
    "rerank_score": None,
    "thumbnail": "/v1/gallery/test-00005/thumbnail",
}


class SearchAnswer(BaseModel):
    """Tiles, best first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "pocket-int8",
                    "gallery": "planet-pocket-int8",
                    "hits": [_TILE],
                    "timings_ms": {"wait": 0.1, "embed": 0.8, "search": 0.2, "total": 1.3},
                }
            ]
        }
    )
    model: str
    gallery: str
    hits: list[Tile]
    timings_ms: dict[str, float]


class Candidate(BaseModel):
    """One thing the model wrote."""

    text: str
    position: Place | None
    logprob: float
    phrasing: int


class LocateEvidence(BaseModel):
    """Where an answer comes from."""

    decided: str
    rule: str
    candidates: list[float] = Field(description="weight of each candidate")
    tiles: list[float] = Field(description="weight of each tile that was weighed, best first")
    prior_pull: float = Field(description="how far the prior moved the answer, 0 to 1")
    spread_km: float | None
    agreement: float | None = Field(description="share of the candidates within 750 km of their centre")
    proposals: dict[str, Place] = Field(description="what each part would have answered alone")


class LocateAnswer(BaseModel):
    """The answer; `position` is null where neither generation nor retrieval gave one."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "pocket-int8",
                    "position": {"lat": 48.2, "lon": 11.4},
                    "source": "fusion",
                    "radius_km": 610.0,
                    "radii_km": {"0.5": 240.0, "0.8": 610.0, "0.95": 1900.0},
                    "confidence": 0.84,
                    "calibration": "fit",
                    "abstained": False,
                    "warnings": [],
                    "text": "<answer>48.2, 11.4</answer>",
                    "generated": {"lat": 48.2, "lon": 11.4},
                    "candidates": [
                        {
                            "text": "<answer>48.2, 11.4</answer>",
                            "position": {"lat": 48.2, "lon": 11.4},
                            "logprob": -3.1,
                            "phrasing": 0,
                        }
                    ],
                    "evidence": None,
                    "hits": [_TILE],
                    "timings_ms": {"wait": 0.1, "decode": 1.9, "vision": 2.4, "generate": 5.2, "total": 11.0},
                }
            ]
        }
    )
    model: str
    position: Place | None
    source: Literal["generation", "fusion", "retrieval", "prior", "none"]
    radius_km: float | None = Field(None, description="holds the place with 80 %; null where nothing was fitted")
    radii_km: dict[str, float] = Field(default_factory=dict, description="share of such answers -> radius")
    confidence: float | None = Field(None, description="share of such answers within 750 km")
    calibration: Literal["fit", "prior"] | None = None
    abstained: bool = Field(False, description="a position was withheld, its confidence below min_confidence")
    warnings: list[str] = Field(default_factory=list)
    text: str | None = Field(None, description="what the model wrote, null if it was not asked")
    generated: Place | None = Field(None, description="the position in that text")
    candidates: list[Candidate] = Field(default_factory=list)
    evidence: LocateEvidence | None = None
    hits: list[Tile]
    timings_ms: dict[str, float]


class Point(BaseModel):
    """GeoJSON's point."""

    type: Literal["Point"]
    coordinates: list[float] = Field(min_length=2, max_length=2, description="longitude, latitude")


class Feature(BaseModel):
    """The answer, a candidate of it, or a tile: `properties.role` is answer, candidate or hit."""

    type: Literal["Feature"]
    geometry: Point
    properties: dict[str, Any]


class FeatureCollection(BaseModel):
    """RFC 7946: the answer first (if there is one), then candidates and tiles by rank."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "FeatureCollection",
                    "features": [
                        {
                            "type": "Feature",
                            "geometry": {"type": "Point", "coordinates": [11.4, 48.2]},
                            "properties": {"role": "answer", "source": "fusion", "radius_km": 610.0},
                        }
                    ],
                }
            ]
        }
    )
    type: Literal["FeatureCollection"]
    features: list[Feature]
