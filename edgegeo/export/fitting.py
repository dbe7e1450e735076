"""An export's last measurement: fusion and doubt fitted on validation places, and checked on test places."""

from dataclasses import replace

from edgegeo.bundle import Bundle, Manifest
from edgegeo.evaluate import planet_scenes
from edgegeo.evaluate.fitting import COUNT, LEAST_PLACES, MOST_PLACES, TILES_A_PLACE, fit_planet, reliability_of
from edgegeo.evaluate.study import study_scenes
from edgegeo.progress import Progress
from edgegeo.runtime import Model
from edgegeo.runtime.doubt import write_fit


def with_fit(made: Bundle, places: int, progress: Progress) -> Manifest:
    """The manifest of a staged bundle with its fit written beside it, and the fit's reliability in the accuracy card.

    As it was where there are too few places, or the checkpoint belongs to no planet: `edgegeo fit` does it later.
    """
    manifest = made.manifest
    seed = manifest.source.get("planet_seed")
    if places < LEAST_PLACES or not isinstance(seed, int):
        return manifest
    model = Model(made)
    fit = fit_planet(model, places, seed, progress).fit
    count = min(places, MOST_PLACES)
    scenes = planet_scenes(count * TILES_A_PLACE, "test", seed, progress)
    study = study_scenes(model, scenes, COUNT, progress=progress, places=count)
    said = {name: one.to_dict() for name, one in reliability_of(study, fit).items()}
    return replace(manifest, fit=write_fit(fit, made.path), accuracy={"doubt": said})
