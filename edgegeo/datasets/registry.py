"""Every data set by name: opening one, and telling which one a folder holds."""

import inspect
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgegeo.datasets import captions, cvg, geotext, gps, mmeb, planet_places, sharegpt, university
from edgegeo.datasets.form import Form
from edgegeo.datasets.reader import Reader, seen
from edgegeo.datasets.sets import Loaded, open_picture
from edgegeo.errors import ImageError, InputError

PLANET = "planet"
CATCH_ALL = ("karpathy", "gps-csv", "photos")
"""Formats that others are special cases of: named only where nothing else fits."""


@dataclass(frozen=True)
class Found:
    """One format that a folder's content speaks for."""

    name: str
    evidence: str


def forms() -> dict[str, Form]:
    """Every known format by name, in the order they are listed."""
    modules = (geotext, cvg, university, captions, mmeb, gps, sharegpt, planet_places)
    return {form.name: form for module in modules for form in module.FORMS}


def open_dataset(
    name: str,
    root: str | Path | None = None,
    split: str | None = None,
    *,
    strict: bool = False,
    check_images: bool = False,
    threads: int = 8,
    **options: Any,
) -> Loaded:
    """Read one split of a data set; "auto" recognises it by its files.

    Every row is kept or refused with a reason, see `.report`; strict makes any refusal an InputError. Pictures are
    only looked for, and opened when used; check_images decodes each of them once, in threads, and refuses rows of
    damaged ones. Further options are the loader's own, see its docstring. Warnings of the report are also raised as
    Python warnings. InputError for an unknown name, split or option, for files of another form, and if no row is left.
    """
    form = form_named(name, root)
    chosen = form.splits[-1] if split is None else split
    if chosen not in form.splits:
        raise InputError(f"{form.name} has the splits {', '.join(form.splits)}, not {chosen!r}")
    _check_options(form, options)
    if root is None and form.name != PLANET:
        raise InputError(f"{form.name} needs its folder: {form.layout}")
    loaded = form.load(Reader(form.name, root, chosen), **options)
    if check_images:
        damaged = damaged_pictures(loaded.pictures(), threads)
        if damaged:
            loaded = form.load(Reader(form.name, root, chosen, damaged), **options)
    report = loaded.report
    if report.kept == 0:
        why = report.summary() or f"the {chosen} split is empty"
        raise InputError(f"no row of {form.name} in {report.root} can be used: {why}. Expected: {form.layout}")
    if strict and report.refused:
        raise InputError(f"{report.refused_count} of {report.read} rows of {form.name} refused: {report.summary()}")
    for text in report.warnings:
        warnings.warn(text, stacklevel=2)
    return loaded


def form_named(name: str, root: str | Path | None = None) -> Form:
    """The format of a name; "auto" is the only one that `detect` finds in `root`."""
    known = forms()
    if name == "auto":
        if root is None:
            raise InputError("a data set is recognised by its folder; give one")
        found = detect(root)
        if len(found) > 1:
            told = ", ".join(f"{one.name} ({one.evidence})" for one in found)
            raise InputError(f"{root} could be {told}; say which")
        return known[found[0].name]
    if name not in known:
        raise InputError(f"no data set {name!r}; edgegeo knows {', '.join(known)} (edgegeo data list)")
    return known[name]


def detect(root: str | Path) -> list[Found]:
    """Which formats a folder (or file) speaks for, and by what; InputError, saying what it holds, if none."""
    path = Path(root).expanduser()
    if not path.exists():
        raise InputError(f"nothing at {path}; check the path")
    found = []
    for form in forms().values():
        evidence = form.recognise(path)
        if evidence:
            found.append(Found(form.name, evidence))
    special = [one for one in found if one.name not in CATCH_ALL]
    if not found:
        held = seen(path) if path.is_dir() else path.name
        layouts = "; ".join(f"{form.name}: {form.layout}" for form in forms().values() if form.name != PLANET)
        raise InputError(f"{path} holds no data set edgegeo knows, but {held}. Expected one of: {layouts}")
    return special or found[:1]


def damaged_pictures(pictures: Iterable[Path], threads: int = 8) -> dict[Path, str]:
    """The pictures that can't be decoded whole, with the reason."""

    def fault(path: Path) -> str | None:
        try:
            open_picture(path)
        except ImageError as error:
            return str(error).replace(f"{path} ", "").replace(str(path), path.name)
        return None

    paths = sorted(pictures)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        return {path: why for path, why in zip(paths, pool.map(fault, paths), strict=True) if why}


def _check_options(form: Form, options: dict[str, Any]) -> None:
    known = [p.name for p in inspect.signature(form.load).parameters.values() if p.kind is p.KEYWORD_ONLY]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise InputError(f"{form.name} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
