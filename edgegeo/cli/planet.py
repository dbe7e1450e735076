"""edgegeo planet: pictures of the demonstration planet, to try the other verbs on."""

from pathlib import Path
from typing import Annotated

import typer

from edgegeo.cli.files import check_suffix, write_whole
from edgegeo.cli.flags import JsonFlag, flag
from edgegeo.cli.output import emit_json, say

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
PlaceFlag = Annotated[int, flag("--place", verb="planet", help="Number of the unseen place.", min=0)]
SizeFlag = Annotated[int, flag("--size", verb="planet", help="Height and width in pixels.", min=32, max=4096)]
SeedFlag = Annotated[
    int | None, flag("--seed", verb="planet", help="Which planet.", show_default="the packaged model's")
]


def group() -> typer.Typer:
    """The verbs under `edgegeo planet`."""
    app = typer.Typer(help="Write demonstration pictures: a photo, a tile, a contact sheet, the world map.")
    app.command("photo")(photo)
    app.command("tile")(tile)
    app.command("sheet")(sheet)
    app.command("map")(world_map)
    app.info.no_args_is_help = True
    return app


def photo(
    output: Annotated[Path, flag("--output", "-o", verb="planet", help="JPEG to write.")] = Path("photo.jpg"),
    place: PlaceFlag = 0,
    heading: Annotated[
        float | None, flag("--heading", verb="planet", help="Degrees from north.", show_default="the place's own")
    ] = None,
    size: SizeFlag = 256,
    seed: SeedFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a ground photo of an unseen place, with its position in EXIF."""
    from edgegeo.cli.demo import unseen_place
    from edgegeo.planet import DEFAULT_SEED, Planet
    from edgegeo.planet.photos import write_photo

    check_suffix(output, (".jpg", ".jpeg"))
    planet = Planet(DEFAULT_SEED if seed is None else seed)
    spot = unseen_place(planet, place)
    write_whole(output, lambda draft: write_photo(draft, planet, spot.lat, spot.lon, heading, size))
    _report(output, as_json, lat=spot.lat, lon=spot.lon, text=planet.describe(spot.lat, spot.lon))


def tile(
    output: Annotated[Path, flag("--output", "-o", verb="planet", help="PNG to write.")] = Path("tile.png"),
    place: PlaceFlag = 0,
    size: SizeFlag = 256,
    seed: SeedFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the satellite tile of an unseen place."""
    from edgegeo.cli.demo import unseen_place
    from edgegeo.planet import DEFAULT_SEED, Planet

    check_suffix(output, PICTURES)
    planet = Planet(DEFAULT_SEED if seed is None else seed)
    spot = unseen_place(planet, place)
    write_whole(output, planet.satellite(spot.lat, spot.lon, size).save)
    _report(output, as_json, lat=spot.lat, lon=spot.lon, text=planet.describe(spot.lat, spot.lon))


def sheet(
    output: Annotated[Path, flag("--output", "-o", verb="planet", help="PNG to write.")] = Path("sheet.png"),
    count: Annotated[int, flag("--count", verb="planet", help="Places to show.", min=1, max=200)] = 12,
    seed: SeedFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a contact sheet: tile, photo and description of several places."""
    from edgegeo.planet import DEFAULT_SEED, Planet
    from edgegeo.planet.contact import contact_sheet

    check_suffix(output, PICTURES)
    planet = Planet(DEFAULT_SEED if seed is None else seed)
    write_whole(output, contact_sheet(planet, n=count, split="test").save)
    _report(output, as_json, places=count)


def world_map(
    output: Annotated[Path, flag("--output", "-o", verb="planet", help="PNG to write.")] = Path("map.png"),
    width: Annotated[int, flag("--width", verb="planet", help="Pixels from west to east.", min=64, max=4096)] = 1024,
    seed: SeedFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the world map (equirectangular)."""
    from edgegeo.planet import DEFAULT_SEED, Planet

    check_suffix(output, PICTURES)
    write_whole(output, Planet(DEFAULT_SEED if seed is None else seed).overview(width).save)
    _report(output, as_json)


def _report(output: Path, as_json: bool, **facts: object) -> None:
    if as_json:
        emit_json({"file": str(output), **facts})
        return
    where = f"  ({facts['lat']:.4f}, {facts['lon']:.4f})" if "lat" in facts else ""
    say(f"wrote {output}{where}", *([str(facts["text"])] if "text" in facts else []))
