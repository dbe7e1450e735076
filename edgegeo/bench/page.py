"""The results as one HTML page: everything inline, nothing fetched; without scripts its tables remain."""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

from edgegeo.bench import budget
from edgegeo.bench.columns import Column, numbers_of, settings_of
from edgegeo.bench.definition import JOBS
from edgegeo.bench.front import COSTS, METRIC_NAMES, front, metric_of, score
from edgegeo.bench.markdown import machine_sentence, method_sentence
from edgegeo.bench.rows import Row, describe
from edgegeo.bench.stages import STAGES

KINDS = ("fp32", "fp16", "int8", "int4")
FACETS: dict[str, Callable[[Row], Any]] = {
    "precision": lambda row: row["precision"],
    "setting": lambda row: row["label"],
    "method": lambda row: row["method"],
    "batch": lambda row: row["batch"],
    "threads": lambda row: row["threads"],
    "provider": lambda row: row["provider"],
    "image tokens": lambda row: row.get("picture", {}).get("tokens"),
    "dims": lambda row: row["dims"] or "all",
    "re-rank": lambda row: row["rerank"],
    "candidates": lambda row: row["candidates"],
    "power mode": lambda row: row["power_mode"],
}
"""What can be filtered by; facets of which there is one value only are not shown."""


def render_page(rows: Sequence[Row], about: str = "") -> str:
    """The whole page as text; everything that came from outside is escaped."""
    jobs = [job for job in JOBS if any(row["job"] == job for row in rows)]
    bundles = sorted({f"{row['bundle']} ({row['fingerprint'][:12]})" for row in rows})
    numbered = list(enumerate(rows))
    facets = _facets(rows)
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    data = {
        "rows": [_data(number, row, facets) for number, row in numbered if "error" not in row],
        "metrics": {job: METRIC_NAMES[metric_of(job)] for job in jobs},
        "costs": {name: title for name, (title, _) in COSTS.items()},
        "stages": STAGES,
    }
    sections = "".join(_section(job, [(n, row) for n, row in numbered if row["job"] == job]) for job in jobs)
    introduced = f"<p>{escape(about)}</p>" if about else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>edgegeo bench</title><style>{_asset('page.css')}</style></head><body>"
        f"<h1>edgegeo bench</h1>{introduced}"
        f"<p>{escape(machine_sentence(rows))}</p><p>{escape(method_sentence(rows))}</p>"
        f"<p>Bundles: {escape(', '.join(bundles))}</p>"
        f"{_controls(jobs, rows, facets)}{_FRONT}{sections}{_WHERE}{_budget(rows)}"
        f'<script type="application/json" id="rows">{_embedded(data)}</script><script>{script}</script>'
        "</body></html>\n"
    )


_FRONT = (
    '<section id="front" hidden><h2>Front</h2><p>Each dot is a setting, its mark the batch (or what the job varies); '
    "bars are 95 % intervals of accuracy. Ringed and joined: nothing shown is both cheaper and more accurate.</p>"
    '<div class="plot" id="plot"><div class="tip" id="tip" role="status" hidden></div>'
    '<p id="nothing" hidden>No row that is left has both this cost and an accuracy.</p></div></section>'
)
_WHERE = (
    '<section id="where" hidden><h2>Where the time goes</h2><p>Milliseconds an item by stage, measured after the '
    'counted runs.</p><ul class="key" id="stage-key"></ul><div class="stages" id="stages"></div></section>'
)


def kind_of(row: Row) -> str:
    """What a row is coloured by: the precision its label begins with."""
    kind = str(row["label"]).split(" ")[0]
    return kind if kind in KINDS else "other"


@lru_cache(maxsize=2)
def _asset(name: str) -> str:
    return (Path(__file__).parent / "web" / name).read_text(encoding="utf-8")


