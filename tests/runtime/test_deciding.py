import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgegeo.bundle import Bundle, open_bundle
from edgegeo.errors import BundleError, InputError
from edgegeo.geo import Position
from edgegeo.runtime.cue import cue_score, has_cue, statistics
from edgegeo.runtime.deciding import decide
from edgegeo.runtime.doubt import LEVELS, Band, Doubt, Fit, check_confidence, open_fit, setting_of, shown, write_fit
from edgegeo.runtime.fusion import Clues, Fusing, Linear, Prior
from edgegeo.schema import SchemaFault, parse, to_plain

SURE = Doubt(Linear(("agreement",), (1.0,), 0.0), (Band(-1e9, (500.0, 900.0, 1200.0, 1500.0), 0.4, 60),
                                                   Band(0.9, (100.0, 200.0, 300.0, 400.0), 0.95, 60)))  # fmt: skip


def fit(**changes: object) -> Fit:
    whole = Fit(1, Fusing("mean"), Fusing("mean"), {}, {"several": SURE}, None, ((0.0, 0.0),), {"places": 120})
    return replace(whole, **changes)  # type: ignore[arg-type]


def clues(*places: tuple[float, float], tiles: tuple[tuple[float, float], ...] = ()) -> Clues:
    found = np.array([tiles]).reshape(1, -1, 2)
    scores = np.linspace(0.9, 0.5, len(tiles)).reshape(1, -1)
    return Clues(np.array([places or [(np.nan, np.nan)]], float), np.zeros((1, max(1, len(places)))), found, scores)


def test_without_a_fit_the_median_decides_and_nothing_is_claimed() -> None:
    found = decide(clues((10.0, 10.0), (10.2, 10.0), (-50.0, 60.0)))
    assert found.position is not None
    assert abs(found.position.lat - 10) < 0.5
    assert found.evidence.decided == "generation"
    assert found.evidence.rule == "median of 3 candidates"
    assert (found.radii_km, found.radius_km, found.confidence, found.calibration) == (None,) * 4


def test_a_fit_judges_by_its_bands() -> None:
    together, apart = (
        decide(clues((10.0, 10.0), (10.2, 10.0)), fit()),
        decide(clues((10.0, 10.0), (-60.0, 90.0)), fit()),
    )
    assert (together.radius_km, together.confidence, together.calibration) == (200.0, 0.95, "fit")
    assert (apart.radius_km, apart.confidence) == (900.0, 0.4)
    # One answer and no gallery is a setting this fit does not know.
    assert decide(clues((10.0, 10.0)), fit()).confidence is None


def test_the_chooser_takes_the_tile_or_leaves_it() -> None:
    tiles = ((20.0, 20.0), (21.0, 20.0))
    for bias, source in ((5.0, "retrieval"), (-5.0, "fusion")):
        line = {"several+tiles": Linear(("cosine",), (0.0,), bias)}
        found = decide(clues((20.5, 20.0), (22.0, 20.0), tiles=tiles), fit(choosers=line))
        assert found.evidence.decided == source
        assert set(found.evidence.proposals) == {"generation", "retrieval", "fusion"}
        assert sum(found.evidence.candidates) == pytest.approx(1.0)
        assert sum(found.evidence.tiles) == pytest.approx(1.0)


def test_the_search_decides_where_nothing_was_written_and_reranking_where_it_is_sure() -> None:
    tiles = ((20.0, 20.0), (21.0, 20.0))
    alone = decide(clues(tiles=tiles))
    assert alone.position is not None
    assert (alone.position.lat, alone.position.lon) == (pytest.approx(20.0), pytest.approx(20.0))
    assert alone.evidence.decided == "retrieval"
    assert decide(clues((50.0, 50.0), tiles=tiles), sure_of_tile=True).evidence.decided == "retrieval"
    assert decide(clues((50.0, 50.0), tiles=tiles)).evidence.decided == "generation"
    nothing = decide(clues())
    assert (nothing.position, nothing.evidence.decided) == (None, "none")


