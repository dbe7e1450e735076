"""/v1/models, /v1/embeddings, /v1/rerank, /v2/rerank: the shapes that OpenAI's, Jina's and Cohere's clients speak."""

import base64
import uuid
from typing import Any, Literal

from fastapi import APIRouter, Request

from edgegeo.server.context import REFUSALS, Context
from edgegeo.server.engine import Engine
from edgegeo.server.faults import Refusal
from edgegeo.server.fleet import NO_MODEL, Card
from edgegeo.server.forms import EMBEDDINGS_FORM, either, read_embeddings
from edgegeo.server.inputs import Document, Floats, Upload, check_count, read_document, read_part, read_picture
from edgegeo.server.json_body import JsonRoute
from edgegeo.server.schemas import (
    Content,
    Embedding,
    EmbeddingsAnswer,
    EmbeddingsRequest,
    GalleryTile,
    ImagePart,
    ModelCard,
    ModelList,
    RerankAnswer,
    RerankMeta,
    RerankRequest,
    RerankResult,
    RerankUsage,
    TextPart,
    Usage,
)
from edgegeo.server.serving import Serving


def router(context: Context) -> APIRouter:
    """The routes, bound to one server's context."""
    routes = APIRouter(tags=["models"], responses=REFUSALS, route_class=JsonRoute)
    most = context.settings.max_inputs

    @routes.get("/v1/models", summary="The bundles being served")
    async def models() -> ModelList:
        return ModelList(data=[_card(card) for card in context.fleet.cards()])

    @routes.get("/v1/models/{model}", summary="One bundle being served")
    async def model(model: str) -> ModelCard:
        for card in context.fleet.cards():
            if card.name == model:
                return _card(card)
        raise Refusal(404, "model_not_found", NO_MODEL, "model")

    @routes.post(
        "/v1/embeddings",
        summary="Embed texts and pictures",
        openapi_extra=either(EmbeddingsRequest, EMBEDDINGS_FORM),
    )
    async def embeddings(request: Request) -> EmbeddingsAnswer:
        body, inputs = await read_embeddings(request)
        check_count(len(inputs), most, "input")
        async with context.fleet.use(body.model) as serving:
            return await embed(serving, body, inputs)

    @routes.post("/v1/rerank", summary="Score texts and pictures against a text or a picture")
    async def rerank(body: RerankRequest) -> RerankAnswer:
        async with context.fleet.use(body.model) as serving:
            return await score(serving, body, most, "1")

    @routes.post("/v2/rerank", summary="The same at the address of Cohere's second version")
    async def rerank_v2(body: RerankRequest) -> RerankAnswer:
        async with context.fleet.use(body.model) as serving:
            return await score(serving, body, most, "2")

    return routes


def _card(card: Card) -> ModelCard:
    return ModelCard(id=card.name, owned_by=card.family, roles=list(card.roles), loaded=card.loaded)


async def embed(serving: Serving, body: EmbeddingsRequest, inputs: list[str | Upload]) -> EmbeddingsAnswer:
    """Unit vectors of every input, in the order of the request."""
    engine = serving.engine
    engine.require("embed")
    if body.dimensions not in (None, engine.dim):
        raise Refusal(422, "invalid_input", f"dimensions: this model gives {engine.dim} dimensions only", "dimensions")
    vectors, _ = await serving.embed(inputs)
    tokens = _tokens(engine, inputs)
    as_text = body.encoding_format == "base64"
    return EmbeddingsAnswer(
        model=engine.name,
        data=[Embedding(index=i, embedding=encode(v) if as_text else v.tolist()) for i, v in enumerate(vectors)],
        usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
    )


def encode(vector: Floats) -> str:
    """Base64 of little-endian float32, as OpenAI's clients decode it."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


async def score(serving: Serving, body: RerankRequest, most: int, version: Literal["1", "2"]) -> RerankAnswer:
    """p(yes) of every document, best first."""
    engine = serving.engine
    engine.require("rerank")
    check_count(len(body.documents), most, "documents")
    query = read_query_part(body.query, engine)
    documents = [read_document(item, engine.thumbnail, f"documents.{i}") for i, item in enumerate(body.documents)]
    scores, spent = await serving.rerank(query, documents)
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[: body.top_n]
    results = [
        RerankResult(
            index=i,
            relevance_score=scores[i],
            document=_shown(body.documents[i]) if body.return_documents else None,
            read_as=_read_as(query, documents[i]),
        )
        for i in order
    ]
    return RerankAnswer(
        id=f"rerank-{uuid.uuid4().hex}",
        model=engine.name,
        results=results,
        meta=RerankMeta(api_version={"version": version}),
        usage=RerankUsage(total_tokens=_tokens(engine, [query, *documents])),
        timings_ms={"rerank": spent},
    )


def read_query_part(query: str | TextPart | ImagePart | Content | GalleryTile, engine: Engine) -> str | Upload:
    """The text, the picture or the tile that asks; a string may also be the picture's data URI."""
    if isinstance(query, GalleryTile):
        return read_document(query, engine.thumbnail, "query")
    if isinstance(query, str) and query.startswith("data:image/"):
        return read_picture(query, "query")
    return read_part(query, "query")


def _read_as(query: str | Upload, document: str | Upload) -> Literal["picture", "text_first", "text_second"]:
    if not isinstance(document, str):
        return "picture"
    return "text_second" if isinstance(query, str) else "text_first"


def _tokens(engine: Engine, inputs: list[str | Upload]) -> int:
    return sum(engine.count_tokens(one) for one in inputs if isinstance(one, str))


def _shown(item: Document) -> dict[str, Any]:
    return {"text": item} if isinstance(item, str) else item.model_dump()
