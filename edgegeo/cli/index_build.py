"""edgegeo index build: every tile of a source embedded once, here or by workers on a Ray cluster."""

import sys
from contextlib import ExitStack, closing, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgegeo.cli.flags import BatchFlag, BundleFlag, JsonFlag, ProviderFlag, ThreadsFlag, flag
from edgegeo.cli.index_edit import CodesFlag, DuplicatesFlag, RestartFlag, note_intake
from edgegeo.cli.index_source import (
    SOURCE_HELP,
    DataFlag,
    DataRootFlag,
    GroundFlag,
    KindFlag,
    OptionFlag,
    OverlapFlag,
    SourceRequest,
    SplitFlag,
    TmsFlag,
    ZoomFlag,
)
from edgegeo.cli.output import emit_json, megabytes, note, note_provider, progress_bar, say
from edgegeo.errors import InputError

if TYPE_CHECKING:
    from edgegeo.runtime import Embedder
    from edgegeo.runtime.gallery.build import BuildReport
    from edgegeo.runtime.gallery.rows import Tiles
    from edgegeo.runtime.gallery.workers import TileWorkers

OutputFlag = Annotated[
    Path | None,
    flag("--output", "-o", verb="index", help="Gallery folder to write.", show_default="under the data home"),
]
SourceArgument = Annotated[
    Path | None,
    typer.Argument(help=SOURCE_HELP, show_default="tiles of the demonstration planet", envvar="EDGEGEO_INDEX_SOURCE"),
]
PlacesFlag = Annotated[
    int, flag("--places", verb="index", help="Planet places, where no source is named.", min=1, max=1_000_000)
]
RayFlag = Annotated[
    str | None,
    flag("--ray", verb="index", help="Embed on a Ray cluster: its address, or local for workers on this machine."),
]
WorkersFlag = Annotated[
    int | None,
    flag("--workers", verb="index", help="Ray workers.", min=1, max=100_000, show_default="as many as have room"),
]


@dataclass(frozen=True)
class _Order:
    """How the tiles of a source become a gallery."""

    target: Path
    bundle: Path
    batch: int
    duplicates: str
    restart: bool
    threads: int | None
    provider: str
    ray: str | None
    workers: int | None
    codes: str


def build(
    source: SourceArgument = None,
    output: OutputFlag = None,
    kind: KindFlag = None,
    zoom: ZoomFlag = None,
    tms: TmsFlag = None,
    ground: GroundFlag = None,
    overlap: OverlapFlag = None,
    data: DataFlag = None,
    data_root: DataRootFlag = None,
    split: SplitFlag = None,
    option: OptionFlag = None,
    places: PlacesFlag = 1000,
    codes: CodesFlag = None,
    duplicates: DuplicatesFlag = "skip",
    restart: RestartFlag = False,
    ray: RayFlag = None,
    workers: WorkersFlag = None,
    bundle: BundleFlag = None,
    batch: BatchFlag = 16,
    threads: ThreadsFlag = None,
    provider: ProviderFlag = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Embed every tile of a source once; stopped in any way, the same command goes on where it was."""
    from edgegeo.home import default_gallery, find_bundle
    from edgegeo.measure import folder_bytes

    place = find_bundle(bundle)
    asked = SourceRequest(source, kind, zoom, tms, ground, overlap, data, data_root, split, option)
    asked.check()
    if asked.given and output is None:
        raise InputError("a gallery of your own tiles needs a place: add -o FOLDER")
    if workers is not None and ray is None:
        raise InputError("--workers goes with --ray; processor threads are --threads")
    target = output or default_gallery(place)
    order = _Order(target, place, batch, duplicates, restart, threads, provider, ray, workers, codes or "float32")
    embedder, report = _run(order, asked, places)
    tiles, size = report.gallery, folder_bytes(target)
    note_intake(tiles.skipped, report.resumed, report.changed)
    if as_json:
        emit_json(
            {
                "gallery": str(target),
                "version": tiles.version,
                "tiles": len(tiles),
                "resumed": report.resumed,
                "skipped": tiles.skipped,
                "bytes": size,
                "embedding_id": embedder.embedding_id,
            }
        )
        return
    say(f"gallery {target}: {len(tiles):,} tiles, {len(tiles.skipped):,} skipped, {megabytes(size)}, read back")


def _run(order: _Order, asked: SourceRequest, places: int) -> "tuple[Embedder, BuildReport]":
    from edgegeo.runtime import Embedder
    from edgegeo.runtime.gallery.build import build_gallery
    from edgegeo.runtime.gallery.compact import Layout
    from edgegeo.runtime.gallery.intake import IntakeSettings

    layout = Layout(order.codes)
    settings = IntakeSettings(
        batch=order.batch, duplicates=order.duplicates, dtype=layout.dtype, codes=order.codes if layout.coded else ""
    )
    embedder = Embedder.open(order.bundle, threads=order.threads, provider=order.provider)
    note_provider(order.provider, embedder.model.provider)
    rows = asked.open() if asked.given else _planet(places)
    with ExitStack() as stack:
        if order.ray is not None:
            stack.enter_context(redirect_stdout(sys.stderr))  # Ray prints there when a worker ends
        workers = None if order.ray is None else stack.enter_context(closing(_ray(order, embedder, order.ray)))
        progress = stack.enter_context(progress_bar())
        report = build_gallery(
            order.target, rows, embedder, progress=progress, settings=settings, restart=order.restart, workers=workers
        )
    return embedder, report


def _ray(order: _Order, embedder: "Embedder", address: str) -> "TileWorkers":
    from edgegeo.runtime.gallery.ray_workers import RayWorkers

    workers = RayWorkers(embedder, address, order.workers, order.threads)
    note(f"{workers.count} Ray workers on {workers.nodes} {'node' if workers.nodes == 1 else 'nodes'}")
    return workers


def _planet(places: int) -> "Tiles":
    from edgegeo.planet import Planet
    from edgegeo.runtime.gallery.sources import planet_places

    return planet_places(Planet(), n=places)