def test_a_lone_answer_stands_as_it_was_written() -> None:
    for place in ((-33.0, 118.6), (33.3, -0.1), (-89.9, 179.9)):
        for tiles in ((), ((50.0, 50.0),)):
            found = decide(clues((np.nan, np.nan), place, tiles=tiles))
            assert found.position == Position(*place)


def test_a_prior_that_moves_the_answer_ends_the_fits_claim() -> None:
    some = clues((10.0, 10.0), (10.2, 10.0))
    moved = decide(some, fit(), Prior(Position(12.0, 10.0), 2000.0))
    assert (moved.evidence.decided, moved.calibration, moved.confidence) == ("fusion", None, None)
    assert 0 < moved.evidence.prior_pull < 0.5
    led = decide(some, fit(), Prior(Position(12.0, 10.0), 20.0))
    assert (led.evidence.decided, led.calibration, led.radius_km) == ("prior", "prior", pytest.approx(20.0))
    assert led.radii_km is not None
    assert list(led.radii_km) == sorted(led.radii_km)


def test_same_clues_same_verdict() -> None:
    some = clues((10.0, 10.0), (11.0, 10.0), tiles=((10.0, 10.5), (40.0, 40.0)))
    assert decide(some, fit()) == decide(some, fit())


@pytest.mark.parametrize("least", [-0.1, 1.1, float("nan"), float("inf")])
def test_confidences_that_mean_nothing(least: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        check_confidence(least)


def test_settings_by_what_there_is() -> None:
    asked = {
        (1, 0): "one",
        (7, 0): "several",
        (1, 3): "one+tiles",
        (2, 3): "several+tiles",
        (0, 3): "tiles",
        (0, 0): "",
    }
    assert {pair: setting_of(*pair) for pair in asked} == asked
    assert shown(np.array([1.0, 2.0, 3.0, 4.0])) == 2.0
    assert LEVELS[1] == 0.8


def test_a_fit_goes_through_its_file(tmp_path: Path, tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    assert open_fit(bundle) is None
    name = write_fit(fit(), tmp_path)
    assert parse(Fit, json.loads((tmp_path / name).read_text())) == fit()
    manifest = replace(bundle.manifest, fit=name, files={name: next(iter(bundle.manifest.files.values()))})
    assert open_fit(Bundle(tmp_path, manifest, "")) == fit()
    (tmp_path / name).write_text("{}")
    with pytest.raises(BundleError, match="fit the bundle again"):
        open_fit(Bundle(tmp_path, manifest, ""))


@pytest.mark.parametrize(
    "wrong",
    [{"schema": 2}, {"doubts": {"luck": SURE}}, {"choosers": {"luck": SURE.score}}],
)
def test_fits_that_are_none(wrong: dict) -> None:
    with pytest.raises(SchemaFault):
        parse(Fit, to_plain(fit()) | {key: to_plain(value) for key, value in wrong.items()})
    with pytest.raises(SchemaFault):
        parse(Doubt, to_plain(SURE) | {"bands": to_plain(SURE.bands[::-1])})


def test_blank_answers_are_known_again() -> None:
    assert fit().blank(Position(0.1, 0.1))
    assert not fit().blank(Position(1.0, 1.0))


def test_statistics_tell_grey_from_noise() -> None:
    grey = statistics(Image.new("RGB", (90, 70), (120, 120, 120)))
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    noise = statistics(Image.fromarray(pixels))
    assert grey["contrast"] < -6
    assert noise["grain"] > 0.9
    assert all(np.isfinite(value) for value in [*grey.values(), *noise.values()])
    line = Linear(("contrast",), (1.0,), 5.0)
    assert not has_cue(Image.new("L", (10, 10), 30), line)
    assert cue_score(noise, line) > 0
