"""/v1/gallery and /v1/admin: what the gallery holds, tiles added and deleted, bundles opened anew.

Whatever changes something needs the administrator's key, which the guard asks for (edgegeo/server/guard.py).
"""

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, NamedTuple

import numpy as np
from anyio.to_thread import run_sync
from fastapi import APIRouter, Path, Query, Request, Security
from fastapi.security import APIKeyHeader
from numpy.typing import NDArray

from edgegeo.errors import GalleryBusyError
from edgegeo.runtime import Gallery, Row
from edgegeo.runtime.gallery.backend import GalleryBackend
from edgegeo.runtime.gallery.edit import add_tiles, delete_tiles
from edgegeo.runtime.gallery.intake import IntakeSettings
from edgegeo.server.context import REFUSALS, Context
from edgegeo.server.faults import Refusal, retry_after
from edgegeo.server.fleet import Fleet
from edgegeo.server.forms import TILES_FORM, SentTile, either, read_tiles
from edgegeo.server.guard import ADMIN_HEADER
from edgegeo.server.json_body import JsonRoute
from edgegeo.server.schemas import ErrorAnswer, GalleryFacts, ReloadAnswer, ReloadRequest, TilesAnswer, TilesRequest
from edgegeo.server.serving import Serving
from edgegeo.server.tasks import Tasks

BUSY = "the gallery is being changed by someone else; try again shortly"
ELSEWHERE = "the gallery is a copy in a database; change it where it was built, and push it again"
EXISTS = "the gallery has a tile of this id; give it another, or send replace"
AS_SENT = IntakeSettings(duplicates="keep")
"""A tile that was sent under a name of its own is meant, whatever its picture."""
THE_DEFAULT = ReloadRequest()
LAST = "this is the last tile, and a gallery can't be empty; add others first"

ModelParam = Annotated[str | None, Query(max_length=200, description="the bundle whose gallery is meant")]


def router(context: Context) -> APIRouter:
    """The routes, bound to one server's context."""
    conflict = {"model": ErrorAnswer, "description": "a tile of this id, the last tile, or another change going on"}
    routes = APIRouter(tags=["gallery"], responses={**REFUSALS, 409: conflict}, route_class=JsonRoute)
    # For the OpenAPI document; the guard has looked at the key before a request comes here.
    admin = [Security(APIKeyHeader(name=ADMIN_HEADER, scheme_name="administrator", auto_error=False))]

    edits = Edits(context.fleet)

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
            for tile in tiles:  # before any is added
                async with serving.decoder.opened(tile.picture):
                    pass
        return await edits.run(body.model, lambda serving: add_to(serving, tiles, body.replace))

    @routes.delete("/v1/gallery/tiles/{tile:path}", summary="Delete a tile of the gallery", dependencies=admin)
    async def delete(tile: Annotated[str, Path(max_length=200)], model: ModelParam = None) -> TilesAnswer:
        return await edits.run(model, lambda serving: delete_from(serving, tile))

    @routes.post("/v1/admin/reload", summary="Open a bundle and its gallery from disk once more", dependencies=admin)
    async def reload(body: ReloadRequest = THE_DEFAULT) -> ReloadAnswer:
        return ReloadAnswer(**asdict(await context.fleet.reload(body.model)))

    return routes


def facts(gallery: GalleryBackend) -> GalleryFacts:
    """What a gallery holds; sorts its longitudes, so it does not belong on the event loop."""
    places = gallery.positions
    west, east = extent(places[:, 1])
    return GalleryFacts(
        name=gallery.name,
        bundle=gallery.info.bundle,
        tiles=len(gallery),
        version=gallery.version,
        dim=gallery.info.dim,
        dtype=gallery.info.dtype,
        skipped=len(gallery.skipped),
        bounds=[west, float(places[:, 0].min()), east, float(places[:, 0].max())],
    )


def opened(serving: Serving) -> GalleryBackend:
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


class Change(NamedTuple):
    """What was changed in a gallery on disk."""

    added: int = 0
    replaced: int = 0
    deleted: int = 0


class Edits:
    """Changes of galleries, one after the other. For one event loop.

    A change that has begun goes on when its client leaves, so that what is served is always what lies on disk.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._turn = asyncio.Lock()
        self._tasks = Tasks()

    async def run(self, model: str | None, change: Callable[[Serving], Change]) -> TilesAnswer:
        """Make a change on a worker thread, serve the new version, and say what it holds."""
        return await self._tasks.run(self._changed(model, change))

    async def _changed(self, model: str | None, change: Callable[[Serving], Change]) -> TilesAnswer:
        async with self._turn:
            try:
                # What another process changed meanwhile counts too.
                await self._fleet.refresh_gallery(model)
                async with self._fleet.use(model) as serving:
                    # Not on the model thread: a hundred tiles would make everyone else wait.
                    made = await run_sync(change, serving)
            except GalleryBusyError:
                raise Refusal(409, "gallery_busy", BUSY, headers=retry_after()) from None
            await self._fleet.refresh_gallery(model)
            async with self._fleet.use(model) as serving:
                gallery = opened(serving)
                return TilesAnswer(gallery=gallery.name, tiles=len(gallery), version=gallery.version, **made._asdict())


def changeable(serving: Serving) -> Gallery:
    """The gallery that tiles are added to and deleted from; 409 for one that is a copy in a database."""
    gallery = opened(serving)
    if not isinstance(gallery, Gallery):
        raise Refusal(409, "gallery_elsewhere", ELSEWHERE)
    return gallery


def add_to(serving: Serving, tiles: list[SentTile], replace: bool) -> Change:
    """Write tiles into the gallery on disk; Refusal 409 for an id that it has, unless that is replaced."""
    serving.engine.require("embed")
    gallery, embedder = changeable(serving), serving.engine.locator.embedder
    assert embedder is not None
    for i, tile in enumerate(tiles):
        if not replace and gallery.row(tile.id) is not None:
            raise Refusal(409, "tile_exists", f"tiles.{i}.id: {EXISTS}", f"tiles.{i}.id")
    rows = [Row(tile.id, tile.lat, tile.lon, tile.picture.data) for tile in tiles]
    report = add_tiles(gallery.path, rows, embedder, replace, AS_SENT)
    return Change(added=report.added, replaced=report.replaced)


def delete_from(serving: Serving, tile: str) -> Change:
    """Delete a tile on disk; Refusal 404 for an unknown one, 409 for the last one."""
    gallery = changeable(serving)
    if gallery.row(tile) is None:
        raise Refusal(404, "unknown_tile", "the gallery has no such tile")
    if len(gallery) == 1:
        raise Refusal(409, "last_tile", LAST)
    return Change(deleted=delete_tiles(gallery.path, [tile]))
