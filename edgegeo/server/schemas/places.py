"""/v1/search and /v1/locate: from a picture or words to places."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from edgegeo.server.schemas.inputs import EXAMPLE_TEXT, EXAMPLE_URI, Body, ModelName


class Query(Body):
    """A picture, a text, or both."""

    model_config = ConfigDict(extra="forbid")
    text: str | None = None
    image: str | None = Field(None, description="data:image/jpeg;base64,..., or bare base64")
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


class SearchAnswer(BaseModel):
    """Tiles, best first."""

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
