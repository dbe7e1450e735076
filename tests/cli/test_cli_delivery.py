"""edgegeo locate whose answers go on: documents of several photos, senders, a watched folder."""

import csv
import io
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image
from tiny_grammar import add_grammar

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a grammar, so that the random model writes positions."""
    return add_grammar(tiny_bundle, tmp_path_factory.mktemp("delivery") / "tiny").path


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Two photos with a broken one between them."""
    import numpy as np

    files = [tmp_path / name for name in ("a.png", "b & <c>.png", "d.png")]
    for seed, file in enumerate(files):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(file)
    files[1].write_bytes(files[1].read_bytes()[:60])
    return files


@pytest.fixture
def heard() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(5)
        yield listener


def port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def test_several_photos_in_one_document(cli: Any, bundle: Path, photos: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "out.gpx"
    done = cli("locate", *photos, "--bundle", bundle, "-o", target)
    assert done.code == 2
    assert done.out == ""
    assert "2 answers, 1 failed" in done.err
    assert sum("b & <c>.png" in line and line.startswith("error: ") for line in done.err.splitlines()) == 1
    names = [point.text for point in ElementTree.parse(target).iter("{http://www.topografix.com/GPX/1/1}name")]
    assert names == [str(photos[0]), str(photos[2])]

    rows = list(csv.DictReader(io.StringIO(cli("locate", *photos, "--bundle", bundle, "--format", "csv").out)))
    assert [bool(row["error"]) for row in rows] == [False, False, True]
    found = cli("locate", photos[0], photos[2], "--bundle", bundle, "--json")
    assert found.code == 0
    alone = cli("locate", photos[0], "--bundle", bundle, "--json").json
    assert found.json["answers"][0]["position"] == alone["position"]
    lines = cli("locate", *photos, "--bundle", bundle).out.splitlines()
    assert [line.split(":")[0] for line in lines] == [str(photos[0]), str(photos[2])]


@pytest.mark.parametrize("format", ["kml", "geojson", "text", "json"])
def test_one_photo_in_each_format(cli: Any, bundle: Path, photos: list[Path], format: str) -> None:
    done = cli("locate", photos[0], "--bundle", bundle, "--format", format)
    assert done.code == 0
    if format == "kml":
        assert len(list(ElementTree.fromstring(done.out).iter("{http://www.opengis.net/kml/2.2}Point"))) == 1
    elif format == "text":
        assert done.out.startswith(f"{photos[0]}: ")
    else:
        assert json.loads(done.out)


def test_the_demonstration_and_a_text_have_documents_too(cli: Any, bundle: Path, gallery: Path, home: Path) -> None:
    assert len(cli("locate", "--bundle", bundle, "--format", "json").json["answers"]) == 1
    words = ("locate", "--text", "a river", "--bundle", bundle, "--gallery", gallery)
    assert cli(*words, "--format", "json").json["answers"][0]["photo"] == "a river"


def test_nothing_is_written_if_nothing_was_found(cli: Any, bundle: Path, photos: list[Path], tmp_path: Path) -> None:
    done = cli("locate", photos[1], "--bundle", bundle, "-o", tmp_path / "out.kml")
    assert done.code == 2
    assert not (tmp_path / "out.kml").exists()


def test_nmea_and_mavlink(cli: Any, bundle: Path, photos: list[Path], heard: socket.socket) -> None:
    common = pytest.importorskip("pymavlink.dialects.v20.common")
    words = ("locate", photos[0], "--bundle", bundle)
    place = cli(*words, "--json").json["position"]
    assert cli(*words, "--nmea", f"udp://127.0.0.1:{port(heard)}").code == 0
    assert heard.recv(200).startswith(b"$GPGGA,")
    assert heard.recv(200).startswith(b"$GPRMC,")
    assert cli(*words, "--mavlink", f"udpout:127.0.0.1:{port(heard)}").code == 0
    (message,) = common.MAVLink(None).parse_buffer(bytearray(heard.recv(300)))
    assert (message.lat / 1e7, message.lon / 1e7) == pytest.approx((place["lat"], place["lon"]), abs=1e-6)
    more = ("--mavlink-message", "vision_position_estimate", "--origin", "-1.5,2")
    assert cli(*words, "--mavlink", f"udpout:127.0.0.1:{port(heard)}", *more).code == 0
    (message,) = common.MAVLink(None).parse_buffer(bytearray(heard.recv(300)))
    assert message.get_type() == "VISION_POSITION_ESTIMATE"


def test_no_position_sends_nothing_and_says_so(cli: Any, tiny_bundle: Path, photos: list[Path], heard: Any) -> None:
    done = cli("locate", photos[0], "--bundle", tiny_bundle, "--nmea", f"udp://127.0.0.1:{port(heard)}")
    assert done.code == 2
    assert "nothing sent: no position was found" in done.err
    heard.setblocking(False)
    with pytest.raises(BlockingIOError):
        heard.recv(200)


def test_a_receiver_that_is_not_there_is_told_before_the_model_loads(cli: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = port(server)
    words = ("locate", tmp_path / "a.png", "--bundle", tmp_path / "none")
    assert "can't send to tcp://" in cli(*words, "--nmea", f"tcp://127.0.0.1:{free}").refused()


def test_a_watched_folder(
    cli: Any, bundle: Path, photos: list[Path], heard: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "camera"
    folder.mkdir()
    shutil.copy(photos[2], folder / "old.png")
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 1:
            shutil.copy(photos[1], folder / "broken.png")
            shutil.copy(photos[0], folder / "new.png")
        if len(naps) > 4:
            raise KeyboardInterrupt

    monkeypatch.setattr("edgegeo.runtime.watch.Watch.photos.__defaults__", (0.5, nap))
    done = cli("locate", "--watch", folder, "--bundle", bundle, "--nmea", f"udp://127.0.0.1:{port(heard)}")
    assert done.code == 0
    assert "1 there already" in done.err
    assert "broken.png" in done.err
    assert done.err.splitlines()[-1] == "stopped: 1 photos located, 1 fixes sent"
    assert [line.split(":")[0] for line in done.out.splitlines()] == [str(folder / "new.png")]
    assert heard.recv(200).startswith(b"$GPGGA,")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a", "--format", "shp"), "--format takes text"),
        (("a", "-o", "x.shp"), "--format takes text"),
        (("a", "b", "--map", "x.png"), "--map"),
        (("a", "--json", "--format", "kml"), "--json"),
        (("a", "--watch", "."), "--watch takes"),
        (("--watch", "no-such-folder"), "can't watch"),
        (("--nmea", "udp://127.0.0.1:1"), "name a photo"),
        (("a", "--nmea", "10110"), "is no address"),
        (("a", "--nmea", "udp://127.0.0.1:1", "--origin", "1,2"), "--origin goes with"),
        (("a", "--mavlink", "udpout:127.0.0.1:1", "--mavlink-message", "vision_position_estimate"), "--origin"),
    ],
)
def test_flags_that_exclude_each_other(cli: Any, words: tuple[str, ...], said: str) -> None:
    assert said in cli("locate", *words).refused()


@pytest.mark.parametrize("origin", ["1", "a,b", "1,2,3", "91,0", "nan,0"])
def test_what_is_no_origin(cli: Any, origin: str) -> None:
    more = ("--mavlink-message", "vision_position_estimate", "--origin", origin)
    assert cli("locate", "a", "--mavlink", "udpout:127.0.0.1:1", *more).refused()
