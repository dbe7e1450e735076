import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_grammar import add_grammar

from edgegeo.exif import write_gps


def photo(seed: int, file: Path, lat: float, lon: float) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    exif = Image.Exif()
    write_gps(exif, lat, lon)
    Image.fromarray(pixels).save(file, exif=exif)
    return file


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_grammar(tiny_bundle, tmp_path_factory.mktemp("cli-grammar") / "tiny").path


@pytest.fixture
def own(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "own"))


def test_fit_on_photos_then_locate_with_doubt(cli: Any, own: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(64):
        photo(i, folder / f"{i}.jpg", i - 30.0, 2.0 * i)
    told = cli("fit", "--bundle", own, "--photos", folder, "--json").json
    assert told["fit"]["source"]["places"] == 64
    assert set(told["fit"]["doubts"]) == {"one", "several"}
    plain = cli("locate", folder / "3.jpg", "--bundle", own, "--candidates", 10, "--json").json
    assert plain["calibration"] == "fit"
    assert 0 <= plain["confidence"] <= 1
    assert set(plain["radii_km"]) == {"0.5", "0.8", "0.9", "0.95"} or plain["warnings"]


def test_a_prior_and_a_smallest_confidence(cli: Any, own: Path, tmp_path: Path) -> None:
    picture = photo(1, tmp_path / "p.jpg", 1.0, 2.0)
    found = cli("locate", picture, "--bundle", own, "--prior", "10,20,5", "--min-confidence", 0.5, "--json").json
    assert found["source"] == "prior"
    assert found["radius_km"] == pytest.approx(5.0)
    assert found["position"]["lat"] == pytest.approx(10, abs=0.1)
    assert json.dumps(found["evidence"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--prior", "100,0,5"), "latitude must be"),
        (("--prior", "1,2,-5"), "radius must be above 0"),
        (("--prior", "here"), "LAT,LON,KM"),
        (("--min-confidence", "1.5"), "between 0 and 1"),
    ],
)
def test_flags_that_mean_nothing(cli: Any, own: Path, tmp_path: Path, flags: tuple[str, str], words: str) -> None:
    refused = cli("locate", photo(1, tmp_path / "p.jpg", 1.0, 2.0), "--bundle", own, *flags)
    assert refused.code == 2
    assert words in refused.err


def test_fits_without_places(cli: Any, own: Path, tmp_path: Path) -> None:
    photo(1, tmp_path / "one.jpg", 1.0, 2.0)
    refused = cli("fit", "--bundle", own, "--photos", tmp_path)
    assert refused.code == 2
    assert "1 of 1 photos" in refused.err
    assert cli("fit", "--bundle", own, "--photos", tmp_path / "none").code == 2
    assert cli("fit", "--bundle", own, "--gallery", tmp_path).code == 2
