"""The app: routes, layers and the life of one server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.staticfiles import StaticFiles

import edgegeo
from edgegeo.server import chat_api, faults, gallery_api, models_api, places_api, state_api
from edgegeo.server.context import Context
from edgegeo.server.engine import Engine
from edgegeo.server.fleet import Fleet
from edgegeo.server.guard import Gate, HeadAsGet, HostCheck, KeyCheck, Porch
from edgegeo.server.life import Door, Life
from edgegeo.server.limits import Admission
from edgegeo.server.metrics import Metrics
from edgegeo.server.settings import ServerSettings

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

DESCRIPTION = """Where was this picture taken? Embeddings, re-ranking, search and positions from one small model.

Pictures are sent as data URIs or uploads; the server never fetches a URL. Errors come in OpenAI's envelope,
`{"error": {"message", "type", "param", "code"}}`, and `code` is stable. A server with an API key takes it as
`Authorization: Bearer KEY`; what changes the server needs `X-Admin-Key: KEY` as well."""


def create_app(
    engine: Engine, settings: ServerSettings, on_start: Callable[[], None] | None = None, early: bool = False
) -> FastAPI:
    """An ASGI app; `engine` is the first bundle of the settings, opened. `on_start` is called once it is warm.

    `early`: answer while the model warms up, with 503 where the model is needed; `Life.failure` then tells how it went.
    """
    admission = Admission(settings.queue_size, settings.per_client)
    metrics = Metrics(lambda: admission.in_hand)
    life = Life(metrics)
    context = Context(Fleet(engine, settings, metrics), settings, metrics, admission, life)
    app = FastAPI(
        title="edgegeo",
        version=edgegeo.__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect names the Host that the client sent
        lifespan=_lifespan(context, on_start, early),
        middleware=[
            Middleware(Porch, metrics=metrics),
            Middleware(Door, life=life, metrics=metrics),
            Middleware(HostCheck, names=(settings.host, *settings.allowed_hosts), metrics=metrics),
            Middleware(KeyCheck, key=settings.api_key, admin_key=settings.admin_key, metrics=metrics),
            Middleware(
                Gate,
                admission=admission,
                deadline_s=settings.deadline_s,
                max_body_bytes=settings.max_body_bytes,
                metrics=metrics,
            ),
            Middleware(HeadAsGet),
        ],
    )
    app.state.context = context
    faults.install(app)
    for routes in (
        models_api.router(context),
        chat_api.router(context),
        places_api.router(context),
        gallery_api.router(context),
        state_api.health_router(context),
        state_api.demo_router(context),
        state_api.page_router(),
    ):
        app.include_router(routes)
    app.mount("/page", StaticFiles(directory=state_api.PAGES), name="page")
    return app


def _lifespan(context: Context, on_start: Callable[[], None] | None, early: bool) -> Lifespan:
    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.create_task(_start(context, on_start))
        if early:
            starting.add_done_callback(context.life.started)
        else:
            await starting
        yield
        context.life.drain()
        starting.cancel()
        await context.fleet.close()

    return live


async def _start(context: Context, on_start: Callable[[], None] | None) -> None:
    """Warm up, and open."""
    await context.fleet.start()
    context.life.warm = True
    if on_start is not None:
        on_start()
