"""Fusion and doubt of the packaged model: which rule closes how much of the gap, and what its radii are worth.

    python benchmarks/fusion.py --bundle BUNDLE [--places 1000] [--cache FOLDER]

Rules are chosen and everything is fitted on validation places, as `edgegeo export` does it (240 places, 720 tiles);
the numbers are those of test places. Three settings: candidates alone, with a gallery that holds the place's own tile,
and with one that holds the tiles of other places only. --cache keeps the located places between runs.
Writes benchmarks/results/fusion.json, .md and .svg.
"""

import argparse
import json
from dataclasses import replace
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgegeo.evaluate import planet_scenes
from edgegeo.evaluate.blank import KINDS, blank_pictures
from edgegeo.evaluate.bootstrap import interval
from edgegeo.evaluate.doubt import collapse
from edgegeo.evaluate.fitting import MOST_PLACES, TILES_A_PLACE, Fitted, fit_pictures, fit_study, reliability_of
from edgegeo.evaluate.fusion import Gap, compare, ways_alone, ways_with_tiles
from edgegeo.evaluate.plot import reliability_svg
from edgegeo.evaluate.study import NONE, OTHER, OWN, Study, study_scenes
from edgegeo.geo import GPS_THRESHOLDS_KM
from edgegeo.measure import machine
from edgegeo.runtime import Model
from edgegeo.runtime.cue import cue_score, statistics
from edgegeo.runtime.deciding import settle
from edgegeo.runtime.doubt import setting_of

RESULTS = Path(__file__).parent / "results"
COUNTS = (10, 32)
NAMES = {NONE: "candidates alone", OWN: "gallery with the place's own tile", OTHER: "gallery of other places only"}


def located(model: Model, split: str, places: int, tiles: int, cache: Path | None) -> Study:
    """A study, from the cache where it is there."""
    file = cache / f"{split}-{places}-{tiles}.npz" if cache else None
    if file is not None and file.is_file():
        kept = np.load(file)
        found = {kind: (kept[f"{kind}_places"], kept[f"{kind}_scores"]) for kind in (OWN, OTHER)}
        return Study(kept["truth"], kept["positions"], kept["logprobs"], found)
    study = study_scenes(model, planet_scenes(tiles, split), max(COUNTS), places=places)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"{kind}_places": pair[0] for kind, pair in study.found.items()}
        arrays |= {f"{kind}_scores": pair[1] for kind, pair in study.found.items()}
        np.savez(file, truth=study.truth, positions=study.positions, logprobs=study.logprobs, **arrays)
    return study


def measured(known: Study, test: Study, count: int) -> tuple[Fitted, dict[str, Any]]:
    """Everything about `count` candidates: rules on validation and test places, and the whole answer."""
    fitted = fit_study(known, {}, count)
    fit, out = fitted.fit, {}
    for kind in (NONE, OWN, OTHER):
        ways = ways_alone(known, count) if kind == NONE else ways_with_tiles(known, count, (OWN, OTHER))
        setting = setting_of(count, 0 if kind == NONE else 1)
        whole = compare(test, count, kind, ways, lambda clues, setting=setting: settle(clues, fit, setting)[0])
        seen = compare(known, count, kind, ways)
        out[kind] = {
            "chosen": fitted.winners[0 if kind == NONE else 1],
            "single": {f"{km:g}": share for km, share in whole.single.items()},
            "oracle": {f"{km:g}": share for km, share in whole.oracle.items()},
            "test": {name: {f"{km:g}": _gap(g) for km, g in row.items()} for name, row in whole.rules.items()},
            "validation": {name: {f"{km:g}": _gap(g) for km, g in row.items()} for name, row in seen.rules.items()},
        }
    return fitted, out


def single_answer(fitted: Fitted, test: Study) -> dict[str, Any]:
    """One written position and a gallery: the answer as `locate` gives it, and as it was before (the written one)."""
    before = test.distances(1)[:, 0] <= 750
    out = {"written alone (before)": vars(interval(before.astype(float)))}
    for kind in (OWN, OTHER):
        far = test.errors(settle(test.clues(1, kind), fitted.fit, "one+tiles")[0])
        out[NAMES[kind]] = vars(interval((far <= 750).astype(float)))
    return out


def cues(model: Model, fitted: Fitted, places: int) -> dict[str, Any]:
    """Shares of pictures taken for showing nothing: test photos, and blank pictures of another seed."""
    known = [s.photo for s in planet_scenes(MOST_PLACES, "validation")]
    fit = fit_pictures(model, fitted.fit, known)
    assert fit.cue is not None
    test = [scene.photo for scene in planet_scenes(places, "test")]
    refused = [cue_score(statistics(Image.open(BytesIO(p))), fit.cue) <= 0 for p in test]
    blanks = blank_pictures(400, 99, test)
    found = np.array([cue_score(statistics(p), fit.cue) <= 0 for p in blanks])
    kinds = {kind: float(found[i :: len(KINDS)].mean()) for i, kind in enumerate(KINDS)}
    return {"photos refused": float(np.mean(refused)), "blank pictures found": float(found.mean()), "by kind": kinds}


