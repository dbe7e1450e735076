"""Fusion and doubt of a bundle, for a person."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edgegeo.cli.flags import flag
from edgegeo.cli.output import percent, say, table

if TYPE_CHECKING:
    from edgegeo.evaluate.trust import Trust

TrustFlag = Annotated[
    int, flag("--candidates", verb="eval", help="Also measure fusion and doubt of so many candidates.", min=1, max=32)
]
PlotFlag = Annotated[Path | None, flag("--plot", verb="eval", help="Write the reliability plot here (SVG).")]


def write_plot(trust: "Trust", file: Path) -> None:
    """The reliability plot as SVG."""
    from edgegeo.cli.files import write_whole
    from edgegeo.evaluate.plot import reliability_svg

    picture = reliability_svg(trust.reliability)
    write_whole(file, lambda draft: draft.write_text(picture, encoding="utf-8"))


def print_trust(trust: "Trust") -> None:
    """Fusion and reliability as tables."""
    names = {"none": "candidates alone", "own": "own tile in the gallery", "other": "other places' tiles only"}
    rows: list[tuple[str, ...]] = []
    for kind, one in trust.comparisons.items():
        if not rows:
            rows += [("single", "", *map(percent, one.single.values()), "0")]
            rows += [(f"best of {trust.count}", "", *map(percent, one.oracle.values()), "1")]
        for name, row in one.rules.items():
            closed = row[750.0].closed
            told = (
                "no gap"
                if closed.value != closed.value
                else f"{closed.value:.2f} [{closed.low:.2f}, {closed.high:.2f}]"
            )
            rows.append((name, names[kind], *(percent(gap.share.value) for gap in row.values()), told))
    thresholds = [f"{km:g} km" for km in next(iter(trust.comparisons.values())).single]
    table(("answer", "evidence", *thresholds, "gap closed at 750 km"), rows, "fusion")
    if trust.collapsed:
        say(f"mode collapse: {percent(trust.commonest)} of the answers lie on one spot")
    if not trust.reliability:
        say("doubt: the bundle has no fit; make one with: edgegeo fit")
        return
    table(
        ("made from", "calibration error", "in 50 %", "in 80 %", "in 90 %", "in 95 %", "median radius"),
        [
            (name, f"{r.expected_error:.3f}", *map(percent, r.coverage.values()), f"{r.median_radius_km:,.0f} km")
            for name, r in trust.reliability.items()
        ],
        "doubt: confidence against what came true, and places within the radii",
    )
    table(
        ("made from", "said", "came true", "answers"),
        [
            (name, percent(one.said), percent(one.came), one.places)
            for name, r in trust.reliability.items()
            for one in r.bins
        ],
        "reliability: within 750 km",
    )
