"""The quantisation report as one self-contained HTML page: inline SVG, no scripts, nothing fetched."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 900, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 16, 46
SHOWN = 40
"""Groups in the table; the JSON file holds all."""
COLOURS = ("--first", "--second", "--third")

STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf7; --ink: #22262b; --soft: #6b7178; --rule: #dcd9d0; --card: #fff;
  --first: #1d8a5f; --second: #3b6fb6; --third: #7a56b3; --bad: #b3401c; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e6e4de; --soft: #9aa0a8; --rule: #333941;
  --card: #1b1f25; --first: #53c796; --second: #7aa7e8; --third: #b597ea; --bad: #f0805c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1040px; padding: 32px 20px 64px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 0 0 6px; }
p { margin: 4px 0 8px; color: var(--soft); max-width: 90ch; } p.result { color: var(--ink); font-size: 17px; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 18px 20px;
  margin-top: 22px; overflow-x: auto; }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif; } svg text { fill: var(--soft); }
svg .grid { stroke: var(--rule); } svg .limit { stroke: var(--bad); stroke-dasharray: 6 4; }
svg .chosen { fill: none; stroke: var(--ink); stroke-width: 2; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; width: 100%; }
th, td { padding: 4px 8px; text-align: right; white-space: nowrap; border-top: 1px solid var(--rule); }
th { font-weight: 600; color: var(--soft); border-top: 0; } th:first-child, td:first-child { text-align: left; }
tr.chosen td { font-weight: 700; } td.over { color: var(--bad); }
.key i { display: inline-block; width: 11px; height: 11px; border-radius: 50%; margin: 0 6px 0 14px; }
code { font-size: 12.5px; }
"""
NAMES = {
    "text_to_tile_recall_at_1": "text to tile, Recall@1", "photo_to_tile_recall_at_1": "photo to tile, Recall@1",
    "gps_within_750_km": "GPS within 750 km", "text_to_tile_same_first": "text to tile, same first tile as fp32",
    "photo_to_tile_same_first": "photo to tile, same first tile as fp32",
}  # fmt: skip


def render_page(document: Mapping[str, Any]) -> str:
    """The whole page as text; everything that came from outside is escaped."""
    name = escape(str(document["bundle"]))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Quantisation of {name}</title><style>{STYLE}</style></head><body>"
        f"<h1>Quantisation of {name}</h1>{_summary(document)}"
        f"{_scores(document)}{_curve(document)}{_sensitivity(document)}{_kept(document)}</body></html>\n"
    )


def metric_name(metric: str) -> str:
    """A metric in words."""
    return NAMES.get(metric, metric.replace("_", " "))


def drop_text(drop: Mapping[str, float | None]) -> str:
    """A drop in points with its interval; a gain is negative."""
    value, low, high = (round(drop[part] or 0.0, 1) + 0.0 for part in ("value", "low", "high"))  # no -0.0
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _summary(document: Mapping[str, Any]) -> str:
    worst = max(document["confirmed"]["changes"], key=lambda one: one["drop_points"]["value"])
    places = document["confirmed"]["places"]
    proof = (
        "the whole 95 % interval lies within the budget" if document["proven"]
        else "the 95 % interval reaches beyond the budget: more places could tell"
    )  # fmt: skip
    components = ", ".join(document["judged_components"])
    return (
        f'<p class="result">At most {document["max_drop_points"]:g} points of {escape(document["judged_by"])} may be '
        f"lost against the fp32 graphs; {escape(metric_name(worst['metric']))} loses most, "
        f"{drop_text(worst['drop_points'])} points on {places:,} validation places that the search did not see: "
        f"{proof}.</p><p>{len(document['kept'])} of {document['matrices']} matrices of {escape(components)} are kept "
        "finer than the recipe asks. Drops are paired place by place, brackets are 95 % intervals. The same "
        "matrices of components with another adapter of that base are stored alike; what their roles lose is in the "
        "accuracy card.</p>"
    )


def _scores(document: Mapping[str, Any]) -> str:
    parts = [("validation places, confirmation", document["confirmed"])]
    if document["test"] is not None:
        parts.append(("test places, which no choice looked at", document["test"]))
    rows = [
        (f"{metric_name(one['metric'])}, {part['places']:,} {name}", _share(one["fp32"]), _share(one["now"]),
         drop_text(one["drop_points"]))
        for name, part in parts for one in part["changes"]
    ]  # fmt: skip
    return f"<section><h2>Accuracy</h2>{_table(('metric', 'fp32 %', 'now %', 'drop, points'), rows)}</section>"


