"""Where examples come from: places of the planet, and data sets with groups held out."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgegeo.datasets import Item
from edgegeo.errors import TrainingError
from edgegeo.models.checkpoint import load_checkpoint
from edgegeo.planet import Planet
from edgegeo.progress import silent
from edgegeo.runtime.answer import parse_answer
from edgegeo.runtime.pictures import prepare_picture
from edgegeo.train.settings import Data
from edgegeo.train.sources import PlanetSource, SetSource, open_lessons, open_pairs


def test_the_planet_has_texts_and_photos_for_each_tile(base_folder: Path, data: Any) -> None:
    spec = load_checkpoint(base_folder).image
    train, held = open_pairs(data, spec, silent)
    assert (len(train.groups), len(held.groups)) == (8, 4)
    assert isinstance(train, PlanetSource)
    pairs = train.pairs(np.array([3, 1]), None)
    place = train.places.words[3]
    assert pairs[0].queries[0] == place.captions[0]
    wanted = prepare_picture(Planet(data.planet_seed).satellite(place.lat, place.lon), spec)
    assert isinstance(pairs[0].target, type(wanted))
    assert np.abs(pairs[0].target.inputs["pixel_values"] - wanted.inputs["pixel_values"]).max() < 1e-6
    assert [str(part) for part in pairs[0].target.layout] == [str(part) for part in wanted.layout]


@pytest.mark.parametrize(("form", "begins"), [("answer", "<answer>"), ("reason", ""), ("caption", "{")])
def test_forms_of_an_answer_tell_the_same_position(form: str, begins: str, base_folder: Path, data: Any) -> None:
    train, _ = open_lessons(data, load_checkpoint(base_folder).image, form, silent)
    lesson = train.lessons(np.array([2]), None)[0]
    assert lesson.answer.startswith(begins)
    parsed = parse_answer(lesson.answer)
    assert parsed is not None
    assert (parsed.lat, parsed.lon) == pytest.approx((lesson.position.lat, lesson.position.lon), abs=0.06)
    if form == "caption":
        assert set(json.loads(lesson.answer)) == {"image_id", "thinking", "answer"}


@pytest.fixture
def geotext(tmp_path: Path) -> Path:
    """Six buildings, two pictures each."""
    rows = []
    for number in range(12):
        name = f"{number // 2:04d}/image-{number}.jpeg"
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 56), (20 * number, 90, 90)).save(tmp_path / "train" / name)
        rows.append({"image_id": name, "image": f"train/{name}", "caption": f"house {number}",
                     "sentences": [None] * 3, "bboxes": [None] * 3})  # fmt: skip
    (tmp_path / "train.json").write_text(json.dumps(rows))
    return tmp_path


def test_whole_buildings_are_held_out(base_folder: Path, geotext: Path) -> None:
    spec = load_checkpoint(base_folder).image
    train, held = open_pairs(Data(name="geotext1652", root=geotext, validation=1), spec, silent)
    assert (len(train.groups), len(held.groups)) == (10, 2)
    assert len(set(held.groups.tolist())) == 1
    again, _ = open_pairs(Data(name="geotext1652", root=geotext, validation=1), spec, silent)
    assert train.fingerprint == again.fingerprint
    other, _ = open_pairs(Data(name="geotext1652", root=geotext, validation=1, planet_seed=5), spec, silent)
    assert other.fingerprint != train.fingerprint


def test_test_splits_are_never_read(base_folder: Path, geotext: Path) -> None:
    spec = load_checkpoint(base_folder).image
    with pytest.raises(TrainingError, match="never reads a test split"):
        open_pairs(Data(name="geotext1652", root=geotext, split="test"), spec, silent)


def test_rows_that_cannot_be_used_are_counted(base_folder: Path, geotext: Path) -> None:
    (geotext / "train" / "0003" / "image-7.jpeg").unlink()
    train, _ = open_pairs(
        Data(name="geotext1652", root=geotext, validation=1), load_checkpoint(base_folder).image, silent
    )
    assert sum(train.refused.values()) == 1


def test_captions_of_one_picture_share_its_target_and_its_side_of_the_split(base_folder: Path, tmp_path: Path) -> None:
    for number in range(6):
        Image.new("RGB", (40, 40), (40 * number, 9, 9)).save(tmp_path / f"{number}.png")
    answers = [f"<answer>{number}.5, {turn}.25</answer>" for number in range(6) for turn in range(2)]
    rows = [
        {"images": [f"{i // 2}.png"], "conversations": [{"role": "user", "content": "<image>\n\nWhere?"},
                                                         {"role": "assistant", "content": answer}]}
        for i, answer in enumerate(answers)
    ]  # fmt: skip
    (tmp_path / "train.json").write_text(json.dumps(rows))
    spec = load_checkpoint(base_folder).image
    train, held = open_lessons(Data(name="sharegpt", root=tmp_path, validation=1), spec, "answer", silent)
    assert (len(train), len(held)) == (10, 2)
    asked = [lesson.answer for lesson in held.lessons(np.array([0, 1]), None)]
    assert answers.index(asked[0]) // 2 == answers.index(asked[1]) // 2


def test_a_row_that_is_text_and_picture_at_once_is_found_wherever_it_stands() -> None:
    plain, both = Item("a", "1", "1", text="a road"), Item("b", "2", "2", text="a road", image=Path("x.png"))
    with pytest.raises(TrainingError, match="b is a text and a picture"):
        SetSource([(plain, plain), (plain, both)], Any, {})  # type: ignore[arg-type]
    source = SetSource([(plain, plain), (replace(plain, group="2"), plain)], Any, {})  # type: ignore[arg-type]
    assert source.groups.tolist() == [0, 1]
    assert source.targets.tolist() == [0, 0]


def test_data_that_is_not_there(base_folder: Path, geotext: Path) -> None:
    spec = load_checkpoint(base_folder).image
    with pytest.raises(TrainingError, match="--data-root"):
        open_pairs(Data(name="geotext1652"), spec, silent)
    rows = json.loads((geotext / "train.json").read_text())
    (geotext / "train.json").write_text(json.dumps(rows[:4]))
    with pytest.raises(TrainingError, match="at least 5"):
        open_pairs(Data(name="geotext1652", root=geotext), spec, silent)
