"""edgegeo index add, delete, stats, compact: a gallery after it was built."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgegeo.cli.flags import BatchFlag, BundleFlag, GalleryFlag, JsonFlag, ProviderFlag, ThreadsFlag, flag
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
from edgegeo.cli.output import emit_json, megabytes, note, note_provider, progress_bar, say, table
from edgegeo.cli.regions import WithinFlag, region_of
from edgegeo.errors import InputError

if TYPE_CHECKING:
    from edgegeo.runtime.gallery.rows import Skipped

DuplicatesFlag = Annotated[
    str,
    flag(
        "--duplicates",
        verb="index",
        help="Pictures whose bytes came before: skip (at the same place; others are kept), skip-anywhere, or keep.",
    ),
]
CodesFlag = Annotated[
    str | None,
    flag(
        "--codes", verb="index", show_default="what they are, float32 at first",
        help="What a search scans: float32, float16, or int8 or binary codes with float16 rows on disk for the scores.",
    ),
]  # fmt: skip
RestartFlag = Annotated[
    bool, flag("--restart", verb="index", help="Drop what an interrupted run had embedded, and begin again.")
]


def add(
    source: Annotated[
        Path | None, typer.Argument(help=SOURCE_HELP, show_default=False, envvar="EDGEGEO_INDEX_ADD_SOURCE")
    ] = None,
    kind: KindFlag = None,
    zoom: ZoomFlag = None,
    tms: TmsFlag = None,
    ground: GroundFlag = None,
    overlap: OverlapFlag = None,
    data: DataFlag = None,
    data_root: DataRootFlag = None,
    split: SplitFlag = None,
    option: OptionFlag = None,
    replace: Annotated[
        bool, flag("--replace", verb="index", help="Tiles take the place of those with the same id.")
    ] = False,
    duplicates: DuplicatesFlag = "skip",
    restart: RestartFlag = False,
    bundle: BundleFlag = None,
    gallery: GalleryFlag = None,
    batch: BatchFlag = 16,
    threads: ThreadsFlag = None,
    provider: ProviderFlag = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Embed more tiles into a gallery; all appear at once, when the last is done, to a server when it reloads."""
    from edgegeo.home import find_bundle
    from edgegeo.runtime import Embedder
    from edgegeo.runtime.gallery.edit import add_tiles
    from edgegeo.runtime.gallery.intake import IntakeSettings

    settings = IntakeSettings(batch=batch, duplicates=duplicates)
    target = _place(gallery, bundle)
    asked = SourceRequest(source, kind, zoom, tms, ground, overlap, data, data_root, split, option)
    asked.check()
    rows = asked.open()
    embedder = Embedder.open(find_bundle(bundle), threads=threads, provider=provider)
    note_provider(provider, embedder.model.provider)
    with progress_bar() as progress:
        report = add_tiles(target, rows, embedder, replace, settings, restart, progress)
    note_intake(report.skipped, report.resumed, report.changed)
    if as_json:
        emit_json({"gallery": str(target), **vars(report)})
        return
    replaced = f" ({report.replaced:,} of them replaced)" if report.replaced else ""
    say(
        f"gallery {target}: {report.added:,} tiles added{replaced}, {len(report.skipped):,} skipped, "
        f"version {report.version}"
    )


