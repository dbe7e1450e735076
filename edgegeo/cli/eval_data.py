"""edgegeo eval --data: a checkpoint, a bundle, or both, scored on a data set by its own protocols."""

import csv
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from edgegeo.cli.files import check_target, write_whole
from edgegeo.cli.flags import flag
from edgegeo.cli.output import hush_libraries, note, percent, progress_bar, say, table
from edgegeo.errors import InputError

if TYPE_CHECKING:
    from edgegeo.datasets.sets import Loaded
    from edgegeo.evaluate.bootstrap import Metric
    from edgegeo.evaluate.section import Result, Section
    from edgegeo.evaluate.subject import Subject

DataFlag = Annotated[
    str | None,
    flag("--data", verb="eval", help="A data set (edgegeo data list), or auto, instead of the planet's places."),
]
DataRootFlag = Annotated[Path | None, flag("--data-root", verb="eval", help="Folder of the data set.")]
OptionFlag = Annotated[
    list[str] | None, flag("--option", verb="eval", help="A loader's option as NAME=VALUE; may repeat.")
]
CheckpointFlag = Annotated[
    str | None,
    flag("--checkpoint", verb="eval", help="Score this folder, hub repository or pocket, beside --bundle if given."),
]
AdapterFlag = Annotated[
    str | None,
    flag("--adapter", verb="eval", help="Adapter folder, or none.", show_default="the checkpoint's own"),
]
LimitFlag = Annotated[int | None, flag("--limit", verb="eval", help="Score only so many queries, drawn.", min=1)]
SeedFlag = Annotated[int, flag("--seed", verb="eval", help="Which queries --limit draws.", min=0)]
JointFlag = Annotated[
    str, flag("--joint", verb="eval", help="Of items with text and picture embed: text, image, mean; or refuse.")
]
DetailsFlag = Annotated[
    Path | None, flag("--details", verb="eval", help="Write a row a query here (CSV): rank, error, answer.")
]
LABELS = {
    "average_precision": "AP", "mean_km": "mean deviation", "median_km": "median error", "geoscore": "mean GeoScore",
    "answered": "answered", "on_commonest_spot": "answers on the commonest spot",
}  # fmt: skip


@dataclass(frozen=True)
class DataRequest:
    """What is to be scored on what."""

    data: str
    root: Path | None
    split: str | None
    options: dict[str, Any]
    checkpoint: str | None
    adapter: str | None
    bundles: tuple[Path, ...]
    """The one that is scored, and the one it is compared with."""
    limit: int | None
    seed: int
    joint: str
    details: Path | None
    threads: int | None
    provider: str


def score(request: DataRequest) -> "tuple[dict[str, Any], list[Result]]":
    """Open everything, score, write the details; the document for JSON and the results, the one compared with first."""
    from edgegeo.evaluate.score_dataset import Sampling, as_scored, count_queries, score_dataset
    from edgegeo.evaluate.score_retrieval import JOINTS

    if request.adapter is not None and request.checkpoint is None:
        raise InputError("--adapter goes with --checkpoint; a bundle has its adapters in it")
    joint = next((one for one in JOINTS if one == request.joint), None)
    if joint is None:
        raise InputError(f"--joint takes one of {', '.join(JOINTS)}, not {request.joint!r:.40}")
    check_target(request.details)
    data = as_scored(_opened(request))
    sampling = Sampling(request.limit, request.seed)
    with progress_bar() as progress:
        results = score_dataset(_subjects(request), data, sampling, joint, request.threads, progress)
    whole = count_queries(data)
    rows = sampling.rows(whole)
    document = {
        "data": _told(data, request),
        "queries": {"scored": whole if rows is None else len(rows), "of": whole, "seed": request.seed},
        "subjects": [result.to_dict() for result in results],
    }
    if len(results) > 1:
        document["change"] = {
            "from": _name(results[0]),
            "subjects": [_change(one, results) for one in results[1:]],
        }
    if request.details is not None:
        write_whole(request.details, lambda draft: _write_details(draft, results))
        note(f"wrote {request.details}")
    return document, results


def print_results(document: dict[str, Any], results: "Sequence[Result]") -> None:
    """Tables for a person: a section each, the subjects side by side."""
    data, queries = document["data"], document["queries"]
    say(f"{data['name']}, {data['split']} of {data['root']}: {data['read']:,} rows read, {data['kept']:,} kept")
    if queries["scored"] < queries["of"]:
        say(f"{queries['scored']:,} of {queries['of']:,} queries, drawn with seed {queries['seed']}; gallery whole")
    say("95 % bootstrap intervals over places; ties count as misses", "")
    for number, section in enumerate(results[0].sections):
        _print_section([result.sections[number] for result in results], results)
        if section.source:
            say(f"protocol: {section.source}")
        for result in results:
            say(*(f"{_name(result)}: {line}" for line in _remarks(result.sections[number])))
        say("")
    for result in results:
        if result.unusable:
            say(f"{_name(result)}: {len(result.unusable):,} items could not be read and count as misses")
            say(*(f"  {one.side} {one.id}: {one.why}" for one in result.unusable[:5]))