def _gap(one: Gap) -> dict[str, Any]:
    def finite(values: dict[str, float]) -> dict[str, float | None]:
        return {k: v if np.isfinite(v) else None for k, v in values.items()}

    return {"share": vars(one.share), "closed": finite(vars(one.closed))}


def report(found: dict[str, Any]) -> str:
    """The results in words and tables."""
    lines = [f"# Fusion and doubt: {found['bundle']}, {found['places']:,} test places", ""]
    lines += [
        "Rules chosen and fitted on {places} validation places with {tiles} tiles. ".format(**found["fitted on"])
        + f"{found['machine']['cpu']}, {found['date']}. Intervals: 95 %, bootstrap over places.",
        "`closed` is the share of the gap between the single answer and the best of the same K candidates.",
    ]
    for count, kinds in found["candidates"].items():
        for kind, one in kinds.items():
            lines += ["", f"## K = {count}, {NAMES[kind]} (chosen on validation: {one['chosen']})", ""]
            lines += [_row("", *(f"{km:g} km" for km in GPS_THRESHOLDS_KM), "closed at 750 km", "validation: closed")]
            lines += [_row(*["---"] * (len(GPS_THRESHOLDS_KM) + 3))]
            for name in ("single", "oracle"):
                lines += [_row(name, *(f"{share:.1%}" for share in one[name].values()), "", "")]
            ranked = sorted(one["test"], key=lambda n: -one["test"][n]["750"]["share"]["value"])
            for name in ["locate", *(n for n in ranked if n != "locate")]:
                shares = [f"{one['test'][name][f'{km:g}']['share']['value']:.1%}" for km in GPS_THRESHOLDS_KM]
                seen = one["validation"].get(name, {}).get("750")
                bold = f"**{name}**" if name in ("locate", one["chosen"]) else name
                closed = _closed(one["test"][name]["750"]["closed"])
                lines += [_row(bold, *shares, closed, _closed(seen["closed"]) if seen else "")]
    lines += ["", "## One written position and a gallery: within 750 km", ""]
    lines += [f"- {name}: {m['value']:.1%} [{m['low']:.1%}, {m['high']:.1%}]" for name, m in found["single"].items()]
    for count, rows in found["reliability"].items():
        lines += ["", f"## Doubt, K = {count} (with tiles: own tile in for half of the answers, out for the other)", ""]
        lines += [_row("made from", "answers", "expected calibration error", "in 50 %", "in 80 %", "in 90 %", "in 95 %",
                       "median radius at 80 %"), _row(*["---"] * 8)]  # fmt: skip
        for name, r in rows.items():
            held = [f"{share:.1%}" for share in r["coverage"].values()]
            error = f"{r['expected_calibration_error']:.3f}"
            lines += [_row(name, str(r["places"]), error, *held, f"{r['median_radius_km']:,.0f} km")]
    lines += ["", "## Pictures that show nothing", ""]
    lines += [f"- {name}: {share:.1%}" for name, share in found["cues"].items() if isinstance(share, float)]
    lines += [f"- {kind}: {share:.1%} found" for kind, share in found["cues"]["by kind"].items()]
    lines += [f"- commonest spot among the single answers: {found['collapse']:.1%} of them (25 % is mode collapse)"]
    return "\n".join([*lines, ""])


def _closed(metric: dict[str, Any]) -> str:
    if metric["value"] is None:
        return "no gap"
    return f"{metric['value']:.2f} [{metric['low'] or 0:.2f}, {metric['high'] or 0:.2f}]"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Locate, fit, compare, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--places", type=int, default=1000)
    parser.add_argument("--cache", type=Path)
    given = parser.parse_args()
    model = Model.open(given.bundle, threads=1)
    known = located(model, "validation", MOST_PLACES, MOST_PLACES * TILES_A_PLACE, given.cache)
    test = located(model, "test", given.places, given.places, given.cache)
    found: dict[str, Any] = {"bundle": model.bundle.manifest.name, "places": given.places, "date": str(date.today())}
    found |= {"machine": machine(), "fitted on": {"places": len(known), "tiles": MOST_PLACES * TILES_A_PLACE}}
    found |= {"candidates": {}, "reliability": {}}
    for count in COUNTS:
        fitted, found["candidates"][str(count)] = measured(known, test, count)
        part = replace(test, positions=test.positions[:, :count], logprobs=test.logprobs[:, :count])
        said = reliability_of(part, fitted.fit)
        found["reliability"][str(count)] = {name: one.to_dict() for name, one in said.items()}
        if count == COUNTS[0]:
            found["single"], found["cues"] = single_answer(fitted, test), cues(model, fitted, min(given.places, 400))
            RESULTS.joinpath("fusion.svg").write_text(reliability_svg(said), encoding="utf-8")
    found["collapse"] = collapse(test.positions[:, 0])[0]
    RESULTS.joinpath("fusion.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    RESULTS.joinpath("fusion.md").write_text(report(found), encoding="utf-8")


if __name__ == "__main__":
    main()
