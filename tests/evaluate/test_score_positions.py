"""Positions scored: thresholds, GeoScore, missing answers, and answers that are all the same."""

import math
from pathlib import Path

import numpy as np
import pytest
from colours import Colours, paint

from edgegeo.datasets import GpsSet, Report, SftRow, SftSet, open_dataset
from edgegeo.datasets.protocol import GPS
from edgegeo.errors import BundleError, InputError
from edgegeo.evaluate.score_dataset import Sampling, as_scored, score_dataset
from edgegeo.evaluate.score_positions import effective_spots, geoscore, score_positions
from edgegeo.evaluate.section import Section
from edgegeo.geo import EARTH_RADIUS_KM, Position

DEGREE = math.pi * EARTH_RADIUS_KM / 180


def photos(root: Path, *rows: str, header: str = "image_id,lat,lon") -> GpsSet:
    """Pictures whose red counts them: 0.png, 10.png, ..."""
    (root / "rows.csv").write_text("\n".join([header, *rows]) + "\n")
    for row in rows:
        name = row.split(",")[0]
        paint(root / name, int(name.split(".")[0]))
    found = open_dataset("mr40k" if "benchmark" in header else "gps-csv", root)
    assert isinstance(found, GpsSet)
    return found


def values(section: Section, name: str) -> list[float]:
    return next(o.values for o in section.outcomes if o.name == name).tolist()


def test_geoscore_by_hand() -> None:
    assert geoscore(0.0) == 5000
    assert geoscore(1492.7) == pytest.approx(5000 / math.e)
    assert geoscore(1492.7 * math.log(2)) == pytest.approx(2500)
    assert geoscore([np.inf, 20015.0]).tolist() == pytest.approx([0.0, 0.0075], abs=1e-4)


def test_kilometres_and_misses(tmp_path: Path) -> None:
    """Along a meridian a degree is 111.195 km, whatever the latitude."""
    data = photos(tmp_path, "0.png,10,20", "10.png,10,20", "20.png,10,20", "30.png,0,180", "40.png,10,20")
    near, far = 24.9 / DEGREE, 25.1 / DEGREE
    says = {
        0: f"<answer>{10 + near:.9f}, 20</answer>",
        10: f"<answer>{10 + far:.9f}, 20</answer>",
        20: "no idea",
        30: "<answer>0, -179.5</answer>",  # across the antimeridian: half a degree
        40: "<answer>0, 0</answer>",
    }
    result = score_positions(Colours(says), data)
    section = result.sections[0]
    assert values(section, "within_25_km") == [1, 0, 0, 0, 0]
    assert values(section, "within_200_km") == [1, 1, 0, 1, 0]
    assert values(section, "answered") == [1, 1, 0, 1, 1]
    assert values(section, "geoscore")[2] == 0
    assert section.metrics["within_1_km"].value == 0
    assert section.metrics["median_km"].value == pytest.approx(DEGREE / 2)
    assert section.metrics["geoscore"].value == pytest.approx(np.mean(geoscore([24.9, 25.1, np.inf, DEGREE / 2,
        2 * EARTH_RADIUS_KM * math.asin(math.sqrt(math.sin(math.radians(5)) ** 2
        + math.cos(math.radians(10)) * math.sin(math.radians(10)) ** 2))])))  # fmt: skip
    assert section.facts["distinct_answers"] == 4
    row = list(section.details())[2]
    assert (row["query"], row["answer"], row["error_km"], row["answered_lat"]) == ("20.png", "no idea", "", "")
    found = section.to_dict()
    assert found["metrics"]["on_commonest_spot"]["queries"] == 4  # of the answers


def test_a_median_beyond_every_answer_has_no_number(tmp_path: Path) -> None:
    data = photos(tmp_path, "0.png,10,20", "10.png,10,20")
    result = score_positions(Colours({0: "", 10: ""}), data)
    found = result.to_dict()["sections"][0]
    assert found["metrics"]["median_km"]["value"] is None
    assert found["commonest_spot"] is None
    assert not found["mode_collapse"]
    assert "on_commonest_spot" not in found["metrics"]


def test_mode_collapse_is_told_from_a_set_of_one_city(tmp_path: Path) -> None:
    rows = [f"{10 * i}.png,{7 * i - 40},{30 * i - 100}" for i in range(8)]
    same = {10 * i: "<answer>48.85, 2.35</answer>" for i in range(8)}
    world = score_positions(Colours(same), photos(tmp_path, *rows)).sections[0]
    assert world.facts["mode_collapse"]
    assert world.facts["distinct_answers"] == world.facts["effective_spots"] == 1
    assert world.facts["effective_spots_of_the_truth"] == pytest.approx(8)
    assert world.metrics["on_commonest_spot"].value == 1
    city = photos(tmp_path, *(f"{10 * i}.png,48.85,2.3{i}" for i in range(8)))
    assert not score_positions(Colours(same), city).sections[0].facts["mode_collapse"]