def _print_section(sections: "Sequence[Section]", results: "Sequence[Result]") -> None:
    first = sections[0]
    against = "" if first.gallery is None else f" against {first.gallery:,}"
    headers = ["metric", *(_name(one) for one in results), *(_change_header(one, results) for one in results[1:])]
    changes = [after.change(first) for after in sections[1:]]
    rows = []
    for outcome in first.outcomes:
        shown = [_metric(section.metrics.get(outcome.name), outcome.unit) for section in sections]
        shown += [_metric(change.get(outcome.name), outcome.unit, signed=True) for change in changes]
        rows.append((_label(outcome.name), *shown))
    # No table title: it would be broken to the width of the table.
    say(f"{first.protocol}, {first.direction}: {first.queries:,} queries{against}")
    table(headers, rows)


def _remarks(section: "Section") -> list[str]:
    facts, lines = section.facts, []
    if "ranked_among" in facts:
        least, most = facts["ranked_among"]["least"], facts["ranked_among"]["most"]
        lines.append(f"each query ranked among {least:,}" + (f" to {most:,} items" if most > least else " items"))
    if facts.get("queries_without_a_hit_to_find"):
        lines.append(f"{facts['queries_without_a_hit_to_find']:,} queries have no hit among their items: misses")
    if "distinct_answers" in facts:
        lines.append(
            f"{facts['distinct_answers']:,} distinct answers, as if on {facts['effective_spots']:,.1f} spots "
            f"(the truth: {facts['effective_spots_of_the_truth']:,.1f})"
        )
    if facts.get("mode_collapse"):
        spot = facts["commonest_spot"]
        share = section.metrics["on_commonest_spot"].value
        lines.append(f"mode collapse: {percent(share)} of the answers lie at {spot['lat']:g}, {spot['lon']:g}")
    return lines


def _opened(request: DataRequest) -> "Loaded":
    from edgegeo.datasets import open_dataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the report repeats them below
        loaded = open_dataset(request.data, request.root, request.split, **request.options)
    for text in loaded.report.warnings:
        note(f"warning: {text}")
    if loaded.report.refused:
        note(f"{loaded.report.refused_count:,} rows refused: {loaded.report.summary()}")
    return loaded


def _subjects(request: DataRequest) -> "list[Subject]":
    """What is compared with first: the checkpoint, else the other bundle."""
    from edgegeo.evaluate.subject import BundleSubject, Subject

    found: list[Subject] = []
    if request.checkpoint is not None:
        from edgegeo.cli.checkpoint_subject import CheckpointSubject
        from edgegeo.home import DEFAULT_MODEL
        from edgegeo.models.hub import is_repository

        named = request.checkpoint
        hush_libraries(online=is_repository(named))
        source = None if named == DEFAULT_MODEL and not Path(named).exists() else named
        found.append(CheckpointSubject(source, request.adapter, request.threads))
    for path in reversed(request.bundles):
        found.append(BundleSubject(path, request.threads, request.provider))
    return found


def _told(data: Any, request: DataRequest) -> dict[str, Any]:
    report = data.report
    return {
        "name": report.dataset,
        "root": report.root,
        "split": report.split,
        "options": request.options,
        "read": report.read,
        "kept": report.kept,
        "refused": report.reasons(),
        "warnings": report.warnings,
    }


def _change(after: "Result", results: "Sequence[Result]") -> dict[str, Any]:
    from edgegeo.evaluate.card import plain

    pairs = zip(after.sections, results[0].sections, strict=True)
    sections = [
        {
            "protocol": one.protocol,
            "direction": one.direction,
            "metrics": {name: plain(metric) for name, metric in one.change(other).items()},
        }
        for one, other in pairs
    ]
    return {"to": _name(after), "sections": sections}


def _write_details(draft: Path, results: "Sequence[Result]") -> None:
    with draft.open("w", encoding="utf-8", newline="") as stream:
        writer: csv.DictWriter[str] | None = None
        for result in results:
            for section in result.sections:
                for row in section.details():
                    row = {"subject": _name(result), **row}
                    if writer is None:
                        writer = csv.DictWriter(stream, list(row))
                        writer.writeheader()
                    writer.writerow(row)


def _name(result: "Result") -> str:
    return f"{result.subject} ({result.kind})"


def _change_header(result: "Result", results: "Sequence[Result]") -> str:
    return "change" if len(results) == 2 else f"change of {result.subject}"


def _label(name: str) -> str:
    if name.startswith("recall_at_"):
        return f"Recall@{name.removeprefix('recall_at_')}"
    if name.startswith("l_at_"):
        return f"L@{name.removeprefix('l_at_').removesuffix('_m')} (top 1 within, m)"
    return LABELS.get(name, name.replace("_", " "))


def _metric(metric: "Metric | None", unit: str, signed: bool = False) -> str:
    if metric is None:
        return "-"
    value, low, high = (_number(part, unit, signed) for part in (metric.value, metric.low, metric.high))
    return f"{value} [{low}, {high}]"


def _number(value: float, unit: str, signed: bool) -> str:
    if not math.isfinite(value):
        return "none"
    sign = "+" if signed else ""
    if unit == "share":
        return f"{100 * value:{sign}.1f} {'pt' if signed else '%'}"
    if unit == "km":
        return f"{value:{sign},.{0 if abs(value) >= 100 else 2}f} km"
    return f"{value:{sign},.0f}"
