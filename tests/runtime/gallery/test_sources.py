from pathlib import Path

import pytest
from PIL import Image

from edgegeo.errors import InputError
from edgegeo.exif import write_gps
from edgegeo.planet import Planet
from edgegeo.runtime import Embedder, Gallery, Row, Skipped
from edgegeo.runtime.gallery.sources import csv_list, photo_folder, planet_places


def photo(path: Path, lat: float | None = None, lon: float = 0.0) -> None:
    exif = Image.Exif()
    if lat is not None:
        write_gps(exif, lat, lon)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (90, 120, 60)).save(path, "JPEG", exif=exif)


def test_a_folder_of_photos(tmp_path: Path) -> None:
    photo(tmp_path / "b.jpg", 10.5, -20.25)
    photo(tmp_path / "deep" / "a.JPEG", -1, 2)
    photo(tmp_path / "nowhere.jpg")
    (tmp_path / "broken.png").write_bytes(b"junk")
    (tmp_path / "notes.txt").write_text("not a photo")
    found = list(photo_folder(tmp_path))
    assert [(r.id, round(r.lat, 6), round(r.lon, 6)) for r in found if isinstance(r, Row)] == [
        ("b.jpg", 10.5, -20.25),
        ("deep/a.JPEG", -1, 2),
    ]
    assert {s.id for s in found if isinstance(s, Skipped)} == {"broken.png", "nowhere.jpg"}
    with pytest.raises(InputError, match="no folder"):
        list(photo_folder(tmp_path / "none"))


def test_a_csv_list(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    (tmp_path / "list.csv").write_text("\ufeffpath,lat,lon,id\na.jpg,1,2,first\na.jpg,3,4,\ngone.jpg,5,6,third\n")
    found = list(csv_list(tmp_path / "list.csv"))
    assert found[0] == Row("first", 1.0, 2.0, tmp_path / "a.jpg")
    assert found[1] == Row("a.jpg", 3.0, 4.0, tmp_path / "a.jpg")
    assert isinstance(found[2], Skipped)
    assert found[2].id == "third"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,lat\na.jpg,1\n", "no column lon"),
        ("path,lat,lon\na.jpg,nan,2\n", r"line 2: coordinates must be finite"),
        ("path,lat,lon\na.jpg,north,2\n", r"line 2: lat and lon must be numbers"),
        ("path,lat,lon\na.jpg,95,2\n", r"line 2: latitude"),
        ("path,lat,lon\n,5,2\n", r"line 2: the path is empty"),
        ("path,lat,lon\na.jpg,5\n", r"line 2: lat and lon must be numbers"),
    ],
)
def test_a_bad_list_names_the_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        list(csv_list(tmp_path / "list.csv"))


def test_a_list_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        list(csv_list(tmp_path / "none.csv"))
    (tmp_path / "list.csv").write_bytes(b"path,lat,lon\n\xff\xfe,1,2\n")
    with pytest.raises(InputError, match="UTF-8"):
        list(csv_list(tmp_path / "list.csv"))


def test_planet_places_and_a_gallery_of_them(tiny_bundle: Path, tmp_path: Path) -> None:
    rows = list(planet_places(Planet(), "validation", n=3, size=64))
    assert [row.id for row in rows] == ["validation-00000", "validation-00001", "validation-00002"]
    assert len(Gallery.build(tmp_path / "g", rows, Embedder.open(tiny_bundle, threads=1))) == 3
    (ground,) = planet_places(Planet(), n=1, view="ground", size=64)
    assert ground.image.draw().size == (64, 64)
    with pytest.raises(InputError, match="satellite or ground"):
        planet_places(Planet(), view="radar")
