"""Starting and stopping a real server process."""

import json
import signal
import socket
import urllib.request
from pathlib import Path

import pytest
from live import running

from edgegeo.errors import BundleError, ServerError
from edgegeo.server import ServerSettings, serve
from edgegeo.server.listen import bind

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
