"""/v1/search, /v1/locate and the gallery's thumbnails: from a picture or words to places."""

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from edgegeo.runtime import Hit
from edgegeo.runtime.fusion import Prior
from edgegeo.server.context import REFUSALS, Context
from edgegeo.server.faults import Refusal
from edgegeo.server.inputs import Upload, read_query
from edgegeo.server.schemas import LocateAnswer, LocateRequest, Place, SearchAnswer, SearchRequest, Tile

GEOJSON = "application/geo+json"


def router(context: Context) -> APIRouter:
    """The routes, bound to one server's context."""
    routes = APIRouter(tags=["places"], responses=REFUSALS)

    @routes.post("/v1/search", summary="Tiles that fit a picture or a text", openapi_extra=_body(SearchRequest))
    async def search(request: Request) -> SearchAnswer:
        body, text, picture = await read_query(request, SearchRequest)
        return await find(context, body, text, picture)

    @routes.post(
        "/v1/locate",
        summary="Where a picture was taken, or where a described place is",
        response_model=LocateAnswer,
        openapi_extra=_body(LocateRequest),
    )
    async def locate(request: Request) -> Response:
        body, text, picture = await read_query(request, LocateRequest)
        accepted = request.headers.get("accept", "")
        geojson = body.format == "geojson" or (body.format is None and GEOJSON in accepted)
        return await answer(context, body, text, picture, geojson)

    @routes.get("/v1/gallery/{tile:path}/thumbnail", summary="A tile's picture", response_class=Response)
    async def thumbnail(tile: str) -> Response:
        async with context.fleet.use() as serving:
            picture = serving.engine.thumbnail(tile)
        if picture is None:
            raise Refusal(404, "unknown_tile", "the gallery has no such tile")
        return Response(picture, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    return routes


async def find(context: Context, body: SearchRequest, text: str | None, picture: Upload | None) -> SearchAnswer:
    """The k nearest tiles."""
    async with context.fleet.use() as serving:
        engine = serving.engine
        engine.require("embed")
        gallery = engine.require_gallery()
        found, _ = await serving.locate(picture, text, k=body.k, generate=False)
    return SearchAnswer(
        model=engine.name, gallery=gallery, hits=[_tile(hit) for hit in found.hits], timings_ms=found.timings_ms
    )


async def answer(
    context: Context, body: LocateRequest, text: str | None, picture: Upload | None, geojson: bool
) -> Response:
    """Position and tiles, as JSON or GeoJSON."""
    async with context.fleet.use() as serving:
        engine = serving.engine
        if picture is None:
            engine.require("embed")
        if body.rerank:
            engine.require("rerank")
        if body.rerank or picture is None or not (body.generate and "generate" in engine.roles):
            engine.require_gallery()
        prior = None if body.prior is None else Prior.parse(body.prior)
        found, _ = await serving.locate(
            picture, text, k=body.k, rerank=body.rerank, generate=body.generate, candidates=body.candidates,
            prior=prior, min_confidence=body.min_confidence,
        )  # fmt: skip
    if geojson:
        return JSONResponse(found.to_geojson(), media_type=GEOJSON)
    shown = {**found.to_dict(), "model": engine.name, "hits": [_tile(hit) for hit in found.hits]}
    return JSONResponse(LocateAnswer.model_validate(shown).model_dump())


def _tile(hit: Hit) -> Tile:
    return Tile(
        id=hit.id,
        position=Place(lat=hit.position.lat, lon=hit.position.lon),
        score=hit.score,
        rerank_score=hit.rerank_score,
        thumbnail=f"/v1/gallery/{quote(hit.id, safe='')}/thumbnail",
    )


def _body(schema: type[SearchRequest] | type[LocateRequest]) -> dict[str, Any]:
    """The request body of the OpenAPI document: JSON, or the same fields as a form with the picture uploaded."""
    described = schema.model_json_schema()
    fields = {name: field for name, field in described["properties"].items() if name != "image"}
    fields["image"] = {"type": "string", "format": "binary", "description": "the picture's file (JPEG, PNG, WebP)"}
    form = {"type": "object", "properties": fields}
    content = {"application/json": {"schema": described}, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}
