"""A bundle's fit: rule of fusion, choice between tile and candidates, doubt and cue, from labelled places."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgegeo.bundle import Bundle, publish, staging
from edgegeo.errors import InputError
from edgegeo.evaluate.blank import blank_pictures, fit_cue
from edgegeo.evaluate.doubt import FOLDS, Reliability, fit_doubt, folds, reliability
from edgegeo.evaluate.fusion import best_way, closeness, ways_alone, ways_with_tiles
from edgegeo.evaluate.logistic import logistic
from edgegeo.evaluate.scenes import planet_scenes
from edgegeo.evaluate.study import GALLERY, NONE, OTHER, OWN, Study, study_photos, study_scenes
from edgegeo.evaluate.weighing import SearchFit, fit_in_gallery, fit_search
from edgegeo.exif import read_gps
from edgegeo.geo import Position
from edgegeo.progress import Progress, silent
from edgegeo.runtime import Gallery, Generator, Model
from edgegeo.runtime.deciding import UNFITTED, propose, settle
from edgegeo.runtime.doubt import FIT_NAME, SCHEMA_VERSION, Fit, write_fit
from edgegeo.runtime.fusion import Linear
from edgegeo.runtime.sphere import Doubles

LEAST_PLACES = 60
"""Fewer labelled places than a band needs say nothing about doubt."""
BLANKS = 64
MOST_PLACES = 240
TILES_A_PLACE = 3
"""A gallery of the planet's is larger than the places one can afford to locate: more tiles, more that look alike."""
COUNT = 10
"""Candidates a place."""
SAME_PLACE_KM = 25.0
_WRITTEN = {"one": ("logprob",), "several": ("logprob", "spread", "agreement", "wide")}
_TILES = ("cosine", "margin", "behind", "held", "near", "apart")
_SEARCH = ("cosine", "margin")


@dataclass(frozen=True)
class Fitted:
    """A fit, and how the ways to fuse compared on the places it was made from."""

    fit: Fit
    alone: dict[str, float]
    """Way -> closeness, candidates alone."""
    together: dict[str, float]
    """The same with tiles."""
    winners: tuple[str, str]


def features_of(setting: str) -> tuple[str, ...]:
    """What the score of a setting is made of."""
    written, _, tiles = setting.partition("+")
    if setting == "tiles":
        return _SEARCH
    return (*_WRITTEN[written], *(_TILES if tiles else ()))


def fit_study(study: Study, source: dict[str, Any], count: int | None = None) -> Fitted:
    """Everything but the check for cues. InputError for fewer than LEAST_PLACES places."""
    if len(study) < LEAST_PLACES:
        raise InputError(f"a fit needs at least {LEAST_PLACES} labelled places, got {len(study)}")
    count = study.count if count is None else count
    kinds = [kind for kind in (OWN, OTHER, GALLERY) if kind in study.found]
    generation = gallery = UNFITTED
    alone: dict[str, float] = {}
    together: dict[str, float] = {}
    names = ("", "")
    if count > 1:
        ways = ways_alone(study, count)
        name, alone = best_way(study, count, (NONE,), ways)
        generation, names = ways[name], (name, "")
        if kinds:
            ways = ways_with_tiles(study, count, kinds)
            name, together = best_way(study, count, kinds, ways)
            gallery, names = ways[name], (names[0], name)
    draft = Fit(SCHEMA_VERSION, generation, gallery, {}, {}, None, (), source)
    counts = {"one": 1, "several": count} if count > 1 else {"one": 1} if count else {}
    if kinds:
        choosers = {f"{name}+tiles": _chooser(study, k, kinds, draft, f"{name}+tiles") for name, k in counts.items()}
        draft = replace(draft, choosers=choosers)
    settings: list[tuple[str, int, list[str]]] = [(name, k, [NONE]) for name, k in counts.items()]
    if kinds:
        settings += [(f"{name}+tiles", k, kinds) for name, k in counts.items()] + [("tiles", 0, kinds)]
    doubts = {}
    for setting, k, tiles in settings:
        features, errors, places = _judged_unseen(study, k, tiles, draft, setting)
        if np.isfinite(errors).sum() >= LEAST_PLACES:
            doubts[setting] = fit_doubt(features, errors, places)
    return Fitted(replace(draft, doubts=doubts), alone, together, names)


