"""Starting and stopping a real server process."""

import json
import signal
import socket
import urllib.request
from pathlib import Path

import pytest
from live import running

from edgegeo.errors import BundleError, ServerError
from edgegeo.server import ServerSettings, read_api_key, serve
from edgegeo.server.listen import bind
from edgegeo.server.settings import KEY_VARIABLE, is_loopback

KEY = "0123456789abcdef"


def test_a_server_answers_and_ends_cleanly_on_sigterm(tiny_bundle: Path, planet_gallery: Path) -> None:
    with running(tiny_bundle, planet_gallery) as (process, address):
        with urllib.request.urlopen(f"{address}/health/ready", timeout=20) as answer:
            assert json.load(answer)["bundle"] == "tiny"
            assert answer.headers["x-request-id"]
        request = urllib.request.Request(
            f"{address}/v1/locate", b'{"text": "a river"}', {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert json.load(answer)["source"] == "retrieval"
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=20)
        assert process.returncode == 0, said
        assert said == "ended\n"


def test_a_port_in_use_is_one_line(tiny_bundle: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} .*in use.*--port") as caught:
            serve(ServerSettings(bundles=(tiny_bundle,), port=port))
        assert "\n" not in str(caught.value)


def test_two_servers_cant_have_one_port() -> None:
    with bind("127.0.0.1", 0) as first, pytest.raises(ServerError, match="in use"):
        bind("127.0.0.1", first.getsockname()[1])


@pytest.mark.parametrize("host", ["203.0.113.7", "no..host"])
def test_a_host_that_is_not_ours(tiny_bundle: Path, host: str) -> None:
    with pytest.raises(ServerError):
        serve(ServerSettings(bundles=(tiny_bundle,), host=host, api_key=KEY))


def test_a_missing_bundle_leaves_the_port_free(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(BundleError, match="no bundle at"):
        serve(ServerSettings(bundles=(tmp_path / "none",), port=port))
    bind("127.0.0.1", port).close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "edge.local", ""])
def test_other_machines_need_a_key(tmp_path: Path, host: str) -> None:
    with pytest.raises(ServerError, match=KEY_VARIABLE):
        ServerSettings(bundles=(tmp_path,), host=host)
    assert ServerSettings(bundles=(tmp_path,), host=host, api_key=KEY).host == host


def test_loopback_is_known() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.8.9.1", "localhost", "::1", "[::1]"))


@pytest.mark.parametrize(
    "wrong", [{"port": -1}, {"port": 70_000}, {"queue_size": 0}, {"deadline_s": 0.0}, {"max_body_bytes": 0}]
)
def test_settings_that_cant_work(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ServerError, match=next(iter(wrong))):
        ServerSettings(bundles=(tmp_path,), **wrong)  # type: ignore[arg-type]


def test_the_key_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"  {KEY}file \nmore\n")
    assert read_api_key(file, {KEY_VARIABLE: KEY}) == KEY + "file"
    assert read_api_key(None, {KEY_VARIABLE: KEY}) == KEY
    assert read_api_key(None, {}) is None
    assert read_api_key(None, {KEY_VARIABLE: ""}) is None


@pytest.mark.parametrize("content", [b"", b"short\n", b"sixteen chars but spaces\n", b"\xff\xfe\x00\x01"])
def test_keys_that_protect_nothing_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(ServerError) as caught:
        read_api_key(file)
    assert "spaces but" not in str(caught.value)


def test_a_missing_key_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="can't read the key file"):
        read_api_key(tmp_path / "none")