def _curve(document: Mapping[str, Any]) -> str:
    curve = document["curve"]
    metrics = [one["metric"] for one in curve[0]["changes"]]
    jobs = list(dict.fromkeys(job for one in curve for job in one["latency_ms"]))
    rows = []
    for one in curve:
        rows.append((
            one["name"], one["kept"], f"{one['bytes'] / 2**20:.2f}",
            *(drop_text(change["drop_points"]) for change in one["changes"]),
            *(f"{one['latency_ms'][job]['p50']:.2f}" if job in one["latency_ms"] else "-" for job in jobs),
        ))  # fmt: skip
    headers = (
        "mix",
        "kept finer",
        "bundle MB",
        *(f"drop: {metric_name(m)}" for m in metrics),
        *(f"{j}, ms" for j in jobs),
    )
    keys = "".join(
        f'<i style="background:var({COLOURS[i % 3]})"></i>{escape(metric_name(m))}' for i, m in enumerate(metrics)
    )
    return (
        f"<section><h2>Size, accuracy and latency</h2><p>Each mix on {curve[0]['places']:,} validation places, the "
        f"search's own; latency on {curve[0]['threads']} threads, every mix in turn."
        f'<span class="key">{keys}</span></p>{_chart(document)}'
        f"{_table(headers, rows, [one['chosen'] for one in curve])}</section>"
    )


def _chart(document: Mapping[str, Any]) -> str:
    """Drop in points against megabytes."""
    curve = document["curve"]
    sizes = [one["bytes"] / 2**20 for one in curve]
    ends = [change["drop_points"][end] for one in curve for change in one["changes"] for end in ("low", "high")]
    least, most = min(sizes), max(sizes)
    pad = 0.04 * (most - least) or 1.0
    low, high = min(0.0, *ends), max(document["max_drop_points"], *ends)
    x = lambda mb: LEFT + (mb - least + pad) / (most - least + 2 * pad) * (WIDTH - LEFT - RIGHT)  # noqa: E731
    y = lambda drop: TOP + (high + 0.1 - drop) / (high - low + 0.2) * (HEIGHT - TOP - BOTTOM)  # noqa: E731
    out = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Drop in points against size">']
    for i in range(6):
        drop, mb = low + (high - low) * i / 5, least + (most - least) * i / 5
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(drop):.1f}" y2="{y(drop):.1f}"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y(drop) + 4:.1f}" text-anchor="end">{drop:.1f}</text>')
        out.append(f'<text x="{x(mb):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{mb:.1f}</text>')
    limit = y(document["max_drop_points"])
    out.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{limit:.1f}" y2="{limit:.1f}"/>')
    for one, mb in zip(curve, sizes, strict=True):
        for i, change in enumerate(one["changes"]):
            drop, at, colour = change["drop_points"], x(mb) + 3 * i, COLOURS[i % 3]
            said = f"{one['name']}\n{metric_name(change['metric'])}: {drop_text(drop)} points\n{mb:.2f} MB"
            ring = f'<circle class="chosen" cx="{at:.1f}" cy="{y(drop["value"]):.1f}" r="8"/>' if one["chosen"] else ""
            out.append(
                f"<g><title>{escape(said)}</title>"
                f'<line style="stroke:var({colour});opacity:.45" x1="{at:.1f}" x2="{at:.1f}" y1="{y(drop["low"]):.1f}" '
                f'y2="{y(drop["high"]):.1f}"/>'
                f'<circle style="fill:var({colour})" cx="{at:.1f}" cy="{y(drop["value"]):.1f}" r="5"/>{ring}</g>'
            )
    out.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">bundle, MB</text>')
    out.append('<text transform="translate(14 160) rotate(-90)" text-anchor="middle">drop, points</text></svg>')
    return "".join(out)


def _sensitivity(document: Mapping[str, Any]) -> str:
    rows = []
    for one in document["sensitivity"][:SHOWN]:
        alone = "; ".join(drop_text(change["drop_points"]) for change in one["alone"] or ())
        sqnr = "-" if one["sqnr_db"] is None else f"{one['sqnr_db']:.1f}"
        rows.append((one["group"], one["precision"], sqnr, f"{one['cosine']:.6f}", one["stored"], alone or "-"))
    headers = ("matrices", "at", "SQNR, dB", "cosine", "stored as", "drop alone, points")
    return (
        "<section><h2>The most sensitive matrices</h2><p>Each alone at the recipe's precision with all others at "
        "their finest: noise and cosine of the model's outputs; for the worst also what the task loses.</p>"
        f"{_table(headers, rows, [one['stored'] != one['precision'] for one in document['sensitivity'][:SHOWN]])}"
        "</section>"
    )


def _kept(document: Mapping[str, Any]) -> str:
    kept = "\n".join(f'"{layer}" = "{stored}"' for layer, stored in document["recipe"]["layers"].items())
    said = (
        f"<pre><code>[layers]\n{escape(kept)}</code></pre>" if kept else "<p>None: the recipe keeps to the budget.</p>"
    )
    return f"<section><h2>Kept finer, as a recipe</h2>{said}</section>"


def _share(metric: Mapping[str, float | None]) -> str:
    value, low, high = (100 * (metric[part] or 0.0) for part in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _table(headers: Sequence[str], rows: Sequence[Sequence[object]], bold: Sequence[bool] = ()) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in headers)
    body = ""
    for index, row in enumerate(rows):
        cells = "".join(f"<td>{escape(str(cell))}</td>" for cell in row)
        body += f'<tr class="chosen">{cells}</tr>' if index < len(bold) and bold[index] else f"<tr>{cells}</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
