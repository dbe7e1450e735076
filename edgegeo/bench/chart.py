"""One scatter plot as inline SVG: time per item (log) against accuracy, with the front."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from edgegeo.bench.front import score
from edgegeo.bench.ledger import Row

WIDTH, HEIGHT = 1100, 380
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 18, 48


@dataclass(frozen=True)
class Axes:
    """The ranges of a plot: milliseconds (log) across, accuracy in percent upwards."""

    fastest: float
    slowest: float
    lowest: float
    highest: float

    def x(self, ms: float) -> float:
        """Pixels from the left."""
        share = math.log(ms / self.fastest) / math.log(self.slowest / self.fastest)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, percent: float) -> float:
        """Pixels from the top."""
        share = (percent - self.lowest) / (self.highest - self.lowest)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def render_chart(
    rows: Sequence[Row], best: Sequence[Row], metric: str, colour: Callable[[str], str],
    name: Callable[[Row], str] = lambda row: str(row["batch"]),
) -> str:  # fmt: skip
    """The plot of one job's rows, or a sentence where nothing can be drawn; `name` is what a dot says."""
    shown = [row for row in rows if "error" not in row and score(row)]
    if not shown:
        return "<p>No row of this job has both a latency and an accuracy.</p>"
    axes = _axes(shown)
    label = f"{metric} against milliseconds per item"
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    parts += _grid(axes, metric)
    parts += [_whisker(axes, row, colour) for row in shown]
    parts += [_line(axes, best)]
    on_front = {id(row) for row in best}
    several = len({row["threads"] for row in shown}) > 1
    # Slow rows first, so that the fast ones, which matter, lie on top.
    for row in sorted(shown, key=lambda r: -r["item_ms"]):
        parts.append(_dot(axes, row, id(row) in on_front, several, colour, name(row)))
    return "".join([*parts, "</svg>"])


def _axes(rows: Sequence[Row]) -> Axes:
    times = [row["item_ms"] for row in rows]
    found = [s for row in rows if (s := score(row))]
    low, high = 100 * min(s["low"] for s in found), 100 * max(s["high"] for s in found)
    pad = max(1.0, 0.15 * (high - low))
    return Axes(min(times) / 1.35, max(times) * 1.35, max(0.0, low - pad), min(100.0 + pad / 4, high + pad))


def _grid(axes: Axes, metric: str) -> list[str]:
    out = []
    for value in ticks(axes.lowest, axes.highest):
        y = axes.y(value)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in log_ticks(axes.fastest, axes.slowest):
        x = axes.x(value)
        out.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        out.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value:g}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    out.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">ms per item (median / batch), log</text>')
    out.append(
        f'<text transform="translate(14 {middle:.0f}) rotate(-90)" text-anchor="middle">{escape(metric)}, %</text>'
    )
    return out


def _whisker(axes: Axes, row: Row, colour: Callable[[str], str]) -> str:
    found = score(row) or {}
    x, low, high = axes.x(row["item_ms"]), axes.y(100 * found["low"]), axes.y(100 * found["high"])
    stroke = colour(row["precision"])
    return f'<line class="whisker" style="stroke:{stroke}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'


def _line(axes: Axes, best: Sequence[Row]) -> str:
    """The front as steps: between two of its points only the slower one's accuracy can be had for its time."""
    path = ""
    for row in best:
        x, y = axes.x(row["item_ms"]), axes.y(100 * (score(row) or {})["value"])
        path += f"H{x:.1f}V{y:.1f}" if path else f"M{x:.1f} {HEIGHT - BOTTOM}V{y:.1f}"
    return f'<path class="front" d="{path}H{WIDTH - RIGHT}"/>' if path else ""


def _dot(axes: Axes, row: Row, on_front: bool, several_threads: bool, colour: Callable[[str], str], name: str) -> str:
    found = score(row) or {}
    x, y = axes.x(row["item_ms"]), axes.y(100 * found["value"])
    latency = row["latency_ms"]
    hover = (
        f"{row['precision']}, batch {row['batch']}, {row['threads']} threads\n"
        f"{row['item_ms']:.2f} ms per item; p50 {latency['p50']:.2f}, p99 {latency['p99']:.2f} ms a call\n"
        f"{100 * found['value']:.1f} % [{100 * found['low']:.1f}, {100 * found['high']:.1f}] on "
        f"{found.get('places', 0):.0f} places\n"
        f"peak {row['memory_mb']['peak']:.0f} MB, bundle {row['size_bytes'] / 2**20:.1f} MB"
    )
    label = f"{name}·{row['threads']}" if several_threads else name
    radius = max(10.5, 3.6 * len(label) + 2)
    ring = f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="{radius + 2.5:.1f}"/>' if on_front else ""
    return (
        f'<g class="dot"><title>{escape(hover)}</title>{ring}'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" style="fill:{colour(row["precision"])}"/>'
        f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{escape(label)}</text></g>'
    )


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between low and high, 4 to 9 of them."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next((m for m in (1, 2, 2.5, 5) if (high - low) / (m * step) <= 9), 10)
    first = math.ceil(low / step)
    return [round(i * step, 6) for i in range(first, math.floor(high / step) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten times 1, 2 and 5 between low and high; with more digits where those would be few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 2, 3, 5, 7), (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)):
        found = [float(f"{m}e{d}") for d in decades for m in digits if low <= float(f"{m}e{d}") <= high]
        if len(found) >= 5:
            break
    return found
