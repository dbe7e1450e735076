"""/v1/search, /v1/locate and the gallery's thumbnails: from a picture or words to places."""

from typing import Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from edgegeo.runtime import Hit, Reranking
from edgegeo.runtime.fusion import Prior
from edgegeo.server.context import REFUSALS, Context
from edgegeo.server.faults import Refusal
from edgegeo.server.forms import Sought, either, flat, read_query
from edgegeo.server.schemas import (
    FeatureCollection,
    LocateAnswer,
    LocateRequest,
    Place,
    SearchAnswer,
    SearchRequest,
    Tile,
)

GEOJSON = "application/geo+json"
_LOCATED: dict[str, Any] = {
    "description": "the answer; as GeoJSON where `format` or the Accept header asks for it",
    "content": {GEOJSON: {"schema": flat(FeatureCollection)}},
}
_JPEG: dict[str, Any] = {
    "description": "the picture",
    "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
}


def router(context: Context) -> APIRouter:
    """The routes, bound to one server's context."""
    routes = APIRouter(tags=["places"], responses=REFUSALS)

    @routes.post("/v1/search", summary="Tiles that fit a picture or a text", openapi_extra=either(SearchRequest))
    async def search(request: Request) -> SearchAnswer:
        body, sought = await read_query(request, SearchRequest)
        return await find(context, body, sought)

    @routes.post(
        "/v1/locate",
        summary="Where a picture was taken, or where a described place is",
        response_model=LocateAnswer,
        responses={200: _LOCATED},
        openapi_extra=either(LocateRequest),
    )
    async def locate(request: Request, format: Literal["json", "geojson"] | None = None) -> Response:
        body, sought = await read_query(request, LocateRequest)
        wanted = format or body.format
        geojson = wanted == "geojson" or (wanted is None and GEOJSON in request.headers.get("accept", ""))
        return await answer(context, body, sought, geojson)

    @routes.get(
        "/v1/gallery/{tile:path}/thumbnail",
        summary="A tile's picture",
        response_class=Response,
        responses={200: _JPEG},
    )
    async def thumbnail(tile: str, model: str | None = None) -> Response:
        async with context.fleet.use(model) as serving:
            picture = serving.engine.thumbnail(tile)
        if picture is None:
            raise Refusal(404, "unknown_tile", "the gallery has no such tile")
        return Response(picture, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    return routes


async def find(context: Context, body: SearchRequest, sought: Sought) -> SearchAnswer:
    """The k nearest tiles."""
    async with context.fleet.use(body.model) as serving:
        engine = serving.engine
        engine.require("embed")
        gallery = engine.require_gallery()
        found, timings = await serving.find(sought.picture, sought.text, body.k, sought.also, sought.avoid)
    hits = [_tile(hit, body.model) for hit in found]
    return SearchAnswer(model=engine.name, gallery=gallery, hits=hits, timings_ms=timings)


async def answer(context: Context, body: LocateRequest, sought: Sought, geojson: bool) -> Response:
    """Position and tiles, as JSON or GeoJSON."""
    picture = sought.picture
    how = Reranking(body.rerank, body.both_orders, body.pairwise)
    prior = None if body.prior is None else Prior.parse(body.prior)
    async with context.fleet.use(body.model) as serving:
        engine = serving.engine
        if picture is None:
            engine.require("embed")
        if body.rerank:
            engine.require("rerank")
        if body.pairwise and not engine.compares:
            raise Refusal(404, "role_not_offered", "the bundle being served is not asked which of two tiles fits")
        if body.rerank or body.avoid or picture is None or not (body.generate and "generate" in engine.roles):
            engine.require_gallery()
        found, _ = await serving.locate(
            picture, sought.text, sought.also, k=body.k, rerank=how, avoid=sought.avoid, generate=body.generate,
            candidates=body.candidates, prior=prior, min_confidence=body.min_confidence,
        )  # fmt: skip
    if geojson:
        return JSONResponse(found.to_geojson(), media_type=GEOJSON)
    shown = {**found.to_dict(), "model": engine.name, "hits": [_tile(hit, body.model) for hit in found.hits]}
    return JSONResponse(LocateAnswer.model_validate(shown).model_dump())


def _tile(hit: Hit, model: str | None) -> Tile:
    of_model = f"?model={quote(model, safe='')}" if model else ""
    return Tile(
        id=hit.id,
        position=Place(lat=hit.position.lat, lon=hit.position.lon),
        score=hit.score,
        rerank_score=hit.rerank_score,
        thumbnail=f"/v1/gallery/{quote(hit.id, safe='')}/thumbnail{of_model}",
    )
