"""Rows with any JSON value anywhere: kept or refused, never a traceback, never lost."""

import copy
import random
from pathlib import Path
from typing import Any

import pytest
from small_files import picture, write

from edgegeo.datasets import open_dataset

ODD: tuple[Any, ...] = (
    None, True, -1, 1e400, 0.5, "", " ", "x", "-", "../a.jpg", "a.jpg", "a\0.jpg", "a" * 5000, "\ud800", [], [None],
    [[]], ["a"] * 7, {}, {"raw": 3}, {"a": []}, [0.1, 0.2, 0.3, 0.4], "<answer>1, 2</answer>",
)  # fmt: skip
TURNS = [{"role": "user", "content": "<image> where?"}, {"role": "assistant", "content": "<answer>1, 2</answer>"}]
ROWS: dict[str, Any] = {
    "geotext1652": {
        "image_id": "0/a.jpg",
        "image": "a.jpg",
        "caption": ["x", "y"],
        "sentences": ["s"],
        "bboxes": [[0.1] * 4],
    },
    "coco": {"filename": "a.jpg", "split": "test", "filepath": "", "sentences": [{"raw": "x"}], "lat": 1, "lon": 2},
    "mmeb": {"qry_text": "x", "qry_img_path": "a.jpg", "tgt_text": ["x", "y"], "tgt_img_path": ["", "a.jpg"]},
    "sharegpt": {"images": ["a.jpg"], "conversations": TURNS},
}  # fmt: skip
FILES = {
    "geotext1652": "test_951_version.json",
    "coco": "dataset_coco.json",
    "mmeb": "rows.json",
    "sharegpt": "test.json",
}


def broken(value: Any, dice: random.Random) -> Any:
    """A copy with one value, somewhere, replaced by an odd one, or with an odd key."""
    if isinstance(value, dict) and value and dice.random() < 0.85:
        key = dice.choice(list(value))
        if dice.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: broken(value[key], dice)}
    if isinstance(value, list) and value and dice.random() < 0.7:
        place = dice.randrange(len(value))
        return [*value[:place], broken(value[place], dice), *value[place + 1 :]]
    return copy.deepcopy(dice.choice(ODD))


@pytest.mark.parametrize("name", ROWS)
def test_any_row_is_kept_or_refused(tmp_path: Path, name: str) -> None:
    dice = random.Random(7)
    picture(tmp_path / "a.jpg")
    rows = [ROWS[name], *(broken(ROWS[name], dice) for _ in range(400))]
    write(tmp_path / FILES[name], {"images": rows} if name == "coco" else rows)
    report = open_dataset(name, tmp_path, "test").report
    assert report.read == report.kept + report.refused_count
    assert 1 <= report.kept < 401
    assert len(report.refused) > 4


def test_any_name_and_caption_of_cvg(tmp_path: Path) -> None:
    names = [
        "1,2_a.jpg",
        "",
        "..",
        "1,2",
        "1,2_b",
        "a\0",
        "1,2_\ud800.jpg",
        "/1,2_a.jpg",
        "1e9,2_a.jpg",
        ",_a.jpg",
        "-.,-._.jpg",
    ]
    picture(tmp_path / "Tokyo-satellite" / "1,2_a.jpg")
    picture(tmp_path / "Tokyo-satellite" / "3,4_a.jpg")
    for value in ODD:
        write(tmp_path / "Tokyo/test.json", {**dict.fromkeys(names, value), "3,4_a.jpg": "x"})
        report = open_dataset("cvg-text", tmp_path).report
        assert report.read == len(names) + 1
        assert 1 <= report.kept <= 2
