"""Cells: one setting of one model each, complete, so that a process that gets one needs nothing else."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from edgegeo.bench.definition import Axes, Measuring, Sweep
from edgegeo.bench.machine import versions
from edgegeo.bundle import Bundle
from edgegeo.errors import InputError
from edgegeo.measure import machine

AS_IS = -1
"""The power mode that the machine happens to be in."""
_AXES_OF_JOB = {
    "embed_text": ("batch", "dims"),
    "embed_image": ("batch", "dims"),
    "search": ("batch", "dims"),
    "rerank": ("rerank",),
    "generate": ("batch", "candidates"),
    "locate": ("rerank", "candidates"),
}
_NEUTRAL = {"batch": 1, "dims": 0, "rerank": 0, "candidates": 1}


@dataclass(frozen=True)
class Subject:
    """One bundle under test, what its rows call it, and how it was made where that is known."""

    label: str
    bundle: Bundle
    recipe: dict[str, Any] | None = None
    """The recipe as plain data; None for a bundle that was named."""
    checkpoint: str | None = None
    """As `edgegeo export` takes it; None: the packaged model, or not known."""
    method: str | None = None
    """As `edgegeo export --method` takes it."""


@dataclass(frozen=True)
class Cell:
    """One measurement."""

    bundle: str
    fingerprint: str
    label: str
    job: str
    batch: int
    threads: int
    """0: the runtime's own choice."""
    provider: str
    dims: int
    """0: all."""
    rerank: int
    candidates: int
    power_mode: int
    places: int
    count: int
    """Photos and texts to go through."""
    warmup: int
    target: float
    seconds: float
    min_repeats: int
    max_repeats: int
    inputs: str
    """Folder of the photos and texts, see `edgegeo.bench.inputs`."""
    gallery: str

    def key(self) -> str:
        """Identifies the measurement: equal keys mean that measuring again would say nothing new.

        Folders are left out, since the bundle's fingerprint says what is in them; the machine, the versions and the
        sources that were measured with are in.
        """
        facts = asdict(self)
        for place in ("bundle", "inputs", "gallery"):
            del facts[place]
        text = json.dumps([facts, machine(), versions()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]


def expand(subjects: Sequence[Subject], sweep: Sweep, folder: Path) -> list[Cell]:
    """Every cell of the sweep, in reading order; jobs that a bundle does not offer are left out."""
    measure = sweep.measure
    named = ("places", "warmup", "target", "seconds", "min_repeats", "max_repeats")
    how = {name: getattr(measure, name) for name in named}
    cells = [
        Cell(
            bundle=str(subject.bundle.path.absolute()), fingerprint=subject.bundle.fingerprint, label=subject.label,
            inputs=str((folder / "inputs").absolute()), gallery=str(_gallery(folder, subject, setting, measure)),
            count=max(measure.inputs, setting["batch"]), **setting, **how,
        )
        for subject in subjects
        for setting in _settings(subject.bundle, sweep.cells)
    ]  # fmt: skip
    if not cells:
        raise InputError("the sweep has no cell: its jobs, re-rank depths and bundles don't fit together")
    return cells


def _settings(bundle: Bundle, axes: Axes) -> Iterator[dict[str, Any]]:
    """The axes of each cell of one bundle, none twice."""
    for job in axes.jobs:
        if not _offers(bundle, job):
            continue
        lists = {name: getattr(axes, name) or (_NEUTRAL[name],) for name in _AXES_OF_JOB[job]}
        if "dims" in lists:
            lists["dims"] = _dims(bundle, lists["dims"])
        for values in product(*lists.values()):
            own = {**_NEUTRAL, **dict(zip(lists, values, strict=True))}
            if (job == "rerank" and own["rerank"] == 0) or (own["batch"] > 1 and own["candidates"] > 1):
                continue
            if own["rerank"] and bundle.manifest.roles.rerank is None:
                continue
            for threads, provider, mode in product(axes.threads or (0,), axes.provider, axes.power_mode or (AS_IS,)):
                yield {"job": job, **own, "threads": threads, "provider": provider, "power_mode": mode}


def _gallery(folder: Path, subject: Subject, setting: dict[str, Any], measure: Measuring) -> Path:
    size = f"-{setting['dims']}d" if setting["dims"] else ""
    return (folder / "galleries" / f"{subject.bundle.fingerprint[:16]}-{measure.places}{size}").absolute()


def _dims(bundle: Bundle, asked: Sequence[int]) -> tuple[int, ...]:
    """Lengths of embeddings, the whole as 0; InputError for one that the bundle was not trained for."""
    from edgegeo.runtime.embed import check_dims

    role = bundle.manifest.roles.embed
    if role is None:
        return (0,)
    for size in asked:
        if size:
            check_dims(size, role)
    return tuple(dict.fromkeys(0 if size == role.dim else size for size in asked))


def _offers(bundle: Bundle, job: str) -> bool:
    roles = bundle.manifest.roles
    needed = {"generate": (roles.generate,), "locate": (roles.embed, roles.generate)}
    return all(role is not None for role in needed.get(job, (roles.embed,)))
