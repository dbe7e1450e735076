"""edgegeo index: a gallery of geo-tagged tiles, built once, searched many times, changed when the world does."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgegeo.cli import index_build, index_edit, index_push
from edgegeo.cli.asking import AvoidFlag
from edgegeo.cli.flags import BundleFlag, GalleryFlag, JsonFlag, ProviderFlag, ThreadsFlag, flag
from edgegeo.cli.output import emit_json, note, note_provider, table
from edgegeo.cli.regions import BoxFlag, PolygonFlag, WithinFlag, region_of
from edgegeo.cli.texts import search_texts, tile_query
from edgegeo.errors import InputError

if TYPE_CHECKING:
    from edgegeo.runtime.gallery.backend import GalleryBackend
    from edgegeo.runtime.gallery.gallery import Hits


def group() -> typer.Typer:
    """The verbs under `edgegeo index`."""
    app = typer.Typer(help="Build a gallery of geo-tagged tiles, search it, or change it.")
    app.command("build")(index_build.build)
    app.command("search")(search)
    app.command("add")(index_edit.add)
    app.command("delete")(index_edit.delete)
    app.command("stats")(index_edit.stats)
    app.command("compact")(index_edit.compact)
    app.command("push")(index_push.push)
    app.info.no_args_is_help = True
    return app


def search(
    photo: Annotated[Path | None, typer.Argument(help="A picture to search with.")] = None,
    text: Annotated[str | None, flag("--text", verb="index", help="A description to search with.")] = None,
    tile: Annotated[str | None, flag("--tile", verb="index", help="A tile of the gallery to search with.")] = None,
    texts: Annotated[
        Path | None, flag("--texts", verb="index", help="Search these texts instead of tiles: a file, one a line.")
    ] = None,
    avoid: AvoidFlag = None,
    rerank: Annotated[
        int, flag("--rerank", verb="index", help="Best texts to look at again as pairs; 0: none.", min=0)
    ] = 0,
    within: WithinFlag = None,
    box: BoxFlag = None,
    polygon: PolygonFlag = None,
    k: Annotated[int, flag("-k", "--top", verb="index", help="Hits to return.", min=1, max=10_000)] = 10,
    bundle: BundleFlag = None,
    gallery: GalleryFlag = None,
    threads: ThreadsFlag = None,
    provider: ProviderFlag = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Find the tiles most similar to a photo, a description or another tile; or the texts that fit a picture."""
    _check(photo, text, tile, texts, avoid, rerank)
    region = region_of(within, box, polygon)
    if texts is not None and region is not None:
        raise InputError("texts have no place; leave out --within, --box and --polygon")
    from edgegeo.home import default_gallery, find_bundle
    from edgegeo.runtime import Embedder
    from edgegeo.runtime.gallery.backend import open_gallery
    from edgegeo.runtime.question import combined

    place = find_bundle(bundle)
    embedder = Embedder.open(place, threads=threads, provider=provider)
    note_provider(provider, embedder.model.provider)
    shown: Path | bytes | None = photo
    if texts is None or tile is not None:
        tiles = open_gallery(gallery or default_gallery(place), embedder.model.bundle)
    if tile is not None:
        query, shown = tile_query(tiles, tile)
    else:
        query = embedder.texts([text]) if text is not None else embedder.images([photo] if photo else [])
    if texts is not None:
        search_texts(texts, query, shown, embedder, k, rerank, as_json)
        return
    if avoid:
        query = combined(query, None, embedder.texts(avoid))
    _show(tiles, tiles.search(query, k, region), as_json)


def _show(tiles: "GalleryBackend", hits: "Hits", as_json: bool) -> None:
    found = [
        {"id": id, "lat": float(where[0]), "lon": float(where[1]), "score": float(score)}
        for id, where, score in zip(hits.ids[0], hits.positions[0], hits.scores[0], strict=True)
    ]
    if as_json:
        emit_json({"gallery": str(tiles), "tiles": len(tiles), "hits": found})
        return
    rows = [(hit["id"], f"{hit['lat']:.4f}", f"{hit['lon']:.4f}", f"{hit['score']:.3f}") for hit in found]
    table(("tile", "lat", "lon", "score"), rows)
    note(f"{len(tiles):,} tiles searched")


def _check(
    photo: Path | None, text: str | None, tile: str | None, texts: Path | None, avoid: list[str] | None, rerank: int
) -> None:
    """InputError for no query, more than one, or flags that don't go together."""
    if (photo is not None) + (text is not None) + (tile is not None) > 1:
        raise InputError(
            "search with one of a photo, --text and --tile, not both (edgegeo locate takes photo and text)"
        )
    if photo is None and text is None and tile is None:
        raise InputError("nothing to search with; name a photo, or give --text 'a description' or --tile ID")
    if texts is not None and (text is not None or avoid):
        raise InputError("--texts are searched with a photo or a --tile; leave out --text and --not")
    if rerank and texts is None:
        raise InputError("--rerank belongs to --texts here; edgegeo locate --rerank looks at tiles again")
