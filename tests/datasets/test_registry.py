import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_files import picture, retrieval, write, write_lines

from edgegeo.datasets import detect, forms, open_dataset
from edgegeo.datasets.reader import RowFault, safe_parts
from edgegeo.errors import InputError

KARPATHY: dict[str, Any] = {"images": [{"filename": "a.jpg", "split": "test", "sentences": [{"raw": "x"}]}]}


def names(root: Path) -> list[str]:
    return [found.name for found in detect(root)]


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("test_951_version.json", [], ["geotext1652"]),
        ("train.json", [{"image_id": "1/a", "image": "train/1/a", "caption": "x", "sentences": None}], ["geotext1652"]),
        ("NewYork/test.json", {}, ["cvg-text"]),
        ("dataset_coco.json", KARPATHY, ["coco"]),
        ("dataset.json", {**KARPATHY, "dataset": "flickr30k"}, ["flickr30k"]),
        ("dataset_rsitmd.json", KARPATHY, ["rsitmd"]),
        ("dataset_planet.json", KARPATHY, ["karpathy"]),
        ("rows.jsonl", '{"qry": "x", "qry_image_path": "", "pos_text": "y", "pos_image_path": ""}', ["mmeb"]),
        ("im2gps3k_places365.csv", "IMG_ID,LAT,LON\n", ["im2gps3k"]),
        ("yfcc4k.csv", "IMG_FILE,LAT,LON\n", ["yfcc4k"]),
        ("all.csv", "image_id,lat,lon,benchmark\n", ["mr40k"]),
        ("tiles.csv", "path,lat,lon\n", ["gps-csv"]),
        ("coordinates_100K.csv", "LAT,LON\n", ["gps-gallery"]),
        ("train.json", [{"images": ["a.jpg"], "conversations": []}], ["sharegpt"]),
    ],
)
def test_a_folder_is_recognised(tmp_path: Path, file: str, content: Any, expected: list[str]) -> None:
    write(tmp_path / file, content)
    assert names(tmp_path) == expected
    if "/" not in file and expected != ["geotext1652"]:
        assert names(tmp_path / file) == expected  # the file alone tells too


def test_folders_are_recognised_by_their_folders(tmp_path: Path) -> None:
    picture(tmp_path / "university/test/query_drone/0001/a.jpg")
    picture(tmp_path / "university/test/gallery_satellite/0001/a.jpg")
    assert names(tmp_path / "university") == ["university1652"]
    picture(tmp_path / "mine/a.JPG")
    assert names(tmp_path / "mine") == ["photos"]
    for name in ("RSICD_data", "captions"):
        write(tmp_path / name / "test_caps.txt", "x\n")
        write(tmp_path / name / "test_filename.txt", "x\n")
    assert names(tmp_path / "RSICD_data") == ["rsicd"]
    assert names(tmp_path / "captions") == ["ucm", "rsicd", "rsitmd"]
    with pytest.raises(InputError, match=r"could be ucm .*rsicd .*rsitmd .*say which"):
        open_dataset("auto", tmp_path / "captions")


def test_an_unknown_folder_says_what_it_holds_and_what_was_expected(tmp_path: Path) -> None:
    write(tmp_path / "notes.md", "x")
    (tmp_path / "stuff").mkdir()
    with pytest.raises(InputError, match=r"but notes\.md, stuff/\. Expected one of: geotext1652: train\.json"):
        detect(tmp_path)
    with pytest.raises(InputError, match="nothing at"):
        detect(tmp_path / "none")


