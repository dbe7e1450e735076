"""Reliability plots as SVG, without a plotting library."""

from html import escape

from edgegeo.evaluate.doubt import Reliability

_SIDE, _EDGE = 320, 48


def reliability_svg(curves: dict[str, Reliability]) -> str:
    """One panel a setting: what was said against what came true; the area of a dot is its share of the answers."""
    width = _EDGE + len(curves) * (_SIDE + _EDGE)
    panels = [_panel(name, one, _EDGE + i * (_SIDE + _EDGE)) for i, (name, one) in enumerate(curves.items())]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_SIDE + 2 * _EDGE}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f"{''.join(panels)}</svg>\n"
    )


def _panel(name: str, one: Reliability, left: int) -> str:
    def at(said: float, came: float) -> tuple[str, str]:
        return f"{left + said * _SIDE:.1f}", f"{_EDGE + (1 - came) * _SIDE:.1f}"

    title = f"{name}: expected calibration error {one.expected_error:.3f}"
    parts = [
        f'<text x="{left}" y="{_EDGE - 12}">{escape(title)}</text>',
        f'<rect x="{left}" y="{_EDGE}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#999"/>',
        f'<line x1="{left}" y1="{_EDGE + _SIDE}" x2="{left + _SIDE}" y2="{_EDGE}" stroke="#bbb" stroke-dasharray="4"/>',
        f'<text x="{left}" y="{_EDGE + _SIDE + 18}">confidence (0 to 1)</text>',
        f'<text transform="translate({left - 8} {_EDGE + _SIDE}) rotate(-90)">share within 750 km</text>',
    ]
    points = [at(b.said, b.came) for b in one.bins]
    line = " ".join(",".join(point) for point in points)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#2a6f97"/>')
    for (x, y), b in zip(points, one.bins, strict=True):
        radius = 3 + 14 * (b.places / max(one.places, 1)) ** 0.5
        parts.append(f'<circle cx="{x}" cy="{y}" r="{radius:.1f}" fill="#2a6f97" fill-opacity="0.5"/>')
    return "".join(parts)