def reliability_of(study: Study, fit: Fit) -> dict[str, Reliability]:
    """Setting -> how well the fit's confidences and radii hold over a study, all its kinds of tiles alike."""
    kinds = [kind for kind in (OWN, OTHER, GALLERY) if kind in study.found]
    out = {}
    for setting, doubt in fit.doubts.items():
        count = {"one": 1, "several": study.count}.get(setting.partition("+")[0], 0)
        tiles = kinds if "tiles" in setting else [NONE]
        if tiles and count <= study.count:
            features, errors, _ = judged(study, count, tiles, fit, setting)
            radii, confidence = doubt.judge(features)
            out[setting] = reliability(confidence, radii, errors)
    return out


def fit_pictures(model: Model, fit: Fit, photos: Sequence[Any], seed: int = 1) -> Fit:
    """The fit with the check for cues, and with what the model says to pictures that show nothing."""
    stored = [photo for photo in photos if isinstance(photo, bytes)]
    blanks = blank_pictures(BLANKS, seed, stored)
    said: list[tuple[float, float]] = []
    if model.bundle.manifest.roles.generate is not None:
        answers = Generator(model).answers(blanks[:16])
        said = [(one.position.lat, one.position.lon) for one in answers if one.position is not None]
    return replace(fit, cue=fit_cue(photos, blanks), blanks=tuple(sorted(set(said))))


def judged(
    study: Study, count: int, tiles: Sequence[str], fit: Fit, setting: str
) -> tuple[dict[str, Doubles], Doubles, Any]:
    """(features, kilometres off, number of the place) of the answers that `locate` would give, all kinds of tiles."""
    features: dict[str, list[Doubles]] = {name: [] for name in features_of(setting)}
    errors = []
    for kind in tiles:
        points, _, made = settle(study.clues(count, kind), fit, setting)
        errors.append(study.errors(points))
        for name in features:
            features[name].append(made.features[name])
    numbers: Any = np.tile(np.arange(len(study)), len(tiles))
    far = np.concatenate(errors)
    if count:
        answered: Any = np.asarray(np.isfinite(study.positions[:, :count, 0]).any(axis=1))[numbers]
        return {n: np.concatenate(v)[answered] for n, v in features.items()}, far[answered], numbers[answered]
    return {n: np.concatenate(v) for n, v in features.items()}, far, numbers


def _judged_unseen(
    study: Study, count: int, tiles: Sequence[str], draft: Fit, setting: str
) -> tuple[dict[str, Doubles], Doubles, Any]:
    """As `judged`, but no place is judged by a chooser that has seen it: its answers would look too good."""
    if setting not in draft.choosers:
        return judged(study, count, tiles, draft, setting)
    fold = folds(np.arange(len(study)))
    parts = []
    for number in range(FOLDS):
        line = _chooser(study.rows(fold != number), count, tiles, draft, setting)
        held = np.flatnonzero(fold == number)
        values, errors, rows = judged(study.rows(held), count, tiles, replace(draft, choosers={setting: line}), setting)
        parts.append((values, errors, held[rows]))
    features = {name: np.concatenate([values[name] for values, _, _ in parts]) for name in features_of(setting)}
    return features, np.concatenate([e for _, e, _ in parts]), np.concatenate([rows for _, _, rows in parts])


def _chooser(study: Study, count: int, kinds: Sequence[str], draft: Fit, setting: str) -> Linear:
    """The better of two lines: "the tile is nearer than the candidates", and "it shows the place itself".

    Which one brings more answers within 750 km depends on how good the candidates are.
    """
    features: dict[str, list[Doubles]] = {name: [] for name in features_of(setting)}
    nearer, same = [], []
    for kind in kinds:
        made = propose(study.clues(count, kind), draft.generation, draft.gallery)
        tile, joint = study.errors(made.tile), study.errors(made.joint)
        nearer.append(tile < joint)
        same.append(tile <= SAME_PLACE_KM)
        for name in features:
            features[name].append(made.features[name])
    known = {name: np.concatenate(values) for name, values in features.items()}
    lines = [logistic(known, np.concatenate(target)) for target in (nearer, same)]
    return max(lines, key=lambda line: _closeness_with(line, study, count, kinds, draft, setting))


