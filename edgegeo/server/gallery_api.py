"""/v1/gallery and /v1/admin: what the gallery holds, tiles added and deleted, bundles opened anew.

Whatever changes something needs the administrator's key, which the guard asks for (edgegeo/server/guard.py).
"""

from dataclasses import asdict
from typing import Annotated

import numpy as np
from anyio.to_thread import run_sync
from fastapi import APIRouter, Path, Query, Request, Security
from fastapi.security import APIKeyHeader
from numpy.typing import NDArray

from edgegeo.errors import GalleryBusyError
from edgegeo.runtime import Gallery, Row
from edgegeo.runtime.gallery_edit import AddReport, add_tiles, delete_tiles
from edgegeo.runtime.gallery_intake import IntakeSettings
from edgegeo.server.context import REFUSALS, Context
from edgegeo.server.faults import Refusal
from edgegeo.server.forms import TILES_FORM, SentTile, either, read_tiles
from edgegeo.server.guard import ADMIN_HEADER
from edgegeo.server.json_body import JsonRoute
from edgegeo.server.schemas import ErrorAnswer, GalleryFacts, ReloadAnswer, ReloadRequest, TilesAnswer, TilesRequest
from edgegeo.server.serving import Serving

BUSY = "the gallery is being changed by someone else; try again shortly"
EXISTS = "the gallery has a tile of this id; give it another, or send replace"
AS_SENT = IntakeSettings(duplicates="keep")
"""A tile that was sent under a name of its own is meant, whatever its picture."""
LAST = "this is the last tile, and a gallery can't be empty; add others first"

ModelParam = Annotated[str | None, Query(max_length=200, description="the bundle whose gallery is meant")]


def router(context: Context) -> APIRouter:
    """The routes, bound to one server's context."""
    conflict = {"model": ErrorAnswer, "description": "a tile of this id, the last tile, or another change going on"}
    routes = APIRouter(tags=["gallery"], responses={**REFUSALS, 409: conflict}, route_class=JsonRoute)
    # For the OpenAPI document; the guard has looked at the key before a request comes here.
    admin = [Security(APIKeyHeader(name=ADMIN_HEADER, scheme_name="administrator", auto_error=False))]

    @routes.get("/v1/gallery", summary="What the gallery holds")
    async def gallery(model: ModelParam = None) -> GalleryFacts:
        async with context.fleet.use(model) as serving:
            return await run_sync(facts, opened(serving))

    @routes.post(
        "/v1/gallery/tiles",
        summary="Add tiles to the gallery",
        dependencies=admin,
        openapi_extra=either(TilesRequest, TILES_FORM),
    )
    async def add(request: Request) -> TilesAnswer:
        body, tiles = await read_tiles(request, context.settings.max_inputs)
        async with context.fleet.use(body.model) as serving:
            report = await added(serving, context, tiles, body.replace)
        await context.fleet.refresh_gallery(body.model)
        return await _after(context, body.model, added=report.added, replaced=report.replaced)

    @routes.delete("/v1/gallery/tiles/{tile:path}", summary="Delete a tile of the gallery", dependencies=admin)
    async def delete(tile: Annotated[str, Path(max_length=200)], model: ModelParam = None) -> TilesAnswer:
        async with context.fleet.use(model) as serving:
            count = await deleted(serving, tile)
        await context.fleet.refresh_gallery(model)
        return await _after(context, model, deleted=count)

    @routes.post("/v1/admin/reload", summary="Open a bundle and its gallery from disk once more", dependencies=admin)
    async def reload(body: ReloadRequest) -> ReloadAnswer:
        return ReloadAnswer(**asdict(await context.fleet.reload(body.model)))

    return routes


def facts(gallery: Gallery) -> GalleryFacts:
    """What a gallery holds; sorts its longitudes, so it does not belong on the event loop."""
    places = gallery.positions
    west, east = extent(places[:, 1])
    return GalleryFacts(
        name=gallery.path.name,
        bundle=gallery.info.bundle,
        tiles=len(gallery),
        version=gallery.version,
        dim=gallery.info.dim,
        dtype=gallery.info.dtype,
        skipped=len(gallery.skipped),
        bounds=[west, float(places[:, 0].min()), east, float(places[:, 0].max())],
    )


def opened(serving: Serving) -> Gallery:
    """The gallery; 404 where the bundle is served without one."""
    serving.engine.require_gallery()
    assert serving.engine.gallery is not None
    return serving.engine.gallery


def extent(longitudes: NDArray[np.float64]) -> tuple[float, float]:
    """West and east of the shortest arc that holds all longitudes, degrees (N,); over the antimeridian west > east."""
    order = np.sort(longitudes)
    gaps = np.diff(order, append=order[0] + 360.0)
    widest = int(gaps.argmax())
    return float(order[(widest + 1) % len(order)]), float(order[widest])


async def added(serving: Serving, context: Context, tiles: list[SentTile], replace: bool) -> AddReport:
    """Write tiles into the gallery on disk; Refusal and ImageError for a picture that can't be used, before any is."""
    engine = serving.engine
    engine.require("embed")
    gallery = opened(serving)
    if not replace:
        for i, tile in enumerate(tiles):
            if gallery.row(tile.id) is not None:
                raise Refusal(409, "tile_exists", f"tiles.{i}.id: {EXISTS}", f"tiles.{i}.id")
    for tile in tiles:
        async with serving.decoder.opened(tile.picture):
            pass
    rows = [Row(tile.id, tile.lat, tile.lon, tile.picture.data) for tile in tiles]
    assert engine.locator.embedder is not None
    try:
        report, _ = await context.fleet.scheduler.run(
            "add_tiles", add_tiles, gallery.path, rows, engine.locator.embedder, replace, AS_SENT
        )
    except GalleryBusyError:
        raise _busy() from None
    return report


async def deleted(serving: Serving, tile: str) -> int:
    """Delete a tile on disk; 404 for an unknown one."""
    gallery = opened(serving)
    if gallery.row(tile) is None:
        raise Refusal(404, "unknown_tile", "the gallery has no such tile")
    if len(gallery) == 1:
        raise Refusal(409, "last_tile", LAST)
    try:
        return await run_sync(delete_tiles, gallery.path, [tile])
    except GalleryBusyError:
        raise _busy() from None


def _busy() -> Refusal:
    return Refusal(409, "gallery_busy", BUSY, headers={"retry-after": "1"})


async def _after(
    context: Context, model: str | None, added: int = 0, replaced: int = 0, deleted: int = 0
) -> TilesAnswer:
    async with context.fleet.use(model) as serving:
        gallery = opened(serving)
        return TilesAnswer(
            gallery=gallery.path.name,
            added=added,
            replaced=replaced,
            deleted=deleted,
            tiles=len(gallery),
            version=gallery.version,
        )