def _embedded(data: Any) -> str:
    # "</script>" and "<!--" inside a text would end the element.
    return json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _facets(rows: Sequence[Row]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, read in FACETS.items():
        values = list(dict.fromkeys(str(value) for row in rows if (value := read(row)) is not None))
        if len(values) > 1:
            found[name] = values
    # Where a setting says no more than its precision, it is asked for once.
    if len({(FACETS["precision"](row), row["label"]) for row in rows}) == len(found.get("precision", ())):
        found.pop("setting", None)
    return found


def _data(number: int, row: Row, facets: dict[str, list[str]]) -> dict[str, Any]:
    found = score(row)
    columns = [column for column in numbers_of([row]) if column.text(row) != "-"]
    return {
        "id": number,
        "job": row["job"],
        "name": describe(row).replace(f" {row['job']}", "", 1),
        "mark": _mark(row),
        "kind": kind_of(row),
        "items": row["batch"],
        "facets": {name: str(FACETS[name](row)) for name in facets if FACETS[name](row) is not None},
        "cost": {name: price(row) for name, (_, price) in COSTS.items()},
        "accuracy": None if found is None else {part: found[part] for part in ("value", "low", "high")},
        "stages": row.get("stages_ms") or None,
        "facts": [(column.title, column.text(row)) for column in columns],
    }


def _mark(row: Row) -> str:
    if row["job"] in ("rerank", "locate"):
        return str(row["rerank"])
    return str(row["candidates"] if row["candidates"] > 1 else row["batch"])


def _controls(jobs: Sequence[str], rows: Sequence[Row], facets: dict[str, list[str]]) -> str:
    good = [row for row in rows if "error" not in row]
    picks = "".join(f'<option value="{job}">{job.replace("_", " ")}</option>' for job in jobs)
    costs = ""
    for name, (title, price) in COSTS.items():
        there = any(price(row) is not None for row in good)
        lacking = "" if there else " disabled"
        costs += f'<option value="{name}"{lacking}>{escape(title)}{"" if there else ": not measured"}</option>'
    groups = ""
    for name, values in facets.items():
        boxes = "".join(
            f'<label><input type="checkbox" name="{escape(name)}" value="{escape(value)}" checked>'
            f"{_swatch(name, value)}{escape(value)}</label>"
            for value in values
        )
        groups += f"<fieldset><legend>{escape(name)}</legend>{boxes}</fieldset>"
    return (
        '<section id="controls" hidden><div class="controls">'
        f'<label class="pick">job<select id="job">{picks}</select></label>'
        f'<label class="pick">accuracy against<select id="cost">{costs}</select></label>'
        f'<button type="button" id="all">show all</button><span id="count" role="status"></span></div>'
        f'<div class="controls" id="filters">{groups}</div></section>'
    )


def _swatch(facet: str, value: str) -> str:
    kind = value.split(" ")[0]
    if facet not in ("precision", "setting") or kind not in KINDS:
        return ""
    return f'<i style="background:var(--{kind})"></i>'


def _section(job: str, rows: Sequence[tuple[int, Row]]) -> str:
    alone = [row for _, row in rows]
    settings, numbers = settings_of(alone), numbers_of(alone)
    best = {id(row) for row in front(alone)}
    head = "".join(f"<th scope='col'>{escape(column.title)}</th>" for column in [*settings, *numbers])
    body = "".join(_line(number, row, settings, numbers, id(row) in best) for number, row in rows)
    metrics = " / ".join(dict.fromkeys(METRIC_NAMES[metric_of(job, row["candidates"])] for row in alone))
    return (
        f'<section class="job" data-job="{job}"><h2>{job.replace("_", " ")}</h2>'
        f"<p>{escape(JOBS[job])}. Accuracy: {escape(metrics)}. Bold: on the front.</p>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>'
    )


def _line(number: int, row: Row, settings: Sequence[Column], numbers: Sequence[Column], on_front: bool) -> str:
    texts = [column.text(row) for column in settings]
    start = f'<td><i style="background:var(--{kind_of(row)})"></i>{escape(texts[0])}</td>'
    start += "".join(f"<td>{escape(text)}</td>" for text in texts[1:])
    if "error" in row:
        return f'<tr>{start}<td class="fault" colspan="{len(numbers)}">failed: {escape(row["error"])}</td></tr>'
    cells = ""
    for column in numbers:
        value = column.value(row) if column.value else None
        sort = "" if value is None else f' data-value="{value:.6g}"'
        cells += f"<td{sort}>{escape(column.text(row))}</td>"
    return f'<tr data-row="{number}"{" class=best" if on_front else ""}>{start}{cells}</tr>'


def _budget(rows: Sequence[Row]) -> str:
    """The token budget, where several were measured: both jobs over pictures in one table."""
    if not budget.compares_budgets(rows):
        return ""
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in budget.HEADERS)
    lines = ["".join(f"<td>{escape(text)}</td>" for text in line) for line in budget.budget_table(rows)]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f"<section><h2>Token budget</h2><p>{escape(budget.budget_caption(rows))}</p>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>'
    )
