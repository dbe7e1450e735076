"""The fronts as a picture for papers: accuracy against time, memory and energy, one line of panels a job."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from edgegeo.bench.definition import JOBS
from edgegeo.bench.front import COSTS, METRIC_NAMES, front, metric_of, score
from edgegeo.bench.rows import Row
from edgegeo.errors import InputError

COLOURS = {"fp32": "#0072B2", "fp16": "#CC79A7", "int8": "#009E73", "int4": "#D55E00"}
"""Okabe and Ito's palette, which the colour-blind can tell apart (Color Universal Design, 2008)."""
OTHERS = ("#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "os^Dvp*hX"
PANELS = ("latency", "memory", "energy")
_INCHES = (3.4, 2.3)
"""Of one panel: two fit the width of a page."""


def render_png(rows: Sequence[Row], costs: Sequence[str] = PANELS, dots_per_inch: int = 300) -> bytes:
    """A PNG of the rows that have an accuracy; InputError where there are none, or where matplotlib is missing.

    costs: names in COSTS to draw accuracy against, those that were measured; of a single one, jobs stand side by side.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("pictures need matplotlib; pip install 'edgegeo[bench]'") from None
    good = [row for row in rows if "error" not in row and score(row)]
    jobs = [job for job in JOBS if any(row["job"] == job for row in good)]
    if not jobs:
        raise InputError("no row has both a time and an accuracy, so there is nothing to draw")
    measured = [name for name in costs if any(COSTS[name][1](row) is not None for row in good)]
    if not measured:
        raise InputError(f"no row tells {', '.join(costs)}, so there is nothing to draw")
    lines, columns = (1, len(jobs)) if len(measured) == 1 else (len(jobs), len(measured))
    figure = Figure((_INCHES[0] * columns, _INCHES[1] * lines + 0.4), layout="constrained")
    panels = iter(figure.subplots(lines, columns, squeeze=False).ravel())
    styles = _styles(good)
    for job in jobs:
        for cost in measured:
            axes = next(panels)
            _panel(axes, [row for row in good if row["job"] == job], cost, styles)
            if cost == measured[0]:
                axes.set_ylabel(f"{METRIC_NAMES[metric_of(job)]}, %", fontsize=7)
                axes.set_title(job.replace("_", " "), fontsize=8, loc="left")
    _legend(figure, styles, good)
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=dots_per_inch, metadata={"Software": "edgegeo bench"})
    return stream.getvalue()


def _styles(rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """Label -> colour (by precision) and marker (within a precision)."""
    found: dict[str, tuple[str, str]] = {}
    spare = iter(OTHERS * 8)
    kinds: dict[str, tuple[str, int]] = {}
    for label in dict.fromkeys(row["label"] for row in rows):
        kind = label.split(" ")[0]
        colour, count = kinds.get(kind) or (COLOURS.get(kind) or next(spare), 0)
        kinds[kind] = (colour, count + 1)
        found[label] = (colour, MARKERS[count % len(MARKERS)])
    return found


def _panel(axes: Any, rows: Sequence[Row], cost: str, styles: dict[str, tuple[str, str]]) -> None:
    title, price = COSTS[cost]
    best = front(rows, cost)
    chosen = {id(row) for row in best}
    for row in rows:
        found, paid = score(row), price(row)
        if found is None or paid is None:
            continue
        colour, marker = styles[row["label"]]
        value = 100 * found["value"]
        spread = [[value - 100 * found["low"]], [100 * found["high"] - value]]
        on = id(row) in chosen
        axes.plot(paid, value, marker, color=colour, markersize=4.5 if on else 3, alpha=1.0 if on else 0.5)
        if on:
            axes.errorbar(paid, value, yerr=spread, color=colour, elinewidth=0.6, capsize=0)
        words = f"b{row['batch']}" if row["batch"] > 1 else ""
        axes.annotate(words, (paid, value), fontsize=5, xytext=(3, 3), textcoords="offset points", alpha=0.8)
    steps = [(price(row), 100 * (score(row) or {})["value"]) for row in best]
    axes.step([x for x, _ in steps], [y for _, y in steps], where="post", color="black", linewidth=0.7, linestyle="--")
    if cost != "memory":
        _logarithmic(axes)
    axes.set_xlabel(title, fontsize=7)
    axes.tick_params(labelsize=6)
    axes.grid(alpha=0.25, linewidth=0.4)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _logarithmic(axes: Any) -> None:
    """A logarithmic axis whose marks are plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Any, styles: dict[str, tuple[str, str]], rows: Sequence[Row]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=4, label=label)
        for label, (colour, marker) in styles.items()
    ]
    handles.append(Line2D([], [], color="black", linestyle="--", linewidth=0.7, label="front"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), fontsize=6, frameon=False)
