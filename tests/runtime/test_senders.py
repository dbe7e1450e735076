"""What receivers get: NMEA and MAVLink over loopback, decoded by other people's parsers."""

import math
import os
import socket
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_answers import NOW, answer, broken, located, positions

from edgegeo.errors import EdgegeoError, LinkError
from edgegeo.geo import Position, distance_km
from edgegeo.runtime.formats import Located
from edgegeo.runtime.senders import Fix, NmeaSender, fix_of, open_link, open_mavlink, sentences, sigma_m, withheld
from edgegeo.runtime.senders.mavlink import gps_week, north_east_m


@pytest.fixture
def listener() -> Any:
    """A UDP socket on loopback; its port is listener.getsockname()[1]."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind(("127.0.0.1", 0))
        heard.settimeout(5)
        yield heard


def port_of(heard: socket.socket) -> int:
    return int(heard.getsockname()[1])


def checksum_is_right(sentence: bytes) -> bool:
    body, said = sentence.removeprefix(b"$").removesuffix(b"\r\n").split(b"*")
    total = 0
    for byte in body:
        total = (total | byte) - (total & byte)  # exclusive or, in other words
    return int(said, 16) == total


def degrees_of(field: str, side: str) -> float:
    point = field.index(".")
    value = float(field[: point - 2]) + float(field[point - 2 :]) / 60
    return -value if side in "SW" else value


@settings(max_examples=300, deadline=None)
@given(positions, st.none() | st.floats(0.001, 20_000), st.datetimes(datetime(1990, 1, 1), datetime(2069, 1, 1)))
def test_nmea_read_back(place: Position, radius: float | None, time: datetime) -> None:
    fix = Fix(place, None if radius is None else sigma_m(radius), time.replace(tzinfo=timezone.utc))
    lines = sentences(fix)
    assert len(lines) == 2 + (radius is not None)
    for line in lines:
        assert checksum_is_right(line)
        assert len(line) <= 82 or (radius or 0) > 9999
        assert line.endswith(b"\r\n")
    gga, rmc = (line.decode().split("*")[0].split(",") for line in lines[:2])
    for lat, ns, lon, ew in (gga[2:6], rmc[3:7]):
        assert (len(lat), len(lon)) == (9, 10)
        assert float(lat[2:]) < 60
        assert float(lon[3:]) < 60
        assert distance_km(degrees_of(lat, ns), degrees_of(lon, ew), place.lat, place.lon) < 2e-4
    assert (gga[6], gga[7], gga[8]) == ("6", "00", "")
    assert (rmc[2], rmc[12]) == ("A", "E")
    assert rmc[9] == time.strftime("%d%m%y")


def test_nmea_by_pynmea2() -> None:
    pynmea2 = pytest.importorskip("pynmea2")

    fix = fix_of(located(Position(-33.8567844, 151.2152967), 180.0))
    gga, rmc, gst = (pynmea2.parse(line.decode(), check=True) for line in sentences(fix))
    assert (gga.latitude, gga.longitude) == pytest.approx((-33.8567844, 151.2152967), abs=1e-6)
    assert (rmc.latitude, rmc.longitude) == pytest.approx((-33.8567844, 151.2152967), abs=1e-6)
    assert (gga.gps_qual, gga.horizontal_dil, rmc.mode_indicator) == (6, "", "E")
    assert rmc.datetime.replace(microsecond=0) == NOW.replace(microsecond=0)
    assert gst.std_dev_latitude == gst.std_dev_longitude == pytest.approx(180_000 / 1.79412, abs=0.6)


@pytest.mark.parametrize(
    ("lat", "said"), [(59.9999999999, "6000.0000,N"), (-0.00000001, "0000.0000,S"), (90.0, "9000.0000,N")]
)
def test_minutes_carry(lat: float, said: str) -> None:
    assert said in sentences(Fix(Position(lat, 180.0), None, NOW))[0].decode()
    assert "18000.0000,E" in sentences(Fix(Position(lat, 180.0), None, NOW))[0].decode()


def test_the_deviation_holds_the_radius() -> None:
    import numpy as np

    errors = np.random.default_rng(0).normal(0, sigma_m(100.0), (2, 200_000))
    assert np.mean(np.hypot(*errors) <= 100_000) == pytest.approx(0.8, abs=0.003)
    assert np.mean(np.hypot(*(errors * sigma_m(100.0, 0.5) / sigma_m(100.0))) <= 100_000) == pytest.approx(
        0.5, abs=0.005
    )


def decoded(data: bytes) -> Any:
    common = pytest.importorskip("pymavlink.dialects.v20.common")
    (message,) = common.MAVLink(None).parse_buffer(bytearray(data))
    return message


@settings(max_examples=100, deadline=None)
@given(positions, st.none() | st.floats(0.01, 20_000))
def test_gps_input(place: Position, radius: float | None) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind(("127.0.0.1", 0))
        heard.settimeout(5)
        pytest.importorskip("pymavlink")
        sender = open_mavlink(f"udpout:127.0.0.1:{port_of(heard)}")
        sender.send(Fix(place, None if radius is None else sigma_m(radius), NOW))
        message = decoded(heard.recv(300))
        sender.close()
    assert message.get_type() == "GPS_INPUT"
    assert distance_km(message.lat / 1e7, message.lon / 1e7, place.lat, place.lon) < 2e-5
    assert message.ignore_flags == (0b10111111 if radius is not None else 0b11111111)
    assert message.horiz_accuracy == pytest.approx(0.0 if radius is None else sigma_m(radius), rel=1e-6)
    assert (message.fix_type, message.satellites_visible, message.yaw, message.hdop) == (2, 0, 0, 65535.0)
    assert (message.get_srcSystem(), message.get_srcComponent()) == (1, 191)
    assert message.time_usec == int(NOW.timestamp() * 1000) * 1000


def test_vision_position_estimate(listener: Any) -> None:
    pytest.importorskip("pymavlink")
    place, origin = Position(47.4, 8.6), Position(47.3, 8.5)
    sender = open_mavlink(f"udpout:127.0.0.1:{port_of(listener)}", "vision_position_estimate", origin)
    sender.send(fix_of(located(place, 2.0)))
    message = decoded(listener.recv(300))
    assert message.x == pytest.approx(11_119.5, abs=10)
    assert message.y == pytest.approx(7_527, abs=10)
    assert (message.z, message.roll, message.pitch, message.yaw) == (0, 0, 0, 0)
    diagonal = [message.covariance[i] for i in (0, 6, 11, 15, 18, 20)]
    assert diagonal[:2] == pytest.approx([sigma_m(2.0) ** 2] * 2)
    assert min(diagonal[2:]) == pytest.approx(1e12)
    assert sum(map(abs, message.covariance)) == pytest.approx(sum(diagonal))
    sender.send(fix_of(located(place)))
    later = decoded(listener.recv(300))
    assert math.isnan(later.covariance[0])
    assert later.get_seq() == message.get_seq() + 1
    sender.close()


@settings(max_examples=200, deadline=None)
@given(positions, positions)
def test_metres_from_the_origin_keep_the_distance(origin: Position, place: Position) -> None:
    north, east = north_east_m(origin, place)
    assert math.hypot(north, east) == pytest.approx(
        1000 * distance_km(origin.lat, origin.lon, place.lat, place.lon), abs=1e-3
    )


def test_north_east_across_the_antimeridian() -> None:
    north, east = north_east_m(Position(0, 179.9), Position(0, -179.9))
    assert (north, east) == pytest.approx((0, 22_239), abs=1)
    assert north_east_m(Position(1, 2), Position(1, 2)) == (0, 0)
    assert north_east_m(Position(10, 2), Position(9, 2))[0] == pytest.approx(-111_195, abs=1)


def test_gps_time() -> None:
    assert gps_week(datetime(1980, 1, 6, tzinfo=timezone.utc)) == (0, 18_000)
    assert gps_week(datetime(2025, 1, 4, 23, 59, 42, tzinfo=timezone.utc)) == (2348, 0)
    east = timezone(timedelta(hours=9))
    assert gps_week(NOW.astimezone(east)) == gps_week(NOW)


def test_what_must_not_leave_is_withheld() -> None:
    place = Position(1, 2)
    assert withheld(located(place)) is None
    assert withheld(located(None)) == "no position was found"
    assert "0.25 is below" in str(withheld(located(None, abstained=True, confidence=0.25)))
    assert withheld(located(place, warnings=("shows nothing",))) == "shows nothing"
    assert "prior" in str(withheld(Located("a", replace(answer(place), source="prior"), NOW)))
    assert "0, 0" in str(withheld(located(Position(0.0, -0.000001))))
    with pytest.raises(LinkError, match="no position"):
        fix_of(located(None))


@pytest.mark.parametrize("value", [math.nan, math.inf, -90.0001, 1e9])
def test_no_fix_of_what_is_no_place(value: float) -> None:
    for make in (
        lambda: fix_of(located(broken(value))),
        lambda: withheld(located(broken(value))),
        lambda: Fix(broken(value), None, NOW),
        lambda: Fix(Position(1, 2), value if value < 0 or not math.isfinite(value) else 0.0, NOW),
    ):
        with pytest.raises(EdgegeoError):
            make()
    with pytest.raises(LinkError, match="time zone"):
        Fix(Position(1, 2), 1.0, NOW.replace(tzinfo=None))


def test_nmea_over_udp(listener: Any) -> None:
    sender = NmeaSender(open_link(f"udp://127.0.0.1:{port_of(listener)}"))
    fix = fix_of(located(Position(1, 2), 3.0))
    sender.send(fix)
    assert [listener.recv(200) for _ in range(3)] == sentences(fix)
    sender.close()
    sender.close()


def test_tcp_server_of_several_clients() -> None:
    link = open_link("tcp-listen://127.0.0.1:0", wait_s=0.05)
    with pytest.raises(LinkError, match="nobody is connected"):
        link.send(b"early\n")
    place = ("127.0.0.1", link.port)  # type: ignore[attr-defined]
    one, two = (socket.create_connection(place, 5) for _ in range(2))
    link.send(b"first\n")
    one.close()
    three = socket.create_connection(place, 5)
    three.sendall(b"chatter")
    link.send(b"second\n")
    link.send(b"third\n")
    link.close()
    assert read_all(two) == b"first\nsecond\nthird\n"
    assert read_all(three) == b"second\nthird\n"


def read_all(client: socket.socket) -> bytes:
    data = b""
    with client:
        try:
            while more := client.recv(100):
                data += more
        except ConnectionResetError:  # the server closed with our chatter unread
            pass
    return data


def test_tcp_client_connects_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = open_link(f"tcp://127.0.0.1:{port_of(server)}")
        first, _ = server.accept()
        link.send(b"one")
        assert first.recv(10) == b"one"
        first.close()
        link.send(b"two")
        second, _ = server.accept()
        assert second.recv(10) == b"two"
        second.close()
        link.close()


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs pseudo terminals")
def test_serial() -> None:
    pytest.importorskip("pymavlink")
    near, far = os.openpty()
    sender = open_mavlink(f"{os.ttyname(far)},57600")
    sender.send(Fix(Position(1, 2), 3.0, NOW))
    assert decoded(os.read(near, 300)).lon == 20_000_000
    sender.close()
    os.close(near)
    os.close(far)


@pytest.mark.parametrize(
    "address",
    ["", "127.0.0.1:10110", "udp://", "udp://127.0.0.1", "udp://127.0.0.1:99999", "tcp://:1x", "http://a:1",
     "serial://", "serial:///dev/ttyS0", "udp://a:1/b"],
)  # fmt: skip
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(LinkError, match=r"is no address; give udp://"):
        open_link(address)


def test_receivers_that_are_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = port_of(server)
        with pytest.raises(LinkError, match="in use"):
            open_link(f"tcp-listen://127.0.0.1:{taken}")
    for address in (f"tcp://127.0.0.1:{taken}", "serial:///dev/no-such-port:57600"):
        with pytest.raises(LinkError, match="can't send to"):
            open_link(address)
    with pytest.raises(LinkError, match="baud"):
        open_link("serial:///dev/no-such-port:12345")
    link = open_link(f"udp://127.0.0.1:{taken}")
    with pytest.raises(LinkError, match="refused"):
        NmeaSender(link).send(Fix(Position(1, 2), 3.0, NOW))
    with pytest.raises(LinkError, match="refused"):
        link.send(b"one datagram")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as late:
        late.bind(("127.0.0.1", taken))
        late.settimeout(5)
        link.send(b"hello")
        assert late.recv(10) == b"hello"
    link.close()


@pytest.mark.parametrize("address", ["udp:127.0.0.1:1", "udpout", "udpout://127.0.0.1:1", "14550", "udpout:nowhere"])
def test_what_is_no_mavlink_address(address: str) -> None:
    pytest.importorskip("pymavlink")
    with pytest.raises(LinkError, match="is no"):
        open_mavlink(address)


def test_mavlink_settings(listener: Any) -> None:
    pytest.importorskip("pymavlink")
    place = f"udpout:127.0.0.1:{port_of(listener)}"
    with pytest.raises(LinkError, match="gps_input"):
        open_mavlink(place, "heartbeat")
    with pytest.raises(LinkError, match="--origin"):
        open_mavlink(place, "vision_position_estimate")


def test_without_pymavlink(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pymavlink.dialects.v20", None)
    with pytest.raises(LinkError, match=r"pip install 'edgegeo\[mavlink\]'"):
        open_mavlink("udpout:127.0.0.1:14550")