def test_what_open_dataset_refuses(tmp_path: Path) -> None:
    write(tmp_path / "dataset_coco.json", KARPATHY)
    with pytest.raises(InputError, match="no data set 'cocco'"):
        open_dataset("cocco", tmp_path)
    with pytest.raises(InputError, match="train, val, test, not 'dev'"):
        open_dataset("coco", tmp_path, "dev")
    with pytest.raises(InputError, match="no option shuffle; it has captions, restval"):
        open_dataset("coco", tmp_path, shuffle=True)
    with pytest.raises(InputError, match="coco needs its folder"):
        open_dataset("coco")
    with pytest.raises(InputError, match="nothing at"):
        open_dataset("coco", tmp_path / "none")
    with pytest.raises(InputError, match=r"no row of coco in .* can be used: 1 x missing picture \(dataset_coco"):
        open_dataset("coco", tmp_path)
    with pytest.raises(InputError, match="the val split is empty"):
        open_dataset("coco", tmp_path, "val")
    write(tmp_path / "dataset_coco.json", '{"images": [')
    with pytest.raises(InputError, match="is not a JSON file"):
        open_dataset("coco", tmp_path)
    with pytest.raises(InputError, match=r"holds no dataset\.json, which flickr30k needs; it holds notes"):
        open_dataset("flickr30k", write(tmp_path / "other/notes.md", "").parent)


def test_auto_opens_what_it_recognises(tmp_path: Path) -> None:
    write(tmp_path / "dataset_coco.json", KARPATHY)
    picture(tmp_path / "a.jpg")
    assert retrieval("auto", tmp_path).report.dataset == "coco"


def test_damaged_pictures_are_found_when_asked_for(tmp_path: Path) -> None:
    entries = [{"filename": f"{k}.png", "split": "test", "sentences": [{"raw": "x"}]} for k in range(12)]
    write(tmp_path / "dataset_coco.json", {"images": entries})
    for k in range(12):
        picture(tmp_path / f"{k}.png")
    whole = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "7.png").write_bytes(b"")
    assert len(retrieval("coco", tmp_path).gallery) == 12  # pictures are opened at use
    data = retrieval("coco", tmp_path, check_images=True)
    assert data.report.reasons() == {"damaged picture": 2}
    assert "3.png is damaged or cut off" in data.report.refused[0].examples[0]
    assert [item.id for item in data.gallery] == [f"{k}.png" for k in range(12) if k not in (3, 7)]
    assert {query.group for query in data.queries} == {item.group for item in data.gallery}
    with pytest.raises(InputError, match="2 of 12 rows of coco refused: 2 x damaged picture"):
        retrieval("coco", tmp_path, check_images=True, strict=True)


def test_links_to_another_disk_are_followed(tmp_path: Path) -> None:
    picture(tmp_path / "disk/a.jpg")
    write(tmp_path / "set/dataset_coco.json", KARPATHY)
    (tmp_path / "set/images").symlink_to(tmp_path / "disk")
    assert retrieval("coco", tmp_path / "set").gallery[0].image == tmp_path / "set/images/a.jpg"


@pytest.mark.parametrize(
    "name", ["/a.jpg", "../a.jpg", "b/../../a.jpg", "C:\\a.jpg", "..\\a.jpg", "a\0.jpg", "", None, 3, "."]
)
def test_names_that_lead_nowhere_good(name: object) -> None:
    with pytest.raises(RowFault):
        safe_parts(name)


def test_windows_separators() -> None:
    assert safe_parts("train\\0839\\a.jpg") == ("train", "0839", "a.jpg")


def test_reasons_keep_a_few_examples(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "rows.jsonl", [{"qry": "x", "qry_image_path": "", "pos_text": "y", "pos_image_path": ""}] + ["?"] * 9
    )
    report = retrieval("mmeb", tmp_path, "train").report
    assert (report.refused[0].count, len(report.refused[0].examples)) == (9, 3)
    assert report.summary().startswith("9 x the line is not JSON (rows.jsonl:2: ")


def test_every_form_is_whole() -> None:
    for name, form in forms().items():
        assert form.name == name
        assert form.splits
        assert "\n" not in form.layout
    with pytest.raises(InputError, match="give one"):
        open_dataset("auto")


def test_the_room_needs_numpy_and_pillow_only() -> None:
    program = (
        "import sys, edgegeo.datasets, edgegeo.datasets.planet_folder\n"
        "edgegeo.datasets.open_dataset('planet', places=1)\n"
        "heavy = {'torch', 'transformers', 'onnxruntime', 'scipy', 'pandas', 'tokenizers', 'typer'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
