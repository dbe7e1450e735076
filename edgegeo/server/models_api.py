"""/v1/embeddings, /v1/rerank and /v1/models: the shapes that OpenAI's and Jina's clients speak."""

import base64
import uuid

from fastapi import APIRouter

from edgegeo.server.context import REFUSALS, Context
from edgegeo.server.engine import Engine
from edgegeo.server.faults import Refusal
from edgegeo.server.inputs import Floats, Upload, read_part, read_picture
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
    RerankRequest,
    RerankResult,
    TextPart,
    Usage,
)
from edgegeo.server.serving import Serving


def router(context: Context) -> APIRouter:
    """The routes, bound to one server's context."""
    routes = APIRouter(tags=["models"], responses=REFUSALS)

    @routes.get("/v1/models", summary="The bundle being served")
    async def models() -> ModelList:
        cards = context.fleet.cards()
        return ModelList(data=[ModelCard(id=card.name, owned_by=card.family, roles=list(card.roles)) for card in cards])

    @routes.post("/v1/embeddings", summary="Embed texts and pictures")
    async def embeddings(body: EmbeddingsRequest) -> EmbeddingsAnswer:
        async with context.fleet.use() as serving:
            return await embed(serving, body, context.settings.max_inputs)

    @routes.post("/v1/rerank", summary="Score pictures against a text or a picture")
    async def rerank(body: RerankRequest) -> RerankAnswer:
        async with context.fleet.use() as serving:
            return await score(serving, body, context.settings.max_inputs)

    return routes


async def embed(serving: Serving, body: EmbeddingsRequest, most: int) -> EmbeddingsAnswer:
    """Unit vectors of every input, in the order of the request."""
    engine = serving.engine
    engine.require("embed")
    if body.dimensions not in (None, engine.dim):
        raise Refusal(422, "invalid_input", f"dimensions: this model gives {engine.dim} dimensions only", "dimensions")
    items = [body.input] if isinstance(body.input, str) else body.input
    check_count(len(items), most, "input")
    inputs = [read_part(item, f"input.{i}") for i, item in enumerate(items)]
    vectors, _ = await serving.embed(inputs)
    tokens = sum(engine.count_tokens(text) for text in inputs if isinstance(text, str))
    as_text = body.encoding_format == "base64"
    return EmbeddingsAnswer(
        model=body.model or engine.name,
        data=[Embedding(index=i, embedding=encode(v) if as_text else v.tolist()) for i, v in enumerate(vectors)],
        usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
    )


def encode(vector: Floats) -> str:
    """Base64 of little-endian float32, as OpenAI's clients decode it."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


async def score(serving: Serving, body: RerankRequest, most: int) -> RerankAnswer:
    """p(yes) of every document, best first."""
    engine = serving.engine
    engine.require("rerank")
    check_count(len(body.documents), most, "documents")
    part = read_part(body.query, "query") if not _is_picture(body.query) else read_picture(str(body.query), "query")
    sources = [read_document(engine, item, f"documents.{i}") for i, item in enumerate(body.documents)]
    scores, spent = await serving.rerank(part, sources)
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[: body.top_n]
    results = [
        RerankResult(
            index=i, relevance_score=scores[i], document=_shown(body.documents[i]) if body.return_documents else None
        )
        for i in order
    ]
    name = body.model or engine.name
    return RerankAnswer(id=f"rerank-{uuid.uuid4().hex}", model=name, results=results, timings_ms={"rerank": spent})


def read_document(engine: Engine, item: str | ImagePart | Content | GalleryTile, param: str) -> Upload:
    """The picture of a document; a string is a data URI or the id of a gallery tile."""
    if isinstance(item, GalleryTile) or (isinstance(item, str) and not _looks_like_address(item)):
        name = item if isinstance(item, str) else item.id
        picture = engine.thumbnail(name)
        if picture is None:
            message = f"{param}: neither a picture (image_url with a data URI) nor the id of a tile of the gallery"
            raise Refusal(422, "unknown_document", message, param)
        return Upload(picture, param)
    if isinstance(item, str):
        return read_picture(item, param)
    part = item if isinstance(item, ImagePart) else item.content[0]
    if isinstance(part, TextPart):
        message = f"{param}: documents are pictures; this model does not score one text against another"
        raise Refusal(422, "text_document", message, param)
    return read_picture(part.image_url.url, f"{param}.image_url.url")


def check_count(count: int, limit: int, param: str) -> None:
    """422 for none or too many."""
    if not 1 <= count <= limit:
        raise Refusal(422, "invalid_input", f"{param}: send between 1 and {limit} at once, not {count}", param)


def _looks_like_address(item: str) -> bool:
    return item.startswith("data:") or "://" in item[:40]


def _is_picture(item: object) -> bool:
    return isinstance(item, str) and item.startswith("data:image/")


def _shown(item: str | ImagePart | Content | GalleryTile) -> object:
    return item if isinstance(item, str) else item.model_dump()
