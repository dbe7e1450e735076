"""Requests and answers of the API, as pydantic models; /docs is made from them.

Requests refuse what they don't know only where a misspelling would change the answer (`search`, `locate`); the
OpenAI- and Jina-shaped ones ignore unknown fields, because their clients send many.
"""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

EXAMPLE_URI = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAAK0lEQVR42u3NQQEAQAQAMC6m"
    "JOKIeiX4bQWWPRWXXhwTCAQCgUAgEAgEWz4UtwGyCxqxSQAAAABJRU5ErkJggg=="
)
EXAMPLE_TEXT = "A small village by a river, with red roofs and wheat fields."

Text = Annotated[str, Field(min_length=1, description="UTF-8 text, not empty")]


class ImageUrl(BaseModel):
    """A picture as a data URI; http(s) addresses are refused."""

    url: str = Field(description="data:image/jpeg;base64,... (or png, webp)")


class TextPart(BaseModel):
    """OpenAI's text content part."""

    type: Literal["text"]
    text: Text


class ImagePart(BaseModel):
    """OpenAI's image content part."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part: TypeAlias = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Content(BaseModel):
    """vLLM's form of one input or document: content parts, exactly one of them."""

    content: list[Part] = Field(min_length=1, max_length=1)


class GalleryTile(BaseModel):
    """A tile of the gallery being served."""

    id: str = Field(min_length=1, max_length=200)


class EmbeddingsRequest(BaseModel):
    """OpenAI's request, with pictures as content parts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "edgegeo", "input": EXAMPLE_TEXT},
                {
                    "model": "edgegeo",
                    "input": [{"type": "image_url", "image_url": {"url": EXAMPLE_URI}}],
                    "encoding_format": "base64",
                },
            ]
        }
    )
    input: str | list[str | Part | Content] = Field(description="one text, or a list of texts and content parts")
    model: str | None = Field(None, max_length=200, description="echoed; one bundle is served whatever it says")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, description="must be the model's own dimension where given")
    user: str | None = None


class Embedding(BaseModel):
    """One L2-normalised vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="floats, or base64 of little-endian float32")


class Usage(BaseModel):
    """Tokens of the texts, without prompt and image tokens."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """OpenAI's answer."""

    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: Usage


class RerankRequest(BaseModel):
    """Jina's and Cohere's request. Documents are pictures; a query is a text or a picture."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "edgegeo",
                    "query": EXAMPLE_TEXT,
                    "documents": [{"content": [{"type": "image_url", "image_url": {"url": EXAMPLE_URI}}]}],
                    "top_n": 1,
                }
            ]
        }
    )
    query: str | Part | Content
    documents: list[str | ImagePart | Content | GalleryTile] = Field(
        min_length=1, description='content parts, {"id": tile of the gallery}, or a string: a data URI or a tile id'
    )
    model: str | None = Field(None, max_length=200, description="echoed; one bundle is served whatever it says")
    top_n: int | None = Field(None, ge=1)
    return_documents: bool = False


class RerankResult(BaseModel):
    """One document's score."""

    index: int = Field(description="place of the document in the request")
    relevance_score: float = Field(description="p(yes) / (p(yes) + p(no)) of the model's answer")
    document: Any | None = Field(None, description="the document as it was sent, with return_documents")


class RerankAnswer(BaseModel):
    """Jina's answer, best first."""

    id: str
    model: str
    results: list[RerankResult]
    timings_ms: dict[str, float]


class Query(BaseModel):
    """A picture, a text, or both."""

    model_config = ConfigDict(extra="forbid")
    text: str | None = None
    image: str | None = Field(None, description="data:image/jpeg;base64,...")


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


class GalleryState(BaseModel):
    """The gallery being served."""

    name: str
    tiles: int
    map: str | None = Field(None, description="address of a world map to draw under it; null: draw a graticule")


class Ready(BaseModel):
    """What is being served, and on what."""

    status: Literal["ready"] = "ready"
    version: str
    bundle: str
    fingerprint: str
    precision: dict[str, str] = Field(description="component -> precision")
    roles: list[str]
    provider: list[str] = Field(description="execution providers really in use, as onnxruntime reports them")
    gallery: GalleryState | None
    basemap: str = Field(description="address of the coastlines and borders of the world that is located on")
    examples: bool = Field(description="whether /v1/examples has photos with known places")


class ModelCard(BaseModel):
    """OpenAI's model object, with the roles it offers."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str
    roles: list[str]


class ModelList(BaseModel):
    """OpenAI's list of models: the one bundle served."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Example(BaseModel):
    """A photo whose true place is known."""

    index: int
    photo: str
    truth: Place
    description: str


class ExampleList(BaseModel):
    """Photos of the demo planet from test places, which no training has seen."""

    data: list[Example]


class ErrorDetail(BaseModel):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorAnswer(BaseModel):
    """OpenAI's error envelope."""

    error: ErrorDetail
