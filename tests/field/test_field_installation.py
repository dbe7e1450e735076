"""Packages: two onnxruntimes in one folder, half-removed ones, providers that don't start."""

import http.server
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest

from edgegeo.field.finding import FAIL, OK, WARN
from edgegeo.field.holdings import examine_holdings, examine_home
from edgegeo.field.installation import (
    IDENTITY,
    Owner,
    examine_onnxruntime,
    examine_packages,
    examine_python,
    owners,
    start_providers,
)
from edgegeo.field.surroundings import examine_clock, examine_files, examine_port

LIBRARY = "onnxruntime/capi/onnxruntime_pybind11_state.so"


def install(site: Path, name: str, version: str, *files: str) -> None:
    """A distribution as pip leaves it."""
    for file in files:
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text("")
    home = site / f"{name.replace('-', '_')}-{version}.dist-info"
    home.mkdir(parents=True)
    (home / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (home / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def test_both_onnxruntimes_in_one_folder(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime", "1.31.1", "onnxruntime/__init__.py", LIBRARY)
    assert [one.name for one in owners([tmp_path])] == ["onnxruntime"]
    install(tmp_path, "onnxruntime-gpu", "1.30.0", "onnxruntime/__init__.py", LIBRARY)
    install(tmp_path, "onnxruntime-extensions", "0.14", "onnxruntime_extensions/__init__.py")
    found = owners([tmp_path])
    assert found == [Owner("onnxruntime", "1.31.1", 0), Owner("onnxruntime-gpu", "1.30.0", 0)]
    said = examine_onnxruntime(found, {"CPU": ""})
    assert said.level == FAIL
    assert "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu" in said.remedy


def test_what_removing_the_other_one_left_behind(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime-gpu", "1.30.0", "onnxruntime/__init__.py", LIBRARY)
    (tmp_path / LIBRARY).unlink()
    said = examine_onnxruntime(owners([tmp_path]), {"CPU": "it can't be imported"})
    assert said.level == FAIL
    assert "--force-reinstall --no-deps onnxruntime-gpu" in said.remedy


def test_providers_that_are_listed_but_do_not_start() -> None:
    one = [Owner("onnxruntime-gpu", "1.31.1", 0)]
    said = examine_onnxruntime(one, {"CPU": "", "CUDA": "onnxruntime fell back to CPUExecutionProvider"})
    assert said.level == WARN
    assert "starts on CPU; CUDA listed, but does not start" in said.found
    assert examine_onnxruntime(one, {"CPU": "", "CUDA": ""}).level == OK
    assert examine_onnxruntime(one, {"CPU": "no such symbol"}).remedy.startswith("no such symbol; pip install")


def test_the_graph_that_tries_providers_is_the_one_it_says() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(IDENTITY)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Identity"]
    assert start_providers()["CPU"] == ""


def test_python_and_packages() -> None:
    assert examine_python((3, 9)).level == FAIL
    assert (examine_python((3, 10)).level, examine_python((3, 12)).found) == (OK, "3.12")
    assert "runtime only" in examine_python((3, 10)).found
    whole = {"numpy": "2.2.6", "pillow": "12.3.0", "tokenizers": "0.23.3"}
    assert examine_packages(whole).level == OK
    assert examine_packages({"numpy": "2.2.6"}).found == "without pillow, tokenizers"


def test_the_data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert examine_home(tmp_path / "not" / "yet").level == OK
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "not writable" in examine_home(tmp_path).found
    monkeypatch.undo()
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 2**29))
    assert examine_home(tmp_path).remedy.startswith("free some")


def test_bundles_and_galleries(
    tiny_bundle: Path, other_tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgegeo.planet import Planet
    from edgegeo.runtime import Embedder, Gallery
    from edgegeo.runtime.gallery.sources import planet_places

    monkeypatch.setenv("EDGEGEO_HOME", str(tmp_path))
    assert [one.level for one in examine_holdings(tmp_path)] == [WARN]
    mine, other = tmp_path / "bundles" / "mine", tmp_path / "bundles" / "other"
    shutil.copytree(tiny_bundle, mine)
    assert [(one.topic, one.level) for one in examine_holdings(tmp_path)] == [("bundle", OK), ("gallery", WARN)]
    place = tmp_path / "galleries" / "planet-mine"
    Gallery.build(place, planet_places(Planet(), n=2, size=64), Embedder.open(mine, threads=1))
    assert [one.level for one in examine_holdings(tmp_path)] == [OK, OK]
    # The same gallery as that of another bundle, and then without the bundle that made it.
    shutil.copytree(other_tiny_bundle, other)
    place.rename(place.with_name("planet-other"))
    said = list(examine_holdings(tmp_path))
    assert [one.level for one in said] == [OK, OK, FAIL]
    assert f"edgegeo index build --bundle {other}" in said[-1].remedy
    shutil.rmtree(mine)
    place.with_name("planet-other").rename(place.with_name("field"))
    assert "which is not here" in list(examine_holdings(tmp_path))[-1].found
    table = other / "embed_tokens.npy"
    content = bytearray(table.read_bytes())
    content[-1] ^= 1
    table.write_bytes(bytes(content))
    assert "differs from its recorded hash" in next(examine_holdings(tmp_path)).found


def test_large_holdings_are_hashed_on_request_only(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "bundles" / "mine")
    monkeypatch.setattr("edgegeo.field.holdings.HASHED", 1000)
    assert "edgegeo verify mine" in next(examine_holdings(tmp_path)).found
    assert "every hash right" in next(examine_holdings(tmp_path, full=True)).found


def test_the_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = examine_port("127.0.0.1", port)
        assert said.level == WARN
        assert "edgegeo serve --port" in said.remedy
    assert examine_port("127.0.0.1", port).level == OK


@pytest.mark.parametrize(("answer", "level"), [(b'{"status": "live"}', OK), (b'{"status": "up"}', WARN), (b"hi", WARN)])
def test_a_port_that_edgegeo_itself_serves_is_no_fault(answer: bytes, level: str) -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health/live" else 404)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert examine_port("127.0.0.1", server.server_address[1]).level == level
        server.shutdown()


def test_the_clock_and_open_files() -> None:
    now = time.time()
    assert examine_clock().level == OK
    assert examine_clock(now=0.0, installed=now).level == FAIL
    assert examine_clock(now=now, installed=now + 3600).level == OK
    assert [one.level for one in (*examine_files(256), *examine_files(1024), *examine_files(-1))] == [WARN, OK, OK]
