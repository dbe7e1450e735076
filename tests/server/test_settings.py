"""What the server is told before it starts: checked at once, and keys never shown."""

import math
from pathlib import Path
from typing import Any

import pytest

from edgegeo.errors import ServerError
from edgegeo.server import ServerSettings, read_admin_key, read_api_key
from edgegeo.server.settings import ADMIN_KEY_VARIABLE, KEY_VARIABLE, is_loopback

KEY = "0123456789abcdef"
HERE = (Path("bundle"),)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "edge.local", ""])
def test_other_machines_need_a_key(host: str) -> None:
    with pytest.raises(ServerError, match=KEY_VARIABLE):
        ServerSettings(HERE, host=host)
    assert ServerSettings(HERE, host=host, api_key=KEY).host == host


def test_loopback_is_known() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.8.9.1", "localhost", "::1", "[::1]"))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("port", -1),
        ("port", 70_000),
        *[(name, 0) for name in ("queue_size", "deadline_s", "max_body_bytes", "max_inputs", "max_batch")],
        *[(name, 0) for name in ("memory_budget_mb", "per_client")],
        *[(name, -1) for name in ("batch_wait_ms", "cache_mb", "drain_s", "heartbeat_s")],
        *[(name, math.nan) for name in ("deadline_s", "batch_wait_ms", "drain_s", "heartbeat_s")],
        ("deadline_s", math.inf),
        ("log_format", "xml"),
        ("allowed_hosts", ("robot.local", "http://robot.local")),
        ("allowed_hosts", ("robot.local:8080",)),
        ("allowed_hosts", ("a:80",)),
        ("allowed_hosts", ("",)),
    ],
)
def test_settings_that_cant_work(name: str, wrong: Any) -> None:
    with pytest.raises(ServerError, match=name) as caught:
        ServerSettings(HERE, **{name: wrong})
    assert "\n" not in str(caught.value)


def test_settings_at_their_edges() -> None:
    settings = ServerSettings(
        HERE, batch_wait_ms=0, cache_mb=0, drain_s=0, heartbeat_s=0, memory_budget_mb=1, per_client=1,
        allowed_hosts=("robot.local", "ROBOT", "10.0.0.7", "[fe80::1]", "*"),
    )  # fmt: skip
    assert settings.cache_mb == 0
    with pytest.raises(ServerError, match="no bundle"):
        ServerSettings(())


@pytest.mark.parametrize(
    ("read", "variable"), [(read_api_key, KEY_VARIABLE), (read_admin_key, ADMIN_KEY_VARIABLE)], ids=["api", "admin"]
)
def test_a_key_comes_from_a_file_or_the_environment(tmp_path: Path, read: Any, variable: str) -> None:
    file = tmp_path / "key"
    file.write_text(f"  {KEY}file \nmore\n")
    assert read(file, {variable: KEY}) == KEY + "file"
    assert read(None, {variable: KEY}) == KEY
    assert read(None, {}) is None
    assert read(None, {variable: ""}) is None


@pytest.mark.parametrize("content", [b"", b"short\n", b"sixteen chars but spaces\n", b"\xff\xfe\x00\x01"])
def test_keys_that_protect_nothing_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(ServerError) as caught:
        read_api_key(file)
    assert "spaces but" not in str(caught.value)


def test_a_key_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="can't read the key file"):
        read_admin_key(tmp_path / "none")


def test_keys_are_not_shown_and_not_shared() -> None:
    settings = ServerSettings(HERE, api_key=KEY + "one", admin_key=KEY + "two")
    assert KEY not in repr(settings)
    with pytest.raises(ServerError, match="administrator"):
        ServerSettings(HERE, api_key=KEY, admin_key=KEY)
