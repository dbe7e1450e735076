from pathlib import Path
from typing import Any

import pytest
from small_files import picture, retrieval, traps, write

from edgegeo.datasets import Region
from edgegeo.errors import InputError

BOX = [0.4, 0.6, 0.3, 0.5]


def row(image_id: str, caption: Any, folder: str = "train", **more: Any) -> dict[str, Any]:
    parts = {"sentences": ["a", "b", "c"], "bboxes": [BOX, BOX, BOX], **more}
    return {"image_id": image_id, "image": f"{folder}/{image_id}", "caption": caption, **parts}


def pictures(root: Path, *ids: str, folder: str = "train") -> None:
    for one in ids:
        picture(root / folder / one)


def test_train_has_a_row_a_caption(tmp_path: Path) -> None:
    pictures(tmp_path, "0839/image-43.jpeg", "0839/image-44.jpeg", "0842/image-01.jpeg")
    rows = [row("0839/image-43.jpeg", "one"), row("0839/image-43.jpeg", "two"), row("0839/image-44.jpeg", "three")]
    write(tmp_path / "train.json", [*rows, row("0842/image-01.jpeg", "four")])
    data = retrieval("geotext1652", tmp_path, "train")
    assert [(q.text, q.group, q.pair) for q in data.queries[:3]] == [
        ("one", "0839", "0839/image-43.jpeg"),
        ("two", "0839", "0839/image-43.jpeg"),
        ("three", "0839", "0839/image-44.jpeg"),
    ]
    assert [item.image for item in data.gallery] == [tmp_path / "train" / item.id for item in data.gallery]
    # a hit is the building, a training pair is the very picture
    assert data.positives(data.queries[0]) == (0, 1)
    assert data.positives(data.queries[0], "pair") == (0,)
    assert [(q.text, i.id) for q, i in data.pairs()][2] == ("three", "0839/image-44.jpeg")
    assert data.gallery[0].open().size == (16, 12)
    assert data.gallery[0].regions == (Region("a", (0.4, 0.6, 0.3, 0.5)), Region("b", (0.4, 0.6, 0.3, 0.5)),
                                       Region("c", (0.4, 0.6, 0.3, 0.5)))  # fmt: skip
    assert (data.report.read, data.report.kept, data.report.refused, data.report.traps) == (4, 4, (), ())


def test_the_other_direction(tmp_path: Path) -> None:
    pictures(tmp_path, "0001/a.jpeg", "0001/b.jpeg", folder="test/query(701)")
    rows = [row(f"0001/{name}.jpeg", [f"{name}1", f"{name}2"], "test/query(701)") for name in "ab"]
    write(tmp_path / "test_951_version.json", rows)
    data = retrieval("geotext1652", tmp_path)
    back = data.reversed()
    assert len(back.queries) == 2
    assert [back.gallery[k].text for k in back.positives(back.queries[0])] == ["a1", "a2", "b1", "b2"]
    assert [back.gallery[k].text for k in back.positives(back.queries[0], "pair")] == ["a1", "a2"]
    assert data.protocols[0].name == "building"
    assert data.protocols[0].both_ways


def test_test_captions_are_lists_and_pictures_may_lie_below_images(tmp_path: Path) -> None:
    folder = "test/gallery_no_train(250)"
    pictures(tmp_path / "images", "0002/x.jpeg", "0003/y.jpeg", folder=folder)
    rows = [row("0002/x.jpeg", ["one", "two", "three"], folder), row("0003/y.jpeg", "a bare text", folder)]
    for name in ("test_951_version.json", "test_24G_version.json"):
        write(tmp_path / name, rows)
    data = retrieval("geotext1652", tmp_path)
    assert [q.text for q in data.queries] == ["one", "two", "three", "a bare text"]
    assert traps(data) == {"caption is one text where the test files have a list": 1}
    assert len(retrieval("geotext1652", tmp_path, "test_24g").queries) == 4


