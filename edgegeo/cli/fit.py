"""edgegeo fit: what a bundle's radius, confidence and fusion are, learned from places that are known."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edgegeo.cli.flags import BundleFlag, GalleryFlag, JsonFlag, ProviderFlag, ThreadsFlag, flag
from edgegeo.cli.output import emit_json, percent, progress_bar, say, table

if TYPE_CHECKING:
    from edgegeo.evaluate.fitting import Fitted

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")


def command(
    bundle: BundleFlag = None,
    photos: Annotated[
        Path | None,
        flag("--photos", verb="fit", help="Folder of photos with GPS in their EXIF.", show_default="the planet's"),
    ] = None,
    gallery: GalleryFlag = None,
    places: Annotated[int, flag("--places", verb="fit", help="The planet's places to learn from.", min=60)] = 240,
    threads: ThreadsFlag = None,
    provider: ProviderFlag = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Fit fusion, re-ranking, radius and confidence on known places, and store them in the bundle as plain numbers."""
    from edgegeo.errors import InputError
    from edgegeo.evaluate.fitting import fit_photos, fit_planet, publish_fit
    from edgegeo.home import find_bundle
    from edgegeo.planet import DEFAULT_SEED
    from edgegeo.runtime import Gallery, Model
    from edgegeo.runtime.postgres.address import is_address

    if photos is not None and not photos.is_dir():
        raise InputError(f"no folder at {photos}; give --photos a folder of pictures with GPS in their EXIF")
    if photos is None and gallery is not None:
        raise InputError("--gallery belongs to --photos: the planet's places bring their own tiles")
    model = Model.open(find_bundle(bundle), threads, provider)
    with progress_bar() as progress:
        if photos is not None:
            if is_address(gallery):
                raise InputError("a fit needs the gallery's folder: it reads every tile's place, again and again")
            tiles = Gallery.open(gallery, bundle=model.bundle) if gallery is not None else None
            files = sorted(p for p in photos.rglob("*") if p.suffix.lower() in PICTURES)
            fitted = fit_photos(model, files, tiles, progress)
        else:
            seed = model.bundle.manifest.source.get("planet_seed", DEFAULT_SEED)
            if not isinstance(seed, int):
                raise InputError(f"{model.bundle.path} knows no planet; give --photos with pictures of its own world")
            fitted = fit_planet(model, places, seed, progress)
    published = publish_fit(model.bundle, fitted.fit)
    if as_json:
        emit_json({"bundle": str(published.path), "fingerprint": published.fingerprint, **_facts(fitted)})
        return
    _print(str(published.path), fitted)


def _facts(fitted: "Fitted") -> dict[str, object]:
    from edgegeo.schema import to_plain

    return {
        "winners": {"alone": fitted.winners[0], "with_tiles": fitted.winners[1]},
        "closeness": {"alone": fitted.alone, "with_tiles": fitted.together},
        "fit": to_plain(fitted.fit),
    }


def _print(path: str, fitted: "Fitted") -> None:
    places = fitted.fit.source.get("places", 0)
    say(f"{path}: fitted on {places:,} places and published again")
    for what, name in zip(("candidates alone", "candidates and tiles"), fitted.winners, strict=True):
        if name:
            say(f"{what}: {name} is best")
    rows = []
    for setting, doubt in fitted.fit.doubts.items():
        low, high = doubt.bands[0], doubt.bands[-1]
        radii = f"{low.radii_km[1]:,.0f} to {high.radii_km[1]:,.0f} km"
        rows.append((setting, f"{percent(low.confidence)} to {percent(high.confidence)}", radii))
    table(("made from", "within 750 km", "radius at 80 %"), rows)
    told = fitted.fit.source.get("rerank", {})
    for query, weighing in fitted.fit.rerank.items():
        before, after = told[query]["recall_at_1"]
        what = f"weighs {weighing.weight:.3f}, Recall@1 {percent(before)} to {percent(after)} on lists held out"
        say(f"re-ranking by {query}: {what if weighing.weight else 'tells nothing more than the search, so it is off'}")
    if fitted.fit.rerank:
        say(f"words and a photo together: the words count {percent(fitted.fit.text_share)}")
