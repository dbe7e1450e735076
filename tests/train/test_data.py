"""Drawn places: equal to the runtime's preprocessing, cached, continued."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgegeo.errors import TrainingError
from edgegeo.planet import Planet
from edgegeo.runtime.pictures import prepare_picture
from edgegeo.train.data import Drawing, grey_levels, planet_places
from edgegeo.train.settings import Data, Shape
from edgegeo.train.skeleton import image_spec
from edgegeo.train.trunk import picture_tensor

SPEC = image_spec(Shape(image_size=32))


def test_cached_pictures_are_the_runtimes_pixels(data: Data) -> None:
    import torch

    places = planet_places(Drawing(data.cache, "validation", 4, SPEC, data.planet_seed), workers=1)
    planet = Planet(data.planet_seed)
    words = places.words[2]
    expected = prepare_picture(planet.satellite(words.lat, words.lon), SPEC).inputs["pixel_values"][0]
    got = picture_tensor(places.pictures("tile", np.array([2])), torch.float32)[0].numpy()
    assert np.abs(got - expected).max() < 1e-6
    assert words.facts["biome"] == planet.place(words.lat, words.lon).biome


def test_a_cache_of_other_places_is_refused(data: Data) -> None:
    drawing = Drawing(data.cache, "validation", 4, SPEC, data.planet_seed)
    planet_places(drawing, workers=1)
    for other in (replace(drawing, planet_seed=1), replace(drawing, n=5)):
        with pytest.raises(TrainingError, match="name another --cache"):
            planet_places(other, workers=1)


def test_an_interrupted_drawing_continues(tmp_path: Any) -> None:
    drawing = Drawing(tmp_path, "validation", 2, SPEC, 2026)
    before = planet_places(drawing, workers=1).pictures("tile", np.array([0, 1]))
    (tmp_path / "validation" / "words-00000.jsonl").unlink()
    assert np.array_equal(planet_places(drawing, workers=1).pictures("tile", np.array([0, 1])), before)


def test_grey_levels_survive_the_round_trip() -> None:
    image = Planet().satellite(0.0, 0.0, 32)
    assert np.array_equal(grey_levels(image, SPEC), np.asarray(image))
