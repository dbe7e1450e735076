"""What the data home holds: room, rights, bundles and galleries."""

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from edgegeo.bundle import Bundle, open_bundle
from edgegeo.errors import BundleError, GalleryError
from edgegeo.field.finding import FAIL, OK, WARN, Finding
from edgegeo.home import default_gallery
from edgegeo.measure import folder_bytes

HASHED = 512 * 2**20
"""Bytes up to which everything is hashed; beyond, only on request: it would take longer than a doctor may."""
_LEAST_GB = 1.0


def examine_home(home: Path) -> Finding:
    """Whether there is room, and the right to write."""
    standing = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(standing).free / 2**30
    said = f"{home}, {free:.1f} GB free"
    if not standing.is_dir() or not os.access(standing, os.W_OK | os.X_OK):
        remedy = "edgegeo can read there, not write: set EDGEGEO_HOME to a folder of your own"
        return Finding("data home", WARN, f"{said}, not writable", remedy)
    if free < _LEAST_GB:
        return Finding("data home", WARN, said, "free some, or set EDGEGEO_HOME to a folder with room")
    return Finding("data home", OK, said)


def examine_holdings(home: Path, full: bool = False) -> Iterator[Finding]:
    """Every bundle and gallery under the home; `full`: hash all, whatever their size."""
    bundles = _listed(home / "bundles")
    galleries = _listed(home / "galleries")
    size = sum(map(folder_bytes, (*bundles, *galleries)))
    hashed = full or size <= HASHED
    opened = []
    if not bundles:
        remedy = "make one with: edgegeo export --int8, or copy one there"
        yield Finding("bundle", WARN, f"none under {home / 'bundles'}", remedy)
    for folder in bundles:
        finding, bundle = _bundle(folder, hashed)
        opened += [bundle] if bundle else []
        yield finding
    if find_spec("tokenizers") is None or find_spec("numpy") is None:
        return  # the line `runtime` says so
    if not galleries and bundles:
        yield Finding("gallery", WARN, f"none under {home / 'galleries'}", "make one with: edgegeo index build")
    for folder in galleries:
        yield _gallery(folder, opened, hashed)


def _listed(folder: Path) -> list[Path]:
    """Folders, those that are being written left out."""
    if not folder.is_dir():
        return []
    return sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))


def _bundle(folder: Path, hashed: bool) -> tuple[Finding, Bundle | None]:
    try:
        bundle = open_bundle(folder, check_hashes=hashed)
    except BundleError as error:
        return Finding("bundle", FAIL, str(error), f"export or copy it again, or remove {folder}"), None
    said = "every hash right" if hashed else f"every size right; hashes: edgegeo verify {folder.name}"
    return Finding("bundle", OK, f"{folder}, {bundle.bytes / 2**20:.1f} MB, {said}"), bundle


def _gallery(folder: Path, bundles: list[Bundle], hashed: bool) -> Finding:
    from edgegeo.runtime.gallery.gallery import Gallery

    try:
        gallery = Gallery.open(folder, check_hashes=hashed)
    except GalleryError as error:
        return Finding("gallery", FAIL, str(error), f"build it again with: edgegeo index build -o {folder}")
    said = f"{folder}, {len(gallery):,} tiles"
    owners = [bundle for bundle in bundles if _space(bundle) == gallery.info.embedding_id]
    # The gallery that a bundle is served with unasked has to be its own.
    usual = [bundle for bundle in bundles if default_gallery(bundle.path) == folder]
    if usual and not any(bundle in owners for bundle in usual):
        remedy = f"build it again with: edgegeo index build --bundle {usual[0].path} -o {folder}"
        return Finding("gallery", FAIL, f"{said}, not made by the bundle {usual[0].path.name}", remedy)
    if not owners:
        remedy = "copy that bundle here, or build the gallery again with one that is here"
        return Finding("gallery", WARN, f"{said}, made by {gallery.info.bundle}, which is not here", remedy)
    return Finding("gallery", OK, f"{said}, of {', '.join(bundle.path.name for bundle in owners)}")


def _space(bundle: Bundle) -> str | None:
    return bundle.embedding_id if bundle.manifest.roles.embed is not None else None
