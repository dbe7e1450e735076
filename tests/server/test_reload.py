"""A new bundle and gallery under load: every answer is the old model's or the new one's, and none is missing."""

import json
import shutil
import signal
import socket
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from live import running

from edgegeo.planet import Planet
from edgegeo.runtime import Embedder, Gallery
from edgegeo.runtime.gallery.sources import planet_places

TEXT = "a river bends around a town"


def embed(address: str) -> list[float]:
    body = json.dumps({"input": TEXT}).encode()
    request = urllib.request.Request(f"{address}/v1/embeddings", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return list(json.load(answer)["data"][0]["embedding"])


def metrics(address: str) -> str:
    with urllib.request.urlopen(f"{address}/metrics", timeout=20) as answer:
        return str(answer.read().decode())


def replaced(place: Path, source: Path) -> Path:
    """The folder at `place` as a copy of `source`, as an administrator swaps them."""
    fresh = shutil.copytree(source, place.with_name(f"{place.name}.new"))
    if place.exists():
        place.rename(place.with_name(f"{place.name}.{source.parent.name}.old"))
    return fresh.rename(place)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end of the notify socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "notify"))
        line.settimeout(20)
        yield line


def heard(line: socket.socket, wanted: str) -> str:
    """The next message that begins with `wanted`; feeding the watchdog goes on between."""
    message = "WATCHDOG=1"
    while message.startswith(("WATCHDOG=1", "STATUS=")):
        message = line.recv(4096).decode()
    assert message.startswith(wanted), message
    return message


def test_reload_under_load(
    tiny_bundle: Path, other_tiny_bundle: Path, planet_gallery: Path, tmp_path: Path, manager: socket.socket
) -> None:
    bundle, gallery = replaced(tmp_path / "bundle", tiny_bundle), replaced(tmp_path / "gallery", planet_gallery)
    built = tmp_path / "built" / "gallery"
    Gallery.build(built, planet_places(Planet(), n=5, size=64), Embedder.open(other_tiny_bundle, threads=1))
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "60000000"}
    answers: list[list[float]] = []
    enough = threading.Event()

    def ask(address: str) -> None:
        while not enough.is_set():
            answers.append(embed(address))

    with (
        running(bundle, gallery, environ=environ, heartbeat_s=0.2, cache_mb=0) as (process, address),
        ThreadPoolExecutor(3) as pool,
    ):
        assert heard(manager, "READY=1").endswith("STATUS=tiny (fp32, cpu, 12 tiles)")
        old = embed(address)
        asking = [pool.submit(ask, address) for _ in range(3)]
        try:
            # The gallery is still of the old bundle, so that the pair can't be served.
            replaced(bundle, other_tiny_bundle)
            process.send_signal(signal.SIGHUP)
            heard(manager, "RELOADING=1\nMONOTONIC_USEC=")
            assert heard(manager, "READY=1").endswith("could not reload tiny")
            assert embed(address) == pytest.approx(old, abs=1e-5)
            replaced(gallery, built)
            process.send_signal(signal.SIGHUP)
            heard(manager, "RELOADING=1")
            assert heard(manager, "READY=1").endswith("STATUS=other (fp32, cpu, 5 tiles)")
            new = embed(address)
        finally:
            enough.set()
        for job in asking:
            job.result()
        said = metrics(address)
        process.send_signal(signal.SIGTERM)
        heard(manager, "STOPPING=1")
        assert process.wait(20) == 0
    assert new != pytest.approx(old, abs=1e-2)
    kinds = [answer == pytest.approx(new, abs=1e-5) for answer in answers]
    assert any(kinds)
    assert not all(kinds)
    strange = [answer for answer, is_new in zip(answers, kinds, strict=True) if not is_new]
    assert all(answer == pytest.approx(old, abs=1e-5) for answer in strange)
    for line in (
        'edgegeo_reloads_total{result="done"} 1.0',
        'edgegeo_reloads_total{result="failed"} 1.0',
        'edgegeo_heartbeats_total{result="failed"} 0.0',
        'edgegeo_gallery_tiles{bundle="other"} 5.0',
    ):
        assert line in said
