"""Positions answered to the pictures of a data set: kilometres, GeoScore, and whether all get the same answer."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.datasets import GpsProtocol, GpsSample, GpsSet
from edgegeo.errors import InputError
from edgegeo.evaluate.doubt import COLLAPSED, collapse
from edgegeo.evaluate.section import Outcome, Result, Section, Unusable
from edgegeo.evaluate.stream import stream
from edgegeo.evaluate.subject import Said, Subject
from edgegeo.geo import EARTH_RADIUS_KM, distance_km
from edgegeo.progress import Progress, silent

Values = NDArray[np.float64]
SPOT_KM = 25.0
"""Answers this close are one spot: the city threshold of Im2GPS."""
GEOSCORE_KM = 1492.7
"""Kilometres over which a GeoScore falls to 1/e: GeoGuessr's world map, as PIGEON (arXiv 2307.05845) and
OpenStreetView-5M (arXiv 2404.18873) use it."""


def score_positions(
    subject: Subject, data: GpsSet, chosen: NDArray[np.int64] | None = None, threads: int | None = None,
    progress: Progress = silent,
) -> Result:  # fmt: skip
    """Ask for the position of every picture and score the answers; a missing answer or picture is a miss.

    chosen: rows of the samples to score, None for all. A set of several benchmarks gives a section for each, and one
    for all of them.
    """
    subject.check("generate")
    if not data.samples:
        raise InputError(f"{data.report.dataset} has no pictures to score")
    rows = range(len(data.samples)) if chosen is None else chosen.tolist()
    samples = [data.samples[row] for row in rows]
    said, faults = _asked(subject, samples, threads, progress)
    names = sorted({sample.benchmark for sample in samples})
    parts = [("", list(range(len(samples))))]
    if len(names) > 1:
        parts += [(name, [row for row, one in enumerate(samples) if one.benchmark == name]) for name in names]
    sections = []
    for protocol in data.protocols:
        for name, which in parts:
            those = [(samples[row], said[row], faults.get(row, "")) for row in which]
            sections.append(_section(protocol, name, those))
    unusable = tuple(Unusable(samples[row].id, "picture", why) for row, why in sorted(faults.items()))
    return Result(subject.name, subject.kind, subject.about("generate"), tuple(sections), unusable)


def geoscore(km: Any) -> Any:
    """5000 exp(-km / 1492.7), from 5000 on the spot to 0 for no answer (infinite km)."""
    return 5000.0 * np.exp(-np.asarray(km, np.float64) / GEOSCORE_KM)


def effective_spots(positions: Values) -> float:
    """How many spots the positions (N, 2) would fill evenly: exp of the entropy over cells of about 25 km (Hill 1973).

    1 where all are one spot, 0 for no position.
    """
    there = positions[np.isfinite(positions[:, 0])]
    if not len(there):
        return 0.0
    side = np.degrees(SPOT_KM / EARTH_RADIUS_KM)
    band = np.round(there[:, 0] / side)
    # Rings of equal cells: fewer around the poles, and the last joins the first at the antimeridian.
    ring = np.maximum(1, np.round(360 * np.cos(np.radians(np.clip(band * side, -90, 90))) / side))
    cell = np.round((there[:, 1] + 180) / 360 * ring) % ring
    _, counts = np.unique(np.stack([band, cell]), axis=1, return_counts=True)
    share = counts / counts.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def _asked(
    subject: Subject, samples: Sequence[GpsSample], threads: int | None, progress: Progress
) -> tuple[list[Said], dict[int, str]]:
    said: list[Said] = [("", None)] * len(samples)
    faults: dict[int, str] = {}
    done = 0
    for batch in stream([sample.image for sample in samples], subject.prepare, subject.batch, threads):
        faults |= batch.faults
        if batch.rows:
            for row, one in zip(batch.rows, subject.answers(batch.prepared), strict=True):
                said[row] = one
        done += batch.size
        progress("ask for positions", done, len(samples))
    return said, faults


def _section(protocol: GpsProtocol, benchmark: str, asked: Sequence[tuple[GpsSample, Said, str]]) -> Section:
    samples, said, faults = zip(*asked, strict=True)
    truth = np.array([(s.position.lat, s.position.lon) for s in samples], np.float64).reshape(-1, 2)
    answered = np.array([(p.lat, p.lon) if p else (np.nan, np.nan) for _, p in said], np.float64).reshape(-1, 2)
    km = np.asarray(distance_km(truth[:, 0], truth[:, 1], answered[:, 0], answered[:, 1]))
    km = np.where(np.isnan(km), np.inf, km)
    common, spot = collapse(answered)
    own = collapse(truth)[0]
    facts = {
        "unread_pictures": sum(map(bool, faults)),
        "commonest_spot": None if spot is None else {"lat": spot[0], "lon": spot[1]},
        "commonest_spot_of_the_truth": own,
        "distinct_answers": len({p for _, p in said if p}),
        "effective_spots": effective_spots(answered),
        "effective_spots_of_the_truth": effective_spots(truth),
        # Pictures of one city may well be answered with that city.
        "mode_collapse": bool(common >= COLLAPSED and common > 2 * own),
    }
    return Section(
        f"{protocol.name}, {benchmark}" if benchmark else protocol.name,
        "image to position",
        protocol.source,
        len(samples),
        None,
        tuple(_outcomes(protocol, km, answered, spot)),
        tuple(f"{s.benchmark}/{s.id}" for s in samples),
        facts,
        {
            "query": [s.id for s in samples],
            "benchmark": [s.benchmark for s in samples],
            "picture": [str(s.image) for s in samples],
            "lat": truth[:, 0].tolist(),
            "lon": truth[:, 1].tolist(),
            "answer": [text for text, _ in said],
            "answered_lat": [p.lat if p else "" for _, p in said],
            "answered_lon": [p.lon if p else "" for _, p in said],
            "error_km": [float(one) if np.isfinite(one) else "" for one in km],
            "geoscore": geoscore(km).tolist(),
            "unusable": list(faults),
        },
    )


def _outcomes(
    protocol: GpsProtocol, km: Values, answered: Values, spot: tuple[float, float] | None
) -> Iterator[Outcome]:
    for limit in protocol.within_km:
        yield Outcome(f"within_{limit:g}_km", "share", (km <= limit).astype(np.float64))
    if protocol.median_km:
        yield Outcome("median_km", "km", km, middle=True)
    yield Outcome("geoscore", "points", geoscore(km))
    yield Outcome("answered", "share", np.isfinite(km).astype(np.float64))
    near = np.asarray(distance_km(answered[:, 0], answered[:, 1], *(spot or (np.nan, np.nan))))
    yield Outcome("on_commonest_spot", "share", np.where(np.isnan(near), np.nan, (near <= SPOT_KM) * 1.0))