def test_null_sentences_and_boxes(tmp_path: Path) -> None:
    pictures(tmp_path, "0001/a.jpeg", "0001/b.jpeg")
    boxes = [None, BOX, [0.1, 0.2, float("nan"), 0.3], [408, 688, 388, 623]]
    half = row("0001/a.jpeg", "one", sentences=["s", None, "t", "u"], bboxes=boxes)
    write(tmp_path / "train.json", [half, row("0001/b.jpeg", "two", sentences=None, bboxes=None)])
    data = retrieval("geotext1652", tmp_path, "train")
    assert data.gallery[0].regions == (Region("s", None), Region("t", None), Region("u", None))
    assert data.gallery[1].regions == ()
    assert traps(data) == {
        "null bbox; the sentence is kept without": 1,
        "null sentence; left out": 1,
        "bbox is not (cx, cy, w, h) in shares of the picture; the sentence is kept without": 2,
    }


def test_official_ids_give_the_first_picture_the_building_before(tmp_path: Path) -> None:
    names = ["0001/a.jpeg", "0001/b.jpeg", "0002/a.jpeg", "0002/b.jpeg", "0003/a.jpeg", "0003/b.jpeg"]
    pictures(tmp_path, *names, folder="test")
    write(tmp_path / "test_951_version.json", [row(name, ["text"], "test") for name in names])
    right = retrieval("geotext1652", tmp_path)
    assert [item.group for item in right.gallery] == ["0001", "0001", "0002", "0002", "0003", "0003"]
    official = retrieval("geotext1652", tmp_path, official_ids=True)
    assert [item.group for item in official.gallery] == ["0", "0", "0", "1", "1", "2"]
    assert [query.group for query in official.queries] == ["0", "0", "0", "1", "1", "2"]
    write(tmp_path / "train.json", [])
    with pytest.raises(InputError, match="test files"):
        retrieval("geotext1652", tmp_path, "train", official_ids=True)


def test_refused_rows_do_not_shift_official_ids(tmp_path: Path) -> None:
    names = ["0001/a.jpeg", "0002/a.jpeg", "0002/b.jpeg"]
    pictures(tmp_path, "0001/a.jpeg", "0002/b.jpeg", folder="test")
    write(tmp_path / "test_951_version.json", [row(name, ["text"], "test") for name in names])
    official = retrieval("geotext1652", tmp_path, official_ids=True)
    assert [item.group for item in official.gallery] == ["0", "1"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (row("0001/gone.jpeg", "x"), "missing picture"),
        (row("../../../secret.jpeg", "x"), "picture path leaves the data set's folder"),
        ({**row("0001/a.jpeg", "x"), "image": "/etc/a.jpeg"}, "picture path leaves the data set's folder"),
        (row("0001/a.jpeg", "  "), "empty caption"),
        (row("0001/a.jpeg", None), "caption is neither a text nor a list of texts"),
        (row("0001/a.jpeg", [None, ""]), "no caption in the list"),
        (row("0001/a.jpeg", "known"), "duplicate row"),
        ({"image_id": "0001/a.jpeg", "image": "train/0001/a.jpeg"}, "no key 'caption'"),
        (
            {**row("0001/a.jpeg", "x"), "image_id": "a.jpeg", "image": "a.jpeg"},
            "no building folder in image_id or image",
        ),
        ("text", "the row is no JSON object"),
    ],
)
def test_a_broken_row_is_counted_and_named(tmp_path: Path, broken: Any, reason: str) -> None:
    pictures(tmp_path, "0001/a.jpeg")
    write(tmp_path / "train.json", [row("0001/a.jpeg", "known"), broken])
    data = retrieval("geotext1652", tmp_path, "train")
    assert data.report.reasons() == {reason: 1}
    assert (data.report.read, data.report.kept) == (2, 1)
    assert data.report.refused[0].examples[0].startswith("train.json[1]")
    assert [q.text for q in data.queries] == ["known"]
    with pytest.raises(InputError, match="1 of 2 rows"):
        retrieval("geotext1652", tmp_path, "train", strict=True)


def test_names_in_another_case(tmp_path: Path) -> None:
    pictures(tmp_path, "0001/Image-1.JPG")
    write(tmp_path / "train.json", [row("0001/image-1.jpg", "one")])
    data = retrieval("geotext1652", tmp_path, "train")
    assert data.gallery[0].image == tmp_path / "train/0001/Image-1.JPG"
    assert traps(data) == {"picture name differs in case from the file's": 1}
