"""/v1/rerank and /v2/rerank: Jina's and Cohere's request and answer, with pictures among the documents."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgegeo.server.schemas.inputs import EXAMPLE_PART, EXAMPLE_TEXT, Body, Content, Many, ModelName, Part


class GalleryTile(Body):
    """A tile of the gallery being served."""

    model_config = ConfigDict(extra="forbid")
    id: str = Field(min_length=1, max_length=200)


class TextDocument(Body):
    """Cohere's document; what stands beside the text comes back untouched with `return_documents`."""

    model_config = ConfigDict(extra="allow")
    text: str


class RerankRequest(Body):
    """A query and documents, each a text or a picture. Fields of other services that change nothing are ignored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": EXAMPLE_TEXT,
                    "documents": [{"content": [EXAMPLE_PART]}, "Dry hills with a single road."],
                    "top_n": 1,
                },
                {
                    "query": {"content": [EXAMPLE_PART]},
                    "documents": [EXAMPLE_TEXT, "Dry hills with a single road."],
                    "return_documents": True,
                },
            ]
        }
    )
    query: str | Part | Content | GalleryTile = Field(
        description='a text, a picture as content part or data URI, or a tile of the gallery ({"id": ...})'
    )
    documents: Many[str | Part | Content | GalleryTile | TextDocument] = Field(
        min_length=1,
        description='texts (strings or {"text": ...}), pictures (content parts or data URIs), or tiles of the gallery '
        '({"id": ...})',
    )
    model: ModelName = None
    top_n: int | None = Field(None, ge=1, description="how many of the best are returned; null: all")
    return_documents: bool | None = False
    rank_fields: list[Literal["text"]] | None = None
    max_tokens_per_doc: None = Field(None, description="documents are never cut; one that is too long is refused")
    max_chunks_per_doc: None = Field(None, description="documents are never cut; one that is too long is refused")
    relevant_spans: None = Field(None, description="spans are not told")


class RerankResult(BaseModel):
    """One document's score."""

    index: int = Field(description="place of the document in the request")
    relevance_score: float = Field(
        ge=0, le=1, description="p(yes) / (p(yes) + p(no)) of the model asked whether the two show the same"
    )
    document: dict[str, Any] | None = Field(
        None, description='the document as it was sent (a string as {"text": ...}), with return_documents'
    )
    read_as: Literal["picture", "text_first", "text_second"] = Field(
        description="how the model read the pair. picture: query, then the picture, as it was trained. text_first: the "
        "document's text, then the query's picture, the same pair turned round. text_second: query and document are "
        "both texts, which no training showed it",
    )


class RerankMeta(BaseModel):
    """Which version of Cohere's API this answer has the form of."""

    api_version: dict[Literal["version"], Literal["1", "2"]]


class RerankUsage(BaseModel):
    """Jina's usage: tokens of query and documents as far as they are texts."""

    total_tokens: int


class RerankAnswer(BaseModel):
    """Jina's and Cohere's answer, best first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "rerank-5b1d60",
                    "model": "pocket-int8",
                    "results": [{"index": 0, "relevance_score": 0.83, "document": None, "read_as": "picture"}],
                    "meta": {"api_version": {"version": "2"}},
                    "usage": {"total_tokens": 24},
                    "timings_ms": {"rerank": 9.2},
                }
            ]
        }
    )
    id: str
    model: str
    results: list[RerankResult]
    meta: RerankMeta
    usage: RerankUsage
    timings_ms: dict[str, float]
