"""edgegeo serve from the command line: every flag reaches the server, and a start that fails is one line."""

import json
import math
import shutil
import socket
from collections.abc import Callable
from dataclasses import fields
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import edgegeo.server
from edgegeo.server import ServerSettings
from edgegeo.server.settings import ADMIN_KEY_VARIABLE, KEY_VARIABLE

KEY = "0123456789abcdef"
CHANGED: dict[str, tuple[str, Any]] = {
    "gallery": ("--gallery", Path("tiles")),
    "host": ("--host", "::1"),
    "port": ("--port", 9001),
    "provider": ("--provider", "auto"),
    "threads": ("--threads", 3),
    "queue_size": ("--queue-size", 7),
    "deadline_s": ("--deadline", 4.5),
    "max_inputs": ("--max-inputs", 9),
    "max_batch": ("--max-batch", 5),
    "batch_wait_ms": ("--batch-wait-ms", 2.5),
    "memory_budget_mb": ("--memory-budget-mb", 700),
    "cache_mb": ("--cache-mb", 0),
    "per_client": ("--per-client", 2),
    "log_format": ("--log-format", "json"),
    "drain_s": ("--drain", 3.5),
    "heartbeat_s": ("--heartbeat", 0.0),
}
"""Settings whose flag takes the value as it is."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[ServerSettings]:
    """The settings that `serve` was called with; nothing is served."""
    found: list[ServerSettings] = []

    def serve(settings: ServerSettings, announce: Callable[[str], None]) -> None:
        found.append(settings)
        announce("serving at http://127.0.0.1:1/")

    monkeypatch.setattr(edgegeo.server, "serve", serve)
    for name in (KEY_VARIABLE, ADMIN_KEY_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    return found


def test_every_setting_has_a_flag(cli: Any, told: list[ServerSettings], tmp_path: Path) -> None:
    words = [word for name, value in CHANGED.values() for word in (name, value)]
    for name in ("api", "admin"):
        (tmp_path / name).write_text(KEY + name)
    outcome = cli(
        "serve", *words, "--bundle", "one", "--bundle", "two", "--api-key-file", tmp_path / "api",
        "--admin-key-file", tmp_path / "admin", "--max-body-mb", 1.5, "--allowed-hosts", "a.local, b.local",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    others = {
        "bundles": (Path("one"), Path("two")),
        "api_key": KEY + "api",
        "admin_key": KEY + "admin",
        "max_body_bytes": 3 * 2**19,
        "allowed_hosts": ("a.local", "b.local"),
    }
    expected = {**{name: value for name, (_, value) in CHANGED.items()}, **others}
    assert {field.name: getattr(told[0], field.name) for field in fields(ServerSettings)} == expected


def test_every_flag_has_a_variable(cli: Any, told: list[ServerSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    for flag, value in CHANGED.values():
        monkeypatch.setenv("EDGEGEO_" + flag[2:].replace("-", "_").upper(), str(value))
    monkeypatch.setenv("EDGEGEO_BUNDLE", "one:two")
    monkeypatch.setenv("EDGEGEO_MAX_BODY_MB", "1.5")
    monkeypatch.setenv("EDGEGEO_ALLOWED_HOSTS", "*")
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.setenv(ADMIN_KEY_VARIABLE, KEY + "admin")
    assert cli("serve").code == 0
    assert {name: getattr(told[0], name) for name in CHANGED} == {name: value for name, (_, value) in CHANGED.items()}
    assert (told[0].bundles, told[0].max_body_bytes) == ((Path("one"), Path("two")), 3 * 2**19)
    assert (told[0].api_key, told[0].admin_key, told[0].allowed_hosts) == (KEY, KEY + "admin", ("*",))


def test_the_defaults_are_those_of_the_settings(
    cli: Any, told: list[ServerSettings], home: Path, gallery: Path
) -> None:
    outcome = cli("serve", "--json")
    assert outcome.json == {"serving": "serving at http://127.0.0.1:1/"}
    assert "no gallery" in outcome.err
    assert told[0] == ServerSettings((home / "bundles" / "pocket-int8",))
    usual = shutil.copytree(gallery, home / "galleries" / "planet-pocket-int8")
    assert cli("serve").code == 0
    assert told[1].gallery == usual


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--port", 70_000), "--port"),
        (("--queue-size", 0), "--queue-size"),
        (("--deadline", math.nan), "--deadline"),
        (("--drain", -1), "--drain"),
        (("--max-body-mb", math.nan), "--max-body-mb"),
        (("--heartbeat", math.inf), "--heartbeat"),
        (("--log-format", "xml"), "log_format"),
        (("--memory-budget-mb", 0), "--memory-budget-mb"),
        (("--allowed-hosts", "http://x"), "allowed_hosts"),
        (("--host", "0.0.0.0"), KEY_VARIABLE),
        (("--api-key-file", "/nowhere/key"), "can't read the key file"),
        (("--admin-key-file", "/nowhere/key"), "can't read the key file"),
    ],
)
def test_settings_that_cant_work(cli: Any, told: list[ServerSettings], words: tuple[object, ...], said: str) -> None:
    assert said in cli("serve", *words).refused()
    assert told == []


def test_starts_that_fail_are_one_line(
    cli: Any, tiny_bundle: Path, other_tiny_bundle: Path, gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = ("serve", "--port", 0, "--threads", 1)
    assert "no bundle at" in cli(*usual, "--bundle", tmp_path / "none").refused()
    assert "rebuild it with" in cli(*usual, "--bundle", other_tiny_bundle, "--gallery", gallery).refused()
    assert "no gallery" in cli(*usual, "--bundle", tiny_bundle, "--gallery", tmp_path / "none").refused()
    twice = cli(*usual, "--bundle", tiny_bundle, "--bundle", tiny_bundle).refused()
    assert "two bundles are named 'tiny'" in twice
    assert "no bundle at" in cli(*usual, "--bundle", tiny_bundle, "--bundle", tmp_path / "none").refused()
    with monkeypatch.context() as patch:  # a process that has run other tests has room for a tiny bundle already
        patch.setattr("edgegeo.server.fleet.resident_bytes", count(0, 8 * 2**20).__next__)
        assert "memory budget" in cli(*usual, "--bundle", tiny_bundle, "--memory-budget-mb", 1).refused()
    damaged = shutil.copytree(tiny_bundle, tmp_path / "damaged")
    manifest = json.loads((damaged / "edgegeo.json").read_text())
    manifest["schema"] = 999
    (damaged / "edgegeo.json").write_text(json.dumps(manifest))
    assert "bundle version 999" in cli(*usual, "--bundle", damaged).refused()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}" in cli("serve", "--bundle", tiny_bundle, "--port", port).refused()
