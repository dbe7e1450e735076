from pathlib import Path

import pytest
from small_files import picture, retrieval, traps

from edgegeo.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for building in ("0001", "0002"):
        for k in range(3):
            picture(tmp_path / "test/query_drone" / building / f"image-0{k}.jpeg")
        picture(tmp_path / "test/query_satellite" / building / f"{building}.jpg")
    for building in ("0001", "0002", "0990"):  # the last is a distractor
        picture(tmp_path / "test/gallery_satellite" / building / f"{building}.JPG")
        picture(tmp_path / "test/gallery_drone" / building / "image-00.jpeg")
    return tmp_path


def test_drone_to_satellite_and_back(root: Path) -> None:
    data = retrieval("university1652", root)
    assert (len(data.queries), len(data.gallery)) == (6, 3)
    assert data.positives(data.queries[4]) == (1,)
    assert [item.group for item in data.gallery] == ["0001", "0002", "0990"]
    assert data.protocols[0].average_precision
    back = retrieval("university1652", root, query="satellite", gallery="drone")
    assert (len(back.queries), len(back.gallery)) == (2, 3)
    assert back.report.read == 5


def test_train_folders_have_no_prefix(tmp_path: Path) -> None:
    picture(tmp_path / "train/google/0839/a.jpg")
    picture(tmp_path / "train/satellite/0839/0839.jpg")
    data = retrieval("university1652", tmp_path, "train", query="google")
    assert [(q.id, g.id) for q, g in data.pairs()] == [("train/google/0839/a.jpg", "train/satellite/0839/0839.jpg")]
    with pytest.raises(InputError, match="query and gallery are two of drone, street, satellite for test"):
        retrieval("university1652", tmp_path, "test", query="google")


def test_what_can_not_be_used(root: Path) -> None:
    picture(root / "test/query_drone" / "0777" / "image-00.jpeg")
    picture(root / "test/query_drone" / "stray.jpeg")
    (root / "test/query_drone/0001/notes.txt").write_text("x")
    (root / "test/query_drone/0001/.DS_Store").write_text("x")
    (root / "test/query_drone/.DS_Store").write_text("x")
    (root / "test/gallery_satellite/0800").mkdir()
    data = retrieval("university1652", root)
    assert data.report.reasons() == {
        "building is not in the gallery": 1,
        "lies outside the building folders": 1,
        "not a picture file": 1,
    }
    assert traps(data) == {"empty building folder": 1}
    with pytest.raises(InputError, match=r"no folder .*query_street"):
        retrieval("university1652", root, query="street")
