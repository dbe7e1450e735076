"""The results as one self-contained HTML page: inline SVG, no scripts, nothing fetched."""

from collections.abc import Sequence
from html import escape

from edgegeo.bench import budget
from edgegeo.bench.cells import JOBS
from edgegeo.bench.chart import render_chart
from edgegeo.bench.front import GPS, METRIC_NAMES, METRIC_OF_JOB, PHOTO, TEXT, front, score
from edgegeo.bench.ledger import Row
from edgegeo.bench.markdown import describe_machine

STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf7; --ink: #22262b; --soft: #6b7178; --rule: #dcd9d0; --card: #ffffff;
  --fp32: #3b6fb6; --fp16: #7a56b3; --int8: #1d8a5f; --int4: #c8691c; --other: #8a8f96; --front: #22262b; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e6e4de; --soft: #9aa0a8; --rule: #333941;
  --card: #1b1f25; --fp32: #7aa7e8; --fp16: #b597ea; --int8: #53c796; --int4: #f0a05c; --other: #9aa0a8;
  --front: #e6e4de; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1400px; padding: 32px 20px 64px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 0; }
p { margin: 4px 0 0; color: var(--soft); max-width: 110ch; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 18px 20px; margin-top: 22px; }
.key { display: flex; flex-wrap: wrap; gap: 6px 18px; margin: 14px 0 0; padding: 0; list-style: none;
  color: var(--soft); }
.key i { display: inline-block; width: 11px; height: 11px; border-radius: 50%; margin-right: 6px; }
.key .line { width: 22px; height: 0; border-radius: 0; border-top: 2px dashed var(--front); vertical-align: middle; }
svg { display: block; width: 100%; height: auto; margin: 10px 0 4px; font: 12px system-ui, sans-serif; }
svg text { fill: var(--soft); } svg .dot text { fill: var(--card); font-weight: 600; font-size: 11px; }
svg .grid { stroke: var(--rule); }
svg .front { fill: none; stroke: var(--front); stroke-width: 1.6; stroke-dasharray: 5 4; }
svg .whisker { stroke-width: 1.5; opacity: .45; } svg .ring { fill: none; stroke: var(--front); stroke-width: 2; }
svg .dot:hover circle { opacity: .75; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px;
  width: 100%; }
th, td { padding: 4px 8px; text-align: right; white-space: nowrap; border-top: 1px solid var(--rule); }
th { font-weight: 600; color: var(--soft); border-top: 0; } th:first-child, td:first-child { text-align: left; }
td small { color: var(--soft); } tr.best td:first-child { font-weight: 700; }
td.fault { text-align: left; color: var(--int4); }
"""
COLUMNS = (
    "precision", "batch", "threads", "p50 ms", "p90 ms", "p99 ms", "ms / item", "items / s", "peak MB", "load ms",
    "cold start ms", "size MB", "text R@1 %", "photo R@1 %", "GPS 750 km %",
)  # fmt: skip
COLOURS = ("fp32", "fp16", "int8", "int4")


def render_page(rows: Sequence[Row]) -> str:
    """The whole page as text; everything that came from outside is escaped."""
    jobs = [job for job in JOBS if any(row["job"] == job for row in rows)]
    bundles = sorted({f"{row['bundle']} ({row['fingerprint'][:12]})" for row in rows})
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>edgegeo bench</title><style>{STYLE}</style></head><body>"
        "<h1>edgegeo bench</h1>"
        f"<p>{escape(describe_machine(rows))}</p><p>Bundles: {escape(', '.join(bundles))}</p>"
        f"{_key(rows)}{_budget(rows)}"
        f"{''.join(_section(job, [row for row in rows if row['job'] == job]) for job in jobs)}"
        "</body></html>\n"
    )


def colour(precision: str) -> str:
    """The CSS colour of a precision."""
    kind = precision.split(" ")[0]
    return f"var(--{kind if kind in COLOURS else 'other'})"


def _key(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(row["precision"] for row in rows))
    items = [f'<li><i style="background:{colour(name)}"></i>{escape(name)}</li>' for name in names]
    items.append("<li>number in the dot: batch size</li>")
    items.append('<li><i class="line"></i>front: nothing measured is both faster and more accurate</li>')
    return f'<ul class="key">{"".join(items)}</ul>'


def _budget(rows: Sequence[Row]) -> str:
    """The token budget, where several were measured: a chart for each job over pictures, and the table of both."""
    if not budget.compares_budgets(rows):
        return ""
    charts = ""
    for job in budget.PICTURE_JOBS:
        if mine := budget.budget_rows(rows, job):
            drawn = render_chart(
                mine, front(mine), METRIC_NAMES[METRIC_OF_JOB[job]], colour, lambda row: str(row["picture"]["tokens"])
            )
            charts += f"<p>{escape(job)}; number in the dot: image tokens of a photo</p>{drawn}"
    head = "".join(f"<th>{escape(name)}</th>" for name in budget.HEADERS)
    lines = ["".join(f"<td>{escape(text)}</td>" for text in line) for line in budget.budget_table(rows)]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f"<section><h2>Token budget</h2><p>{escape(budget.budget_caption(rows))}</p>{charts}"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>'
    )


def _section(job: str, rows: Sequence[Row]) -> str:
    best = front(rows)
    chosen = {id(row) for row in best}
    head = "".join(f"<th>{escape(name)}</th>" for name in COLUMNS)
    body = "".join(_row(row, id(row) in chosen) for row in rows)
    return (
        f"<section><h2>{escape(job)}</h2><p>{escape(JOBS[job])}</p>"
        f"{render_chart(rows, best, METRIC_NAMES[METRIC_OF_JOB[job]], colour)}"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>'
    )


def _row(row: Row, on_front: bool) -> str:
    name = f'<i style="color:{colour(row["precision"])}">●</i> {escape(row["precision"])}{" ★" if on_front else ""}'
    start = f"<td>{name}</td><td>{row['batch']}</td><td>{row['threads']}</td>"
    if "error" in row:
        fault = f'<td class="fault" colspan="{len(COLUMNS) - 3}">failed: {escape(row["error"])}</td>'
        return f"<tr>{start}{fault}</tr>"
    latency = row["latency_ms"]
    numbers = [f"{latency[p]:.2f}" for p in ("p50", "p90", "p99")]
    numbers += [f"{row['item_ms']:.2f}", f"{row['throughput_per_s']:.1f}", f"{row['memory_mb']['peak']:.0f}"]
    numbers += [f"{row['load_ms']:.0f}", f"{row['cold_start_ms']:.0f}", f"{row['size_bytes'] / 2**20:.1f}"]
    numbers += [_accuracy(row, metric) for metric in (TEXT, PHOTO, GPS)]
    cells = "".join(f"<td>{number}</td>" for number in numbers)
    return f"<tr{' class=best' if on_front else ''}>{start}{cells}</tr>"


def _accuracy(row: Row, metric: str) -> str:
    found = score(row, metric)
    if found is None:
        return "-"
    return f"{100 * found['value']:.1f} <small>{100 * found['low']:.1f}–{100 * found['high']:.1f}</small>"
