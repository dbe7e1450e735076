"""Health, metrics, the demo's map and examples, and the pages."""

from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter
from fastapi.responses import FileResponse, Response

import edgegeo
from edgegeo.server.context import REFUSALS, Context
from edgegeo.server.demo import Demo
from edgegeo.server.faults import Refusal
from edgegeo.server.schemas import Example, ExampleList, GalleryState, Place, Ready

PAGES = Path(__file__).parent / "page"
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
_FRESH = {"cache-control": "no-cache"}
_STEADY = {"cache-control": "private, max-age=3600"}
MAP = "/v1/map.png"


def _of(media_type: str) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI document: an answer that is a file."""
    kind = {} if media_type == "application/json" else {"type": "string"}
    return {200: {"description": "the file", "content": {media_type: {"schema": kind}}}}


PLANET_BASEMAP = "/v1/map.json"
EARTH_BASEMAP = "/page/earth.json"


def health_router(context: Context) -> APIRouter:
    """What orchestrators and Prometheus ask."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/health/live", summary="Whether the process answers")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @routes.get("/health/ready", summary="What is served, on which device", responses={503: REFUSALS[503]})
    async def ready() -> Ready:
        if (refusal := context.life.refusal()) is not None:
            raise refusal
        async with context.fleet.use() as serving:
            engine = serving.engine
        gallery, planet = engine.gallery, await context.demo()
        return Ready(
            version=edgegeo.__version__,
            bundle=engine.name,
            fingerprint=engine.fingerprint,
            precision=engine.precision,
            roles=engine.roles,
            provider=engine.providers,
            gallery=None if gallery is None else GalleryState(name=gallery.name, tiles=len(gallery)),
            map=MAP if planet else None,
            basemap=PLANET_BASEMAP if planet else EARTH_BASEMAP,
            examples=planet is not None,
        )

    @routes.get("/metrics", summary="Prometheus metrics", response_class=Response, responses=_of("text/plain"))
    async def metrics() -> Response:
        return Response(await run_sync(context.metrics.text), media_type=EXPOSITION)

    return routes


def demo_router(context: Context) -> APIRouter:
    """The demo planet's map and photos; 404 where another world is served."""
    routes = APIRouter(tags=["demo"], responses={code: REFUSALS[code] for code in (404, 422)})

    async def demo() -> Demo:
        if (found := await context.demo()) is None:
            raise Refusal(404, "no_demo", "what is being served is not of the demo planet")
        return found

    @routes.get(
        MAP,
        summary="World map of the demo planet, equirectangular",
        response_class=Response,
        responses=_of("image/png"),
    )
    async def map_png() -> Response:
        return Response(await run_sync((await demo()).map), media_type="image/png", headers=_STEADY)

    @routes.get(
        PLANET_BASEMAP,
        summary="Coastlines and borders of the demo planet",
        response_class=Response,
        responses=_of("application/json"),
    )
    async def map_json() -> Response:
        return Response(await run_sync((await demo()).basemap), media_type="application/json", headers=_STEADY)

    @routes.get("/v1/examples", summary="Photos of the demo planet whose place is known")
    async def examples() -> ExampleList:
        shown = await demo()
        places = await run_sync(shown.places)
        return ExampleList(
            data=[
                Example(
                    index=i,
                    photo=f"/v1/examples/{i}/photo.jpg",
                    truth=Place(lat=place.lat, lon=place.lon),
                    description=await run_sync(shown.description, i),
                )
                for i, place in enumerate(places)
            ]
        )

    @routes.get(
        "/v1/examples/{index}/photo.jpg",
        summary="An example's photo",
        response_class=Response,
        responses=_of("image/jpeg"),
    )
    async def photo(index: int) -> Response:
        shown = await demo()
        if not 0 <= index < len(await run_sync(shown.places)):
            raise Refusal(404, "unknown_example", "there is no such example; GET /v1/examples lists them")
        return Response(await run_sync(shown.photo, index), media_type="image/jpeg", headers=_STEADY)

    return routes


def page_router() -> APIRouter:
    """The two pages. Their scripts and styles are served below /page."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    async def page() -> FileResponse:
        return FileResponse(PAGES / "index.html", headers=_FRESH)

    @routes.get("/docs")
    async def docs() -> FileResponse:
        return FileResponse(PAGES / "docs.html", headers=_FRESH)

    return routes
