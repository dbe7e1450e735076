from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_files import picture, traps, write

from edgegeo.datasets import GpsSet, PositionSet, open_dataset
from edgegeo.errors import InputError
from edgegeo.exif import write_gps
from edgegeo.geo import GPS_THRESHOLDS_KM, Position

HEAD = "IMG_ID,AUTHOR,LAT,LON,S3_Label\n"


def gps(*args: object, **options: object) -> GpsSet:
    found = open_dataset(*args, **options)  # type: ignore[arg-type]
    assert isinstance(found, GpsSet)
    return found


def table(root: Path, text: str, name: str = "im2gps3k_places365.csv", pictures: str = "images") -> None:
    write(root / name, text)
    for k in range(9):
        picture(root / pictures / f"{k}_a@N00.jpg", 10 * k)


def test_im2gps3k(tmp_path: Path) -> None:
    table(tmp_path, HEAD + '0_a@N00.jpg,"Doe, J.",48.5,2.25,1\n1_a@N00.jpg,é,-33.9,151.2,2\n2_a@N00.jpg,x,10,180,3\n')
    data = gps("im2gps3k", tmp_path)
    assert [sample.position for sample in data.samples] == [
        Position(48.5, 2.25),
        Position(-33.9, 151.2),
        Position(10, 180),
    ]
    assert data.samples[0].image == tmp_path / "images/0_a@N00.jpg"
    assert data.samples[0].open().size == (16, 12)
    assert data.positions.shape == (3, 2)
    assert data.protocols[0].within_km == GPS_THRESHOLDS_KM
    assert data.report.warnings == ()
    assert data.report.traps == ()


SWAPPED = HEAD + "0_a@N00.jpg,x,2.25,48.5,1\n1_a@N00.jpg,y,151.2,-33.9,2\n"


def test_exchanged_headers_are_told_by_their_ranges(tmp_path: Path) -> None:
    table(tmp_path, SWAPPED)
    with pytest.warns(UserWarning, match="the two headers are exchanged"):
        data = gps("im2gps3k", tmp_path)
    assert [sample.position for sample in data.samples] == [Position(48.5, 2.25), Position(-33.9, 151.2)]
    assert "1 values of LAT are beyond 90" in data.report.warnings[0]
    as_it_stands = gps("im2gps3k", tmp_path, swapped=False)
    assert as_it_stands.samples[0].position == Position(2.25, 48.5)
    assert as_it_stands.report.reasons() == {"coordinates out of range": 1}


def test_headers_that_ranges_can_not_tell(tmp_path: Path) -> None:
    table(tmp_path, HEAD + "0_a@N00.jpg,x,48.5,2.25,1\n")
    assert list(traps(gps("im2gps3k", tmp_path))) == [
        "no value beyond 90 degrees: exchanged LAT and LON would not be noticed"
    ]
    assert gps("im2gps3k", tmp_path, swapped=True).samples[0].position == Position(2.25, 48.5)


def test_one_bad_latitude_does_not_exchange_the_headers(tmp_path: Path) -> None:
    table(tmp_path, HEAD + "0_a@N00.jpg,x,95,2.25,1\n1_a@N00.jpg,y,-33.9,151.2,2\n")
    data = gps("im2gps3k", tmp_path)
    assert [sample.position for sample in data.samples] == [Position(-33.9, 151.2)]
    assert data.report.warnings == ()


def test_broken_rows(tmp_path: Path) -> None:
    rows = (
        "0_a@N00.jpg,x,48.5,100,1\n"
        "1_a@N00.jpg,x,nan,2,1\n"
        "2_a@N00.jpg,x,,2,1\n"
        "3_a@N00.jpg,x,north,2,1\n"
        "4_a@N00.jpg,x,91,100,1\n"
        "5_a@N00.jpg,x,10,181,1\n"
        "gone.jpg,x,10,20,1\n"
        "../0_a@N00.jpg,x,10,20,1\n"
        ",x,10,20,1\n"
        "0_a@N00.jpg,x,48.5,100,1\n"
        "0_a@N00.jpg,x,40,100,1\n"
        "6_a@N00.jpg,x\n"
        "7_a@N00.jpg,x,0,0.0,1,too,many\n"
    )
    table(tmp_path, HEAD + rows)
    data = gps("im2gps3k", tmp_path)
    assert [sample.id for sample in data.samples] == ["0_a@N00.jpg", "7_a@N00.jpg"]
    assert data.report.reasons() == {
        "coordinates are NaN": 1,
        "latitude is no number": 3,
        "coordinates out of range": 2,
        "missing picture": 1,
        "picture path leaves the data set's folder": 1,
        "empty picture name": 1,
        "duplicate row": 1,
        "picture listed twice with different positions": 1,
    }
    assert data.report.read == 13
    assert data.report.refused[0].examples[0] == "im2gps3k_places365.csv:4: ''"
    assert traps(data) == {"position 0, 0: more often a missing one than the Gulf of Guinea": 1}