def delete(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of tiles.", show_default=False)] = None,
    within: WithinFlag = None,
    bundle: BundleFlag = None,
    gallery: GalleryFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Delete tiles, by id or by place, for a server when it reloads; `edgegeo index compact` gives back their space."""
    if bool(ids) == (within is not None):
        raise InputError("name the tiles to delete by their ids, or by --within LAT,LON,KM")
    from edgegeo.runtime import Gallery
    from edgegeo.runtime.gallery.edit import delete_tiles, ids_within

    target = _place(gallery, bundle)
    tiles = Gallery.open(target)
    region = region_of(within, None, None)
    if region is not None:
        chosen = ids_within(tiles, region)
    else:
        chosen = list(dict.fromkeys(ids or ()))
        unknown = [id for id in chosen if tiles.row(id) is None]
        if unknown:
            raise InputError(f"the gallery {target} has no tile {', '.join(map(repr, unknown[:5]))}; nothing deleted")
    count = delete_tiles(target, chosen)
    now = Gallery.open(target)
    if as_json:
        emit_json({"gallery": str(target), "deleted": count, "tiles": len(now), "version": now.version})
        return
    say(f"gallery {target}: {count:,} tiles deleted, {len(now):,} left, version {now.version}")


def stats(bundle: BundleFlag = None, gallery: GalleryFlag = None, as_json: JsonFlag = False) -> None:
    """What a gallery holds, after every file was checked against its hash."""
    from edgegeo.measure import folder_bytes
    from edgegeo.runtime import Gallery
    from edgegeo.runtime.gallery.compact import codes_of, scanned_bytes
    from edgegeo.runtime.gallery.writing import pending

    target = _place(gallery, bundle)
    tiles = Gallery.open(target, check_hashes=True)
    info, places = tiles.info, tiles.positions
    journal = pending(target, info)
    low, high = ([float(value) for value in corner] for corner in (places.min(axis=0), places.max(axis=0)))
    sources, size = [str(source) for source in info.sources], folder_bytes(target)
    stages = [stage for segment in info.segments for stage in segment.stages]
    facts: dict[str, object] = {
        "gallery": str(target),
        "version": info.version,
        "tiles": info.count,
        "deleted": info.stored - info.count,
        "segments": len(info.segments),
        "skipped": len(info.skipped),
        "unfinished": sum(segment.rows for segment in journal.segments) if journal else 0,
        "bundle": info.bundle,
        "dim": info.dim,
        "dtype": info.dtype,
        "codes": codes_of(info),
        "bytes_a_row_scanned": round(scanned_bytes(info) / info.stored, 1),
        "bytes_a_row_on_disk": round(size / info.stored, 1),
        "stages": [dataclasses.asdict(stage) for stage in stages],
        "sources": sources,
        "south_west": low,
        "north_east": high,
        "bytes": size,
    }
    if as_json:
        emit_json(facts)
        return
    corners = {"south_west": "{:.4f}, {:.4f}".format(*low), "north_east": "{:.4f}, {:.4f}".format(*high)}
    measured = "; ".join(f"{one.kind}: {one.recall:.3f} of the nearest, {one.candidates} rescored" for one in stages)
    shown = {**facts, **corners, "sources": ", ".join(sources), "bytes": megabytes(size), "stages": measured or "none"}
    table(("", ""), [(name.replace("_", " "), value) for name, value in shown.items()])


def compact(
    codes: CodesFlag = None,
    approximate: Annotated[
        bool | None,
        flag(
            "--approximate/--exact", verb="index", help="With codes: an approximate index besides, by FAISS.",
            show_default="from 200,000 tiles on",
        ),
    ] = None,
    bundle: BundleFlag = None,
    gallery: GalleryFlag = None,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Merge a gallery's segments, sort the tiles by place and give back deleted space; readers go on meanwhile."""
    from edgegeo.measure import folder_bytes
    from edgegeo.runtime import Gallery
    from edgegeo.runtime.gallery.compact import Layout, codes_of
    from edgegeo.runtime.gallery.compact import compact as merge

    target = _place(gallery, bundle)
    layout = Layout(codes or codes_of(Gallery.open(target).info), approximate)
    before = folder_bytes(target)
    with progress_bar() as progress:
        version = merge(target, layout, progress)
    after = folder_bytes(target)
    if as_json:
        emit_json({"gallery": str(target), "version": version, "bytes_before": before, "bytes": after})
        return
    say(f"gallery {target}: version {version}, {megabytes(before)} -> {megabytes(after)}")


def note_intake(skipped: "Iterable[Skipped]", resumed: int, changed: int) -> None:
    """Say what was left out and what was taken over."""
    for tile in skipped:
        note(f"skipped {tile.id}: {tile.reason}")
    if resumed:
        note(f"{resumed:,} tiles were embedded before the interruption and taken over")
    if changed:
        note(f"the source changed since: {changed:,} tiles embedded before the interruption are no longer in it so")


def _place(gallery: str | None, bundle: str | None) -> Path:
    from edgegeo.home import default_gallery, find_bundle
    from edgegeo.runtime.postgres.address import Address, is_address

    if is_address(gallery):
        raise InputError(
            f"{Address.parse(str(gallery)).shown} is a copy: change the gallery on disk, then push it again (edgegeo "
            "index push)"
        )
    return Path(gallery) if gallery else default_gallery(find_bundle(bundle))