def test_effective_spots_by_hand() -> None:
    def spots(*places: tuple[float, float]) -> float:
        return effective_spots(np.array(places, np.float64))

    assert spots((1, 1), (1.001, 1.001)) == 1
    assert spots((1, 1), (50, 50)) == pytest.approx(2)
    three_to_one = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert spots((1, 1), (1, 1), (1, 1), (9, 9)) == pytest.approx(three_to_one)
    assert spots((10, 180), (10, -180)) == 1
    assert spots((60, 10.6), (60, 10.9)) == 1  # 17 km: meridians are half as far apart as at the equator
    assert spots((0, 10.6), (0, 10.9)) == pytest.approx(2)
    assert spots((60, 10), (60, 11)) == pytest.approx(2)
    assert spots((math.nan, math.nan)) == 0


def test_each_benchmark_has_its_section(tmp_path: Path) -> None:
    header = "image_id,lat,lon,benchmark"
    data = photos(tmp_path, "0.png,10,20,one", "10.png,10,20,two", "20.png,10,20,two", header=header)
    says = {0: "<answer>10, 20</answer>", 10: "", 20: "<answer>10, 20</answer>"}
    sections = score_positions(Colours(says), data).sections
    assert [(s.protocol, s.queries, s.metrics["within_1_km"].value) for s in sections] == [
        ("distance", 3, pytest.approx(2 / 3)),
        ("distance, one", 1, 1),
        ("distance, two", 2, 0.5),
    ]


def test_a_damaged_picture_is_a_named_miss(tmp_path: Path) -> None:
    data = photos(tmp_path, "0.png,10,20", "10.png,10,20")
    (tmp_path / "10.png").write_bytes(b"\x89PNG\r\n\x1a\n junk")
    result = score_positions(Colours({0: "<answer>10, 20</answer>"}), data)
    assert values(result.sections[0], "answered") == [1, 0]
    assert [(one.id, one.side) for one in result.unusable] == [("10.png", "picture")]
    assert "damaged" in result.to_dict()["unusable_items"][0]["why"]
    assert result.sections[0].facts["unread_pictures"] == 1


def test_a_limit_draws_the_same_pictures_for_every_subject(tmp_path: Path) -> None:
    data = photos(tmp_path, *(f"{i}.png,{i},20" for i in range(20)))
    right = Colours({i: f"<answer>{i}, 20</answer>" for i in range(20)})
    none = Colours(dict.fromkeys(range(20), ""))
    one, other = score_dataset([right, none], data, Sampling(limit=6, seed=3))
    picked = [row["query"] for row in one.sections[0].details()]
    assert len(set(picked)) == 6
    assert picked == [row["query"] for row in other.sections[0].details()]
    assert picked != [row["query"] for row in score_dataset([right], data, Sampling(6, 4))[0].sections[0].details()]
    change = other.sections[0].change(one.sections[0])
    assert change["within_1_km"].value == change["within_1_km"].high == -1
    assert change["answered"].value == -1
    assert "on_commonest_spot" not in change  # nothing was answered, so there is nothing to compare
    assert one.sections[0].change(other.sections[0])["answered"].value == 1
    assert Sampling(20).rows(20) is None


def test_a_role_that_is_lacking_is_found_before_any_work(tmp_path: Path) -> None:
    data = photos(tmp_path, "0.png,10,20")
    first, second = Colours({0: ""}), Colours()
    with pytest.raises(BundleError, match="offers no GPS generation"):
        score_dataset([first, second], data)
    assert first.asked == 0


def test_conversations_are_scored_by_their_positions(tmp_path: Path) -> None:
    def row(name: str, *images: Path) -> SftRow:
        return SftRow(name, images, "<image>where?", "<answer>10, 20</answer>", Position(10, 20))

    report = Report("mine", "", "train", 1, 1, (), (), ())
    data = SftSet((row("a", paint(tmp_path / "a.png", 0)),), (GPS,), report)
    result = score_dataset([Colours({0: "<answer>10, 20.1</answer>"})], data)[0]
    assert result.sections[0].metrics["within_25_km"].value == 1
    assert result.sections[0].metrics["within_1_km"].value == 0
    with pytest.raises(InputError, match="1 conversations have no picture or several, for instance b"):
        as_scored(SftSet((row("b"),), (GPS,), report))