def test_yfcc4k_with_either_picture_column(tmp_path: Path) -> None:
    table(tmp_path, "IMG_ID,LAT,LON\n1_a@N00,5,100\n", "yfcc4k_places365.csv", "yfcc4k")
    data = gps("yfcc4k", tmp_path)
    assert data.samples[0].image == tmp_path / "yfcc4k/1_a@N00.jpg"
    assert traps(data) == {"picture name without its suffix": 1}
    table(tmp_path, "IMG_FILE,LAT,LON\n2_a@N00.JPG,5,100\n", "yfcc4k_places365.csv", "yfcc4k")
    data = gps("yfcc4k", tmp_path)
    assert data.samples[0].image == tmp_path / "yfcc4k/2_a@N00.jpg"
    assert traps(data) == {"picture name differs in case from the file's": 1}


def test_mr40k_holds_several_benchmarks(tmp_path: Path) -> None:
    table(tmp_path, "image_id,lat,lon,benchmark\n0_a@N00,5,100,A\n0_a@N00,6,101,B\n", "mr40k.csv", "images/A")
    picture(tmp_path / "images/B/0_a@N00.png")
    data = gps("mr40k", tmp_path)
    assert [(sample.benchmark, str(sample.image)[-13:]) for sample in data.samples] == [
        ("A", "A/0_a@N00.jpg"),
        ("B", "B/0_a@N00.png"),
    ]
    assert len(gps("mr40k", tmp_path, benchmark="B").samples) == 1
    table(tmp_path, "image_id,lat,lon,benchmark\n0_a@N00,5,100,A\n0_a@N00,5,100,A\n", "mr40k.csv", "images/A")
    assert gps("mr40k", tmp_path).report.reasons() == {"duplicate row": 1}


def test_which_csv_and_which_pictures(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        table(tmp_path, "path,lat,lon\n0_a@N00.jpg,5,100\n", name)
    with pytest.raises(InputError, match=r"found a\.csv, b\.csv; name it with csv="):
        gps("gps-csv", tmp_path)
    assert len(gps("gps-csv", tmp_path, csv="b.csv", images="images").samples) == 1
    assert len(gps("gps-csv", tmp_path / "a.csv").samples) == 1
    with pytest.raises(InputError, match="no folder .*nowhere"):  # noqa: RUF043
        gps("gps-csv", tmp_path, csv="b.csv", images="nowhere")
    with pytest.raises(InputError, match="has no column lon"):
        gps("gps-csv", write(tmp_path / "c.csv", "path,lat\nx,5\n"))


def test_a_gallery_of_positions(tmp_path: Path) -> None:
    write(tmp_path / "coordinates_100K.csv", "LAT,LON\n1.5,2.5\n-3,179.5\n1.5,2.5\nnan,0\n,\n")
    data = open_dataset("gps-gallery", tmp_path)
    assert isinstance(data, PositionSet)
    np.testing.assert_array_equal(data.positions, [[1.5, 2.5], [-3, 179.5]])
    assert data.report.reasons() == {"duplicate position": 1, "coordinates are NaN": 1, "latitude is no number": 1}
    write(tmp_path / "coordinates_100K.csv", "LAT,LON\n100,2.5\n-170,-3\n")
    with pytest.warns(UserWarning, match="exchanged"):
        data = open_dataset("gps-gallery", tmp_path)
    assert isinstance(data, PositionSet)
    np.testing.assert_array_equal(data.positions, [[2.5, 100], [-3, -170]])


def test_photos_with_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    write_gps(exif, -12.5, 30.25)
    (tmp_path / "deep").mkdir()
    Image.new("RGB", (16, 12)).save(tmp_path / "deep" / "A.JPG", "JPEG", exif=exif)
    picture(tmp_path / "bare.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    data = gps("photos", tmp_path)
    assert [(s.id, round(s.position.lat, 6)) for s in data.samples] == [("deep/A.JPG", -12.5)]
    assert data.report.reasons() == {
        "has no usable GPS position in its EXIF": 1,
        "can't be read as a picture": 1,
    }