def _closeness_with(
    line: Linear, study: Study, count: int, kinds: Sequence[str], draft: Fit, setting: str
) -> float:  # fmt: skip
    fit = replace(draft, choosers={setting: line})
    return float(np.mean([closeness(study.errors(settle(study.clues(count, k), fit, setting)[0])) for k in kinds]))


def fit_planet(model: Model, places: int, planet_seed: int, progress: Progress = silent) -> Fitted:
    """A fit on validation places of the planet: up to MOST_PLACES of them, and three times as many tiles."""
    places = min(places, MOST_PLACES)
    scenes = planet_scenes(places * TILES_A_PLACE, "validation", planet_seed, progress)
    study = study_scenes(model, scenes, COUNT, progress=progress, places=places)
    search = fit_search(model, scenes, places, progress)
    tiles = len(scenes) if study.found else 0
    source = {"places": places, "split": "validation", "planet_seed": planet_seed, "tiles": tiles, "candidates": COUNT}
    fitted = with_search(fit_study(study, source), search)
    return replace(fitted, fit=fit_pictures(model, fitted.fit, [scene.photo for scene in scenes]))


def fit_photos(
    model: Model, photos: Sequence[Path], gallery: Gallery | None = None, progress: Progress = silent
) -> Fitted:  # fmt: skip
    """A fit on photos whose EXIF holds a position; those without one are passed over."""
    known = [(photo, place) for photo in photos if (place := position_of(photo)) is not None]
    if len(known) < LEAST_PLACES:
        raise InputError(
            f"{len(known)} of {len(photos)} photos have a GPS position in their EXIF; a fit needs at least "
            f"{LEAST_PLACES}: give more photos"
        )
    truth = np.array([(place.lat, place.lon) for _, place in known])
    study = study_photos(model, [photo for photo, _ in known], truth, gallery, COUNT, progress=progress)
    source = {"places": len(known), "split": "photos", "tiles": len(gallery) if gallery else 0, "candidates": COUNT}
    fitted = fit_study(study, source)
    if gallery is not None:
        fitted = with_search(fitted, fit_in_gallery(model, [photo for photo, _ in known], truth, gallery, progress))
    return replace(fitted, fit=fit_pictures(model, fitted.fit, [photo.read_bytes() for photo, _ in known[:200]]))


def with_search(fitted: Fitted, search: SearchFit) -> Fitted:
    """The fit with its weighings, and with what they do on lists held out among its sources."""
    told = {kind: {"lists": w.lists, "recall_at_1": [w.before, w.after]} for kind, w in search.weighed.items()}
    weighings = {kind: one.weighing for kind, one in search.weighed.items()}
    source = {**fitted.fit.source, "rerank": told}
    return replace(fitted, fit=replace(fitted.fit, rerank=weighings, text_share=search.text_share, source=source))


def position_of(photo: Path) -> Position | None:
    """Where a photo says it was taken; None for one that doesn't, or can't be opened."""
    try:
        with Image.open(photo) as image:
            return read_gps(image)
    except (OSError, ValueError, SyntaxError):
        return None


def publish_fit(bundle: Bundle, fit: Fit) -> Bundle:
    """The same bundle with another fit, published whole at its place: its hashes and its fingerprint are new."""
    with staging(bundle.path) as folder:
        for name in bundle.manifest.files:
            if name == FIT_NAME:
                continue
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            # A copy and no link: what stood here before is removed, and a bundle holds plain files only.
            shutil.copyfile(bundle.path / name, folder / name)
        manifest = replace(bundle.manifest, fit=write_fit(fit, folder))
        return publish(folder, manifest, bundle.path)
