"""edgegeo data: look at a data set before training on it, and write the planet as one."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgegeo.cli.flags import JsonFlag, flag, named_values
from edgegeo.cli.output import emit_json, note, progress_bar, say

if TYPE_CHECKING:
    from edgegeo.datasets import Report
    from edgegeo.datasets.sets import Loaded


def group() -> typer.Typer:
    """The verbs under `edgegeo data`."""
    app = typer.Typer(help="Check a data set, list those known, or write the planet as one.")
    app.command("check")(check)
    app.command("list")(list_known)
    app.command("planet")(planet)
    app.info.no_args_is_help = True
    return app


def check(
    name: Annotated[str, typer.Argument(help="Data set (edgegeo data list), or auto.", envvar="EDGEGEO_DATA_NAME")],
    root: Annotated[
        Path | None, typer.Argument(help="Its folder.", show_default="none, for the planet", envvar="EDGEGEO_DATA_ROOT")
    ] = None,
    split: Annotated[
        str | None, flag("--split", verb="data", help="train, val, test ...", show_default="test, where there is one")
    ] = None,
    option: Annotated[
        list[str] | None, flag("--option", verb="data", help="A loader's option as NAME=VALUE; may repeat.")
    ] = None,
    check_images: Annotated[bool, flag("--check-images", verb="data", help="Decode every picture once.")] = False,
    strict: Annotated[bool, flag("--strict", verb="data", help="A refused row is an error.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Read a split and say what was kept, what was refused and why, which traps were met, and one sample."""
    from edgegeo.datasets import open_dataset
    from edgegeo.datasets.sets import count

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the report repeats them below
        loaded = open_dataset(name, root, split, strict=strict, check_images=check_images, **named_values(option or []))
    report = loaded.report
    protocols = getattr(loaded, "protocols", ())
    if as_json:
        emit_json({"counts": count(loaded), "protocols": protocols, "report": report, "sample": _sample(loaded)})
        return
    refused = f"{report.refused_count:,} refused" if report.refused else "none refused"
    say(f"{report.dataset}, {report.split} of {report.root}")
    say(f"{report.read:,} rows read, {report.kept:,} kept, {refused}")
    say("holds " + ", ".join(f"{number:,} {what}" for what, number in count(loaded).items()))
    if protocols:
        say("scored as " + "; ".join(f"'{protocol.name}'" for protocol in protocols))
    _tell(report)
    say("sample:", *(f"  {key}: {' '.join(str(value).split())[:200]}" for key, value in _sample(loaded).items()))


def list_known(as_json: JsonFlag = False) -> None:
    """The data sets edgegeo reads, and the files each is made of."""
    from edgegeo.datasets import forms

    known = forms().values()
    if as_json:
        emit_json([{"name": f.name, "title": f.title, "layout": f.layout, "splits": f.splits} for f in known])
        return
    width = max(len(form.name) for form in known)
    say(*(f"{form.name:<{width}}  {form.layout}" for form in known))


def planet(
    output: Annotated[Path, flag("--output", "-o", verb="data", help="Folder to write.")],
    places: Annotated[int, flag("--places", verb="data", help="Places.", min=1, max=1_000_000)] = 100,
    form: Annotated[str, flag("--form", verb="data", help="retrieval or sft.")] = "retrieval",
    split: Annotated[str, flag("--split", verb="data_planet", help="train, validation or test.")] = "train",
    answers: Annotated[str, flag("--answers", verb="data", help="caption or tag, for sft.")] = "caption",
    captions: Annotated[int, flag("--captions", verb="data", help="Texts a place, for retrieval.", min=1, max=99)] = 5,
    size: Annotated[int, flag("--size", verb="data", help="Pixels of a picture's side.", min=32, max=2048)] = 256,
    seed: Annotated[int, flag("--seed", verb="data", help="Phrasing of the geo-captions.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Write places of the planet: captions with tiles (Karpathy split file), or conversations (sharegpt)."""
    from edgegeo.datasets.planet_folder import PlanetFolder, write_planet
    from edgegeo.datasets.sets import count

    what = PlanetFolder(form, places, split, captions, answers, size, seed=seed)
    with progress_bar() as progress:
        loaded = write_planet(output, what, progress)
    if as_json:
        emit_json({"folder": str(output), "dataset": loaded.report.dataset, "counts": count(loaded)})
        return
    held = ", ".join(f"{number:,} {what}" for what, number in count(loaded).items())
    say(f"wrote {output}: {held}, read back as {loaded.report.dataset}")


def _tell(report: "Report") -> None:
    for text in report.warnings:
        note(f"warning: {text}")
    for refusal in report.refused:
        say(f"refused {refusal.count:>7,} x {refusal.reason}, for instance {refusal.examples[0]}")
    for trap in report.traps:
        say(f"met     {trap.count:>7,} x {trap.what}, first {trap.first}")


def _sample(loaded: "Loaded") -> dict[str, Any]:
    """The first row as a person would look at it."""
    from edgegeo.datasets import GpsSet, PositionSet, RetrievalSet

    if isinstance(loaded, RetrievalSet):
        query = loaded.queries[0]
        hits = loaded.positives(query)
        target = loaded.gallery[hits[0]] if hits else None
        return {
            "query": query.text or str(query.image),
            "group": query.group,
            "hits": len(hits),
            "first hit": (str(target.image) if target.image else target.text) if target else None,
        }
    if isinstance(loaded, GpsSet):
        sample = loaded.samples[0]
        return {"picture": str(sample.image), "lat": sample.position.lat, "lon": sample.position.lon}
    if isinstance(loaded, PositionSet):
        return {"lat": float(loaded.positions[0, 0]), "lon": float(loaded.positions[0, 1])}
    row = loaded.rows[0]
    return {"picture": str(row.images[0]), "prompt": row.prompt, "answer": row.answer}
