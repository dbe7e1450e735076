"""Starting and stopping a real server process."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


# Whoever connects, or asks for the address of a name, beyond this machine, ends the process.
CONFINED = """
import os, sys
def confine(event, given):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(given[1], tuple):
        host = given[1][0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = given[0]
    else:
        return
    if host not in ("127.0.0.1", "::1", "localhost"):
        os.write(2, f"{event} {given}\\n".encode())
        os._exit(99)
sys.addaudithook(confine)
"""
OUTSIDE = "http://192.0.2.1/photo.jpg"


def test_the_confinement_confines() -> None:
    for attempt in ("socket.create_connection(('192.0.2.1', 80), 0.1)", "socket.gethostbyname('example.com')"):
        done = subprocess.run([sys.executable, "-c", f"{CONFINED}\nimport socket\n{attempt}"], capture_output=True)
        assert done.returncode == 99, attempt


def bodies(operation: Any, schemas: Any) -> Iterator[Any]:
    """The examples of an operation's JSON body, and the same with the pictures named by addresses."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        yield None
        return
    schema = content["schema"]
    schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    assert schema["examples"]
    for example in schema["examples"]:
        yield example
        yield json.loads(re.sub(r"data:image[^\"]*", OUTSIDE, json.dumps(example)))


def test_nothing_is_asked_of_other_machines(tiny_bundle: Path, planet_gallery: Path, tmp_path: Path) -> None:
    gallery = shutil.copytree(planet_gallery, tmp_path / "gallery")
    keys = {"authorization": f"Bearer {KEY}", "x-admin-key": f"{KEY}admin"}

    def ask(address: str, method: str, body: Any) -> int:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            address, data, {**keys, "content-type": "application/json", "referer": OUTSIDE}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                answer.read()
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    statuses = []
    with running(tiny_bundle, gallery, KEY, before=CONFINED, admin_key=f"{KEY}admin") as (process, address):
        with urllib.request.urlopen(f"{address}/openapi.json", timeout=20) as answer:
            described = json.load(answer)
        for path, operations in described["paths"].items():
            place = path.replace("{tile}", "test-00003").replace("{index}", "0").replace("{model}", "tiny")
            assert "{" not in place
            for method, operation in operations.items():
                for body in bodies(operation, described["components"]["schemas"]):
                    status = ask(f"{address}{place}", method.upper(), body)
                    assert status < 500, (method, place, body)
                    statuses.append((method, path, status))
        assert process.poll() is None
        answered = {path for _, path, status in statuses if status == 200}
        assert answered == set(described["paths"])
