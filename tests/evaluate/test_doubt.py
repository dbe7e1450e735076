from collections.abc import Sequence

import numpy as np
import pytest

from edgegeo.errors import InputError
from edgegeo.evaluate.blank import KINDS, blank_pictures, fit_cue
from edgegeo.evaluate.doubt import collapse, conformal, fit_doubt, reliability
from edgegeo.evaluate.logistic import logistic
from edgegeo.evaluate.plot import reliability_svg
from edgegeo.evaluate.scenes import planet_scenes
from edgegeo.runtime.cue import cue_score, statistics
from edgegeo.runtime.doubt import LEVELS


def answers(count: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Errors whose scale a feature tells: half of the answers are near, half far."""
    rng = np.random.default_rng(seed)
    scale = rng.choice([200.0, 1500.0], count)
    return {
        "spread": np.log(scale) + rng.normal(0, 0.3, count),
        "luck": rng.normal(0, 1, count),
    }, scale * rng.exponential(1.0, count)


def test_radii_hold_what_they_promise_on_new_places() -> None:
    doubt = fit_doubt(*answers(1500, 0))
    features, errors = answers(4000, 1)
    radii, confidence = doubt.judge(features)
    said = reliability(confidence, radii, errors)
    for level in LEVELS:
        assert said.coverage[level] == pytest.approx(level, abs=0.03)
    assert said.passed
    assert said.expected_error < 0.05
    # It tells near from far, and doesn't say the mean to all.
    assert confidence.max() - confidence.min() > 0.4
    assert (np.diff(radii, axis=1) >= 0).all()


def test_overconfidence_is_seen() -> None:
    errors = np.array([100.0] * 50 + [5000.0] * 50)
    said = reliability(np.full(100, 0.9), np.full((100, len(LEVELS)), 200.0), errors)
    assert said.expected_error == pytest.approx(0.4)
    assert not said.passed
    assert said.coverage[0.95] == 0.5
    assert "0.400" in reliability_svg({"one": said})


def test_conformal_quantiles_are_order_statistics() -> None:
    errors = np.arange(1.0, 100.0)
    assert conformal(errors, 0.8) == 80.0
    assert conformal(errors, 0.5) == 50.0
    assert conformal(np.array([3.0]), 0.95) == 3.0


def test_too_few_places() -> None:
    with pytest.raises(InputError, match="at least 20"):
        fit_doubt({"a": np.zeros(5)}, np.zeros(5))
    with pytest.raises(InputError, match="at least one"):
        logistic({}, np.zeros(3))


def test_logistic_finds_the_weights() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(3, 2, 4000), rng.normal(0, 1, 4000)
    target = rng.random(4000) < 1 / (1 + np.exp(-(0.8 * a - 1.5 * b - 2)))
    line = logistic({"a": a, "b": b}, target)
    assert line.weights == (pytest.approx(0.8, abs=0.1), pytest.approx(-1.5, abs=0.12))
    assert line.bias == pytest.approx(-2, abs=0.25)
    assert np.isfinite(logistic({"a": a}, np.ones(4000)).bias)


def test_mode_collapse_of_a_set() -> None:
    rng = np.random.default_rng(0)
    spread = np.stack([rng.uniform(-60, 60, 200), rng.uniform(-180, 180, 200)], axis=1)
    assert collapse(spread)[0] < 0.05
    spread[:120] = (12.04, 34.0)
    share, spot = collapse(spread)
    assert share >= 0.6
    assert spot == (pytest.approx(12.0), pytest.approx(34.0))
    assert collapse(np.full((3, 2), np.nan)) == (0.0, None)


def found(photos: Sequence[bytes], seed: int, line: object) -> float:
    return float(np.mean([cue_score(statistics(p), line) <= 0 for p in blank_pictures(40, seed, photos)]))  # type: ignore[arg-type]


def test_pictures_that_show_nothing_are_found() -> None:
    photos = [scene.photo for scene in planet_scenes(24, "validation")]
    line = fit_cue(photos, blank_pictures(40, 1, photos))
    assert len(KINDS) == 4
    assert found(photos, 2, line) > 0.8  # 24 photos
    assert [statistics(p) for p in blank_pictures(4, 5)] == [statistics(p) for p in blank_pictures(4, 5)]
