import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgegeo.bundle import open_bundle
from edgegeo.errors import InputError
from edgegeo.evaluate.fitting import fit_photos, fit_study, publish_fit, reliability_of
from edgegeo.evaluate.fusion import best_way, compare, gap, ways_alone
from edgegeo.evaluate.study import NONE, OTHER, OWN, Study, near
from edgegeo.exif import write_gps
from edgegeo.runtime import Locator, Model, verify_bundle
from edgegeo.runtime.fusion import Fusing


def study(count: int = 120, seed: int = 0) -> Study:
    """A model that guesses around the place, and an embedding that mostly knows it."""
    rng = np.random.default_rng(seed)
    truth = np.stack([rng.uniform(-50, 50, count), rng.uniform(-179, 179, count)], axis=1)
    scale = rng.choice([3.0, 9.0], (count, 1, 1))
    positions = truth[:, None] + rng.normal(0, 1, (count, 6, 2)) * scale
    positions[..., 1] = (positions[..., 1] + 180) % 360 - 180
    tiles = rng.normal(size=(count, 16))
    tiles /= np.linalg.norm(tiles, axis=1, keepdims=True)
    queries = tiles + rng.normal(0, 0.25, tiles.shape)
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    stored = tiles.astype(np.float32)
    found = {OWN: near(queries, stored, truth), OTHER: near(queries, stored, truth, without_own=True)}
    return Study(truth, positions, rng.normal(-5, 1, (count, 6)), found)


def test_gap_is_nought_for_the_single_answer_and_one_for_the_oracle() -> None:
    single, best = np.array([900.0, 100.0, 900.0, 900.0]), np.array([100.0, 100.0, 300.0, 900.0])
    assert gap(single, single, best, 750).closed.value == 0
    assert gap(best, single, best, 750).closed.value == 1
    half = gap(np.array([900.0, 100.0, 300.0, 900.0]), single, best, 750)
    assert (half.share.value, half.closed.value) == (0.5, 0.5)
    assert np.isnan(gap(single, best, best, 5000).closed.value)


def test_own_tiles_are_left_out() -> None:
    some = study(40)
    own, other = some.found[OWN][0][:, 0], some.found[OTHER][0]
    assert (own == some.truth).all(axis=1).mean() > 0.7
    assert not (other == some.truth[:, None]).all(axis=2).any()
    assert (np.diff(some.found[OTHER][1], axis=1) <= 0).all()


def test_fusion_closes_the_gap_and_doubt_keeps_its_word() -> None:
    known, new = study(240), study(240, seed=1)
    fitted = fit_study(known, {"places": 240})
    assert set(fitted.fit.doubts) == {"one", "several", "one+tiles", "several+tiles", "tiles"}
    assert fitted.winners[0] in fitted.alone
    assert fitted.winners[1] in fitted.together
    shown = compare(new, 6, NONE, {"chosen": fitted.fit.generation, "first": Fusing("first")})
    assert shown.rules["chosen"][750.0].closed.value > 0.3
    assert shown.rules["first"][750.0].closed.value == 0
    for one in reliability_of(new, fitted.fit).values():
        assert one.expected_error < 0.12  # 240 places
    assert fit_study(known, {"places": 240}) == fitted


def test_a_learned_scorer_is_among_the_ways() -> None:
    some = study(80)
    ways = ways_alone(some, 6)
    assert ways["mean, learned"].scorer is not None
    name, scores = best_way(some, 6, (NONE,), ways)
    assert scores[name] == max(scores.values())
    assert len(scores) == len(ways)


def test_too_few_places_and_too_many_candidates() -> None:
    with pytest.raises(InputError, match="at least 60"):
        fit_study(study(30), {})
    with pytest.raises(InputError, match="6 candidates"):
        compare(study(30), 7, NONE, {})


def test_a_fit_is_published_with_the_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, place)
    before = open_bundle(place)
    fit = fit_study(study(), {"places": 120}).fit
    after = publish_fit(before, fit)
    assert after.manifest.fit in after.manifest.files
    assert after.fingerprint != before.fingerprint
    assert after.embedding_id == before.embedding_id
    assert Locator.open(after).fit == fit
    assert verify_bundle(after).passed
    again = publish_fit(after, replace(fit, blanks=((1.0, 2.0),)))
    assert Locator.open(again).fit == replace(fit, blanks=((1.0, 2.0),))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle"]


def test_photos_without_positions_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 32))
    image.save(tmp_path / "bare.jpg")
    exif = Image.Exif()
    write_gps(exif, 12.0, 34.0)
    image.save(tmp_path / "placed.jpg", exif=exif)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match="1 of 3 photos"):
        fit_photos(Model.open(tiny_bundle, threads=1), sorted(tmp_path.glob("*.jpg")))
