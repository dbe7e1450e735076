from pathlib import Path
from typing import Any

import pytest
from small_files import picture, retrieval, traps, write

from edgegeo.errors import InputError


def entry(name: str, split: str, count: int = 5, **more: Any) -> dict[str, Any]:
    sentences = [{"raw": f" {name} caption {k} ", "tokens": [], "imgid": 0, "sentid": k} for k in range(count)]
    return {"filename": name, "split": split, "sentences": sentences, "imgid": 0, **more}


def coco(root: Path, *entries: dict[str, Any], name: str = "coco") -> None:
    write(root / f"dataset_{name}.json", {"images": list(entries), "dataset": name})


def test_coco(tmp_path: Path) -> None:
    for name in ("val2014/a.jpg", "val2014/b.jpg", "train2014/c.jpg"):
        picture(tmp_path / name)
    coco(
        tmp_path,
        entry("a.jpg", "test", filepath="val2014"),
        entry("b.jpg", "restval", 7, filepath="val2014"),
        entry("c.jpg", "train", filepath="train2014"),
    )
    data = retrieval("coco", tmp_path)
    assert [q.text for q in data.queries] == [f"a.jpg caption {k}" for k in range(5)]
    assert data.gallery[0].image == tmp_path / "val2014/a.jpg"
    assert data.report.read == 1
    assert data.positives(data.queries[3]) == (0,)
    assert data.reversed().positives(data.gallery[0]) == (0, 1, 2, 3, 4)
    train = retrieval("coco", tmp_path, "train")
    assert (len(train.gallery), len(train.queries)) == (2, 12)  # every caption is trained on
    assert traps(train) == {"restval picture, used for training": 1}
    assert len(retrieval("coco", tmp_path, "train", restval=False).gallery) == 1


def test_scores_are_of_five_captions(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / "images" / f"{name}.jpg")
    twice = entry("c.jpg", "test")
    twice["sentences"][1]["raw"] = twice["sentences"][0]["raw"]
    coco(tmp_path, entry("a.jpg", "test", 7), entry("b.jpg", "test", 3), twice)
    data = retrieval("coco", tmp_path)
    assert len(data.queries) == 5 + 3 + 5
    assert traps(data) == {
        "more than 5 captions; the first 5 are used": 1,
        "fewer than 5 captions": 1,
        "the same caption more than once for a picture": 1,
    }
    assert len(retrieval("coco", tmp_path, captions=None).queries) == 15


def test_flickr_and_others_by_name(tmp_path: Path) -> None:
    picture(tmp_path / "flickr30k-images/1.jpg")
    coco(tmp_path, entry("1.jpg", "test"), name="flickr30k")
    coco(tmp_path, entry("1.jpg", "test"), name="coco")
    assert len(retrieval("flickr30k", tmp_path).queries) == 5
    with pytest.raises(InputError, match=r"dataset_coco\.json, dataset_flickr30k\.json; give the one"):
        retrieval("karpathy", tmp_path)
    assert len(retrieval("karpathy", tmp_path / "dataset_coco.json").queries) == 5


def test_broken_karpathy_entries(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    bare = entry("a.jpg", "test")
    bare["sentences"] = [{"tokens": ["no", "raw"]}, {"raw": "kept"}]
    coco(
        tmp_path,
        bare,
        entry("a.jpg", "test"),
        entry("gone.jpg", "test"),
        entry("../a.jpg", "test"),
        {**entry("a.jpg", "test"), "sentences": None},
        {**entry("a.jpg", "test"), "filename": "z.jpg", "sentences": []},
        {"filename": "a.jpg"},
        entry("a.jpg", "holdout"),
    )
    data = retrieval("coco", tmp_path)
    assert [q.text for q in data.queries] == ["kept"]
    assert data.report.reasons() == {
        "duplicate picture": 2,
        "missing picture": 1,
        "picture path leaves the data set's folder": 1,
        "no caption": 1,
        "no key 'sentences'": 1,
        "unknown split": 1,
    }
    write(tmp_path / "dataset_coco.json", '{"images": 3}')
    with pytest.raises(InputError, match="no list 'images'"):
        retrieval("coco", tmp_path)


def lists(root: Path, split: str, names: list[str], captions: list[str], end: str = "") -> None:
    write(root / f"{split}_filename{end}.txt", "".join(f"{name}\n" for name in names))
    write(root / f"{split}_caps{end}.txt", "".join(f"{text}\n" for text in captions))
    for name in names:
        if name and "gone" not in name:
            picture(root / "images" / name)


def test_remote_sensing_lists_name_pictures_once_in_train(tmp_path: Path) -> None:
    lists(tmp_path, "train", ["1.png", "2.png"], [f"t{k}" for k in range(10)], "_verify")
    data = retrieval("rsitmd", tmp_path, "train")
    assert [q.group for q in data.queries] == ["1.png"] * 5 + ["2.png"] * 5
    assert [q.text for q in data.queries][5] == "t5"
    assert data.report.traps == ()


def test_remote_sensing_lists_name_pictures_once_a_caption_in_test(tmp_path: Path) -> None:
    lists(tmp_path, "test", ["1.png"] * 5 + ["2.png"] * 5, [f"t{k}" for k in range(10)])
    data = retrieval("ucm", tmp_path)
    assert len(data.gallery) == 2  # not ten
    assert [q.group for q in data.queries] == ["1.png"] * 5 + ["2.png"] * 5
    assert data.positives(data.queries[9]) == (1,)
    assert list(traps(data)) == ["file names are listed once a caption, not once a picture"]


def test_remote_sensing_broken_lines(tmp_path: Path) -> None:
    lists(tmp_path, "test", ["1.png", "gone.png", "", "1.png"], ["kept", "x", "x", ""])
    with (tmp_path / "test_caps.txt").open("ab") as stream:
        stream.write(b"\xff\xfe\n\n\n")
    with (tmp_path / "test_filename.txt").open("ab") as stream:
        stream.write(b"1.png\n\n")
    data = retrieval("rsicd", tmp_path)
    assert [q.text for q in data.queries] == ["kept"]
    assert data.report.reasons() == {
        "missing picture": 1,
        "empty file name": 1,
        "empty caption": 1,
        "caption is not UTF-8": 1,
    }
    lists(tmp_path, "test", ["1.png", "2.png"], ["a", "b", "c"])
    with pytest.raises(InputError, match="neither as many nor a whole multiple"):
        retrieval("rsicd", tmp_path)


def test_remote_sensing_sets_come_as_karpathy_files_too(tmp_path: Path) -> None:
    picture(tmp_path / "images/airport_1.jpg")
    coco(tmp_path, entry("airport_1.jpg", "test"), name="rsicd")
    assert len(retrieval("rsicd", tmp_path).queries) == 5
